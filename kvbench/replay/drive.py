"""Driving a backend through one step of a trace, as a world model's inference would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from kvbench.replay.content import latent_of
from kvbench.trace.steps import Step
from kvcache import MISS, CacheBackend, KeysValues, RecurrentMissError, Scope, hash_state

__all__ = [
    "OPERATIONS",
    "STEP_OPERATIONS",
    "Content",
    "FillerContent",
    "Latents",
    "Meter",
    "StepInputs",
    "run_step",
]

# The operations of a recurrent step, and of a whole search.
STEP_OPERATIONS = ("hash", "lookup", "assemble", "store")
OPERATIONS = (*STEP_OPERATIONS, "clear")

# Makes a call of an operation kind and returns its result: timed, counted, or neither.
Meter = Callable[..., Any]


class Latents:
    """Stand-in latents for a trace's keys, and the cache keys that they hash to.

    Args:
        width: elements of one latent, E.
        device: where a model would have them.
    """

    def __init__(self, width: int, device: torch.device | str) -> None:
        self._width = width
        self._device = torch.device(device)
        self._hashes: dict[int, int] = {}

    def hash_of(self, key: int) -> int:
        """The cache key under which a trace's key is stored in a replay."""
        hashed = self._hashes.get(key)
        if hashed is None:
            hashed = self._hashes[key] = hash_state(latent_of(key, self._width))
        return hashed

    def inputs(self, step: Step) -> StepInputs:
        """The latents of one step, made before any measurement and shared by all backends."""
        asked = [key for key in step.parents if key is not None]
        parents: torch.Tensor | np.ndarray | None = None
        if asked:
            parents = self._stack(asked)
            # A search keeps its nodes' latents on the host; the root's come from the tokenizer, on the device
            # (LightZero 0.2.0: mcts_ctree.py, world_model.py).
            if step.scope is Scope.ROOT:
                parents = torch.from_numpy(parents).to(self._device)
        new = torch.from_numpy(self._stack(step.keys)).to(self._device) if step.keys else None
        return StepInputs(parents, new)

    def _stack(self, keys: Sequence[int]) -> np.ndarray:
        return np.stack([latent_of(key, self._width) for key in keys])[:, None, :]


class StepInputs:
    """Latents of one step: of the parents that are looked up, and of the new nodes, ``[rows, 1, E]`` each."""

    __slots__ = ("new", "parents")

    def __init__(self, parents: torch.Tensor | np.ndarray | None, new: torch.Tensor | None) -> None:
        self.parents = parents
        self.new = new


class Content(Protocol):
    """The model's part of a step: contexts after a miss, and new tokens. It also sees the results."""

    def generate(self, step: Step, row: int) -> KeysValues:
        """The context of a row that missed."""

    def assembled(self, backend: CacheBackend, step: Step, found: list[int]) -> None:
        """The batch is assembled; ``found`` is what the lookup reported for each row."""

    def append(self, batch: KeysValues, step: Step) -> None:
        """Append the step's new tokens to the batch."""

    def stored(self, backend: CacheBackend, step: Step) -> None:
        """The rows are stored."""


def run_step(backend: CacheBackend, step: Step, inputs: StepInputs, content: Content, meter: Meter) -> None:
    """Run one inference; ``meter(operation, call, *arguments)`` makes each call of the backend but ``supply``."""
    if step.envs:
        keys: list[int | None] = [None] * len(step.envs)
        if inputs.parents is not None:
            hashed = iter(meter("hash", backend.hash_states, inputs.parents))
            keys = [None if parent is None else next(hashed) for parent in step.parents]
        found = meter("lookup", _lookup, backend, step.envs, keys, step.scope)
        for row, size in enumerate(found):
            if size == MISS:
                backend.supply(row, content.generate(step, row))
        meter("assemble", backend.assemble)
        content.assembled(backend, step, found)
        if step.keys:
            content.append(backend.keys_values_wm, step)
            new_keys = meter("hash", backend.hash_states, inputs.new)
            # Shallow nodes are asked for again more often: a backend that evicts by priority keeps them longer.
            meter("store", backend.store, step.envs, new_keys, step.scope, [-depth for depth in step.depths])
            content.stored(backend, step)
    for scope in step.clears:
        meter("clear", _CLEARS[scope], backend)


def _lookup(backend: CacheBackend, envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> Sequence[int]:
    try:
        return backend.lookup(envs, keys, scope)
    except RecurrentMissError:  # LightZero 0.2.0 would have ended here: a replay notes the miss and goes on
        return backend.keys_values_wm_size_list.copy()


_CLEARS: dict[str, Callable[[CacheBackend], None]] = {
    "recur": lambda backend: backend.clear_recur_cache(),
    "init": lambda backend: backend.clear_init_caches(),
    "all": lambda backend: backend.clear_all(),
}


class FillerContent:
    """Tokens without meaning: for passes in which contents are not looked at.

    Args:
        backend: whose batches are filled.
        seed: of the numbers.
    """

    def __init__(self, backend: CacheBackend, seed: int = 0) -> None:
        config, geometry = backend.config, backend.config.geometry
        self._generator = torch.Generator().manual_seed(seed)
        self._config = config
        self._tokens: dict[tuple[int, int], torch.Tensor] = {}
        shape = (1, geometry.num_layers, 2, geometry.num_heads, geometry.context_length, geometry.head_dim)
        self._generated = KeysValues.from_block(self._random(shape), 1)

    def _random(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator).to(device=self._config.device, dtype=self._config.dtype)

    def generate(self, step: Step, row: int) -> KeysValues:
        return self._generated

    def assembled(self, backend: CacheBackend, step: Step, found: list[int]) -> None:
        pass

    def append(self, batch: KeysValues, step: Step) -> None:
        shape = (len(step.envs), step.tokens)
        tokens = self._tokens.get(shape)
        if tokens is None:
            geometry = self._config.geometry
            tokens = self._tokens[shape] = self._random((shape[0], geometry.num_heads, shape[1], geometry.head_dim))
        for layer in batch:
            layer.update(tokens, tokens)

    def stored(self, backend: CacheBackend, step: Step) -> None:
        pass
