"""Driving a backend through one step of a trace, as a world model's inference would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch

from kvbench.replay.content import latents_of
from kvbench.trace.steps import Step
from kvcache import MISS, CacheBackend, KeysValues, RecurrentMissError, Scope

__all__ = [
    "OPERATIONS", "STEP_OPERATIONS", "Content", "FillerContent", "Latents", "StepInputs", "clear_pools", "look_up",
    "run_step",
]  # fmt: skip

# The operations of a recurrent step, and of a whole search.
STEP_OPERATIONS = ("hash", "lookup", "assemble", "store")
OPERATIONS = (*STEP_OPERATIONS, "clear")
_AT_ONCE = 64  # steps whose latents are made at once
# How a backend is cleared, by the scope of a clear.
_CLEARS: dict[str, Callable[[CacheBackend], None]] = {
    "recur": lambda backend: backend.clear_recur_cache(),
    "init": lambda backend: backend.clear_init_caches(),
    "all": lambda backend: backend.clear_all(),
}


class StepInputs(NamedTuple):
    """Latents of one step: of the parents that are looked up, and of the new nodes, ``[rows, 1, E]`` each."""

    parents: torch.Tensor | np.ndarray | None
    new: torch.Tensor | None


class Latents:
    """Stand-in latents of ``width`` elements for a trace's keys."""

    def __init__(self, width: int, device: torch.device | str) -> None:
        self._width = width
        self._device = torch.device(device)

    def inputs(self, step: Step) -> StepInputs:
        """The latents of one step, made before any measurement and shared by all backends."""
        return next(self.of_steps([step]))[1]

    def of_steps(self, steps: Iterable[Step]) -> Iterator[tuple[Step, StepInputs]]:
        """The steps with their latents, which are made of many steps at once."""
        remaining = iter(steps)
        while some := list(islice(remaining, _AT_ONCE)):
            keys = [[key for key in each.parents if key is not None] + each.keys for each in some]
            latents, first = self._stack(list(chain.from_iterable(keys))), 0
            for step, each in zip(some, keys, strict=True):
                yield step, self._inputs(step, latents[first : first + len(each)])
                first += len(each)

    def _inputs(self, step: Step, latents: np.ndarray) -> StepInputs:
        """Of the latents of a step's parents and new nodes."""
        asked = len(latents) - len(step.keys)
        parents: torch.Tensor | np.ndarray | None = latents[:asked] if asked else None
        # A search keeps its nodes' latents on the host; the root's come from the tokenizer, on the device
        # (LightZero 0.2.0: mcts_ctree.py, world_model.py).
        if asked and step.scope is Scope.ROOT:
            parents = torch.as_tensor(parents, device=self._device)
        new = torch.from_numpy(latents[asked:]).to(self._device) if step.keys else None
        return StepInputs(parents, new)

    def _stack(self, keys: Sequence[int]) -> np.ndarray:
        return latents_of(keys, self._width)[:, None, :]


class Content:
    """The model's part of a step: contexts after a miss, and new tokens. It also sees the results."""

    def generate(self, step: Step, row: int) -> KeysValues:
        """The context of a row that missed."""
        raise NotImplementedError

    def assembled(self, backend: CacheBackend, step: Step, found: list[int]) -> None:
        """The batch is assembled; ``found`` is what the lookup reported for each row."""

    def append(self, batch: KeysValues, step: Step) -> None:
        """Append the step's new tokens to the batch."""

    def stored(self, backend: CacheBackend, step: Step) -> None:
        """The rows are stored."""


def run_step(
    backend: CacheBackend, step: Step, inputs: StepInputs, content: Content, meter: Callable[..., Any]
) -> None:
    """Run one inference.

    ``meter(operation, call, *arguments)`` makes each call of the backend but ``supply``, and returns its result: timed,
    counted, or neither.
    """
    if step.envs:
        keys: list[int | None] = [None] * len(step.envs)
        if inputs.parents is not None:
            hashed = iter(meter("hash", backend.hash_states, inputs.parents))
            keys = [None if parent is None else next(hashed) for parent in step.parents]
        found = meter("lookup", look_up, backend, step.envs, keys, step.scope)
        for row, size in enumerate(found):
            if size == MISS:
                backend.supply(row, content.generate(step, row))
        meter("assemble", backend.assemble)
        content.assembled(backend, step, found)
        if step.keys:
            content.append(backend.keys_values_wm, step)
            new_keys = meter("hash", backend.hash_states, inputs.new)
            # Shallow nodes are asked for again more often: a backend that evicts by priority keeps them longer.
            priorities = [-depth for depth in step.depths]
            # Libraries before 1.3 of the trace's schema want none: a sweep of commits has them.
            known = (step.info,) if getattr(backend, "wants_info", False) else ()
            meter("store", backend.store, step.envs, new_keys, step.scope, priorities, *known)
            content.stored(backend, step)
    clear_pools(backend, step, meter)


def clear_pools(backend: CacheBackend, step: Step, meter: Callable[..., Any]) -> None:
    """Clear what is cleared after the step; ``meter`` as in ``run_step``."""
    for scope in step.clears:
        meter("clear", _CLEARS[scope], backend)
    if step.cleared_envs:
        meter("clear", backend.clear_init_caches, step.cleared_envs)


def look_up(backend: CacheBackend, envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> Sequence[int]:
    """``backend.lookup``. Where LightZero 0.2.0 would have ended, the miss is noted and the replay goes on."""
    try:
        return backend.lookup(envs, keys, scope)
    except RecurrentMissError:
        return backend.keys_values_wm_size_list.copy()


class FillerContent(Content):
    """Tokens without meaning, for passes in which contents are not looked at, and the backend that they fill."""

    def __init__(self, backend: CacheBackend) -> None:
        self.backend = backend
        self._generator = torch.Generator().manual_seed(0)
        self._tokens: dict[tuple[int, ...], torch.Tensor] = {}  # by their shape
        geometry = backend.config.geometry
        shape = (1, geometry.num_layers, 2, geometry.num_heads, geometry.context_length, geometry.head_dim)
        self._generated = KeysValues.from_block(self._random(shape), 1)

    def _random(self, shape: tuple[int, ...]) -> torch.Tensor:
        config = self.backend.config
        return torch.randn(shape, generator=self._generator).to(device=config.device, dtype=config.dtype)

    def generate(self, step: Step, row: int) -> KeysValues:
        return self._generated

    def append(self, batch: KeysValues, step: Step) -> None:
        geometry = self.backend.config.geometry
        shape = (len(step.envs), geometry.num_heads, step.tokens, geometry.head_dim)
        if shape not in self._tokens:
            self._tokens[shape] = self._random(shape)
        tokens = self._tokens[shape]
        for layer in batch:
            layer.update(tokens, tokens)
