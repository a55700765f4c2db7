"""Recording what a search over the world model asks of its cache."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from kvbench.trace.schema import ASSEMBLE, CLEAR, GENERATE, LOOKUP, NO_ENV, ROOT_SIMULATION, STORE, TraceHeader
from kvbench.trace.writer import TraceWriter
from kvcache import MISS, LegacyCache, Scope, ShadowCache
from kvcache.world_model import Inference, SearchConfig, WorldModel, WorldModelConfig, play

__all__ = ["ModelRecorder", "record_model"]


class ModelRecorder:
    """Records a world model's cache requests while the block runs; the model's results do not change.

    Args:
        model: watched from outside; its caches are empty when the block begins.
        writer: of the trace.
    """

    def __init__(self, model: WorldModel, writer: TraceWriter) -> None:
        self._model, self._cache, self._writer = model, model.cache, writer
        self._batch = -1
        self._search = -1
        self._simulation = ROOT_SIMULATION
        self._depths: Sequence[int] = ()
        self._roots: dict[int, int] = {}  # environment -> timestep of its root
        self._stored: dict[tuple[int, int], int] = {}  # environment and key -> row of the store event
        self._envs: list[int] = []
        self._scope = Scope.ROOT
        self._parents: list[int | None] = []
        self._observed: list[tuple[Any, str]] = []

    def __enter__(self) -> ModelRecorder:
        for target, name, observed in (
            (self._model, "forward_initial_inference", self._initial),
            (self._model, "forward_recurrent_inference", self._recurrent),
            (self._cache, "lookup", self._lookup),
            (self._cache, "assemble", self._assemble),
            (self._cache, "store", self._store),
            (self._cache, "clear_recur_cache", self._clear),
            (self._cache, "clear_all", self._clear_all),
        ):
            setattr(target, name, _observing(getattr(target, name), observed))
            self._observed.append((target, name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for target, name in self._observed:
            delattr(target, name)

    def _initial(self, original: Callable[..., Inference], *args: Any, **kwargs: Any) -> Inference:
        given = _bound(original, args, kwargs)
        envs, steps = _rows(given["observations"], given)
        self._roots |= dict(zip(envs, steps, strict=True))
        self._search += 1
        self._simulation = ROOT_SIMULATION
        self._writer.flush()  # a kill costs one search, not more
        return original(*args, **kwargs)

    def _recurrent(self, original: Callable[..., Inference], *args: Any, **kwargs: Any) -> Inference:
        given = _bound(original, args, kwargs)
        envs, steps = _rows(given["latents"], given)
        self._depths = [step - self._roots[env] + 1 for env, step in zip(envs, steps, strict=True)]
        self._simulation = given["simulation_index"]
        return original(*args, **kwargs)

    def _lookup(
        self, original: Callable[..., list[int]], envs: Sequence[int], keys: Sequence[int | None], scope: Scope
    ) -> list[int]:
        found = original(envs, keys, scope)
        self._batch += 1
        self._parents = list(keys)
        if scope is Scope.ROOT:
            self._depths = [0] * len(envs)
        for env, key, size, depth in zip(envs, keys, found, self._depths, strict=True):
            if key is not None:
                node = self._stored.get((env, key))
                self._add(LOOKUP, scope.value, env, key=key, node=node, hit=size != MISS, depth=depth)
        for env, key, size in zip(envs, keys, found, strict=True):
            if size == MISS:
                self._add(GENERATE, scope.value, env, key=key)
        self._envs, self._scope = list(envs), scope
        return found

    def _assemble(self, original: Callable[[], list[int]]) -> list[int]:
        sizes = original()
        for env, size in zip(self._envs, sizes, strict=True):
            self._add(ASSEMBLE, self._scope.value, env, size=size)
        return sizes

    def _store(
        self,
        original: Callable[..., None],
        envs: Sequence[int],
        keys: Sequence[int],
        scope: Scope,
        priorities: Sequence[float] | None = None,
    ) -> None:
        tokens = self._cache.keys_values_wm.size - max(self._cache.keys_values_wm_size_list)
        original(envs, keys, scope, priorities)
        pool = "init" if scope is Scope.ROOT else "recur"
        for env, key, parent, depth in zip(envs, keys, self._parents, self._depths, strict=True):
            row = self._add(STORE, pool, env, key=key, parent=parent, tokens=tokens, depth=depth)
            self._stored[env, key] = row

    def _clear_all(self, original: Callable[[], None]) -> None:
        search, self._search = self._search, -1  # what it is made of is not recorded
        original()
        self._search = search
        if search >= 0:
            self._add(CLEAR, "all", NO_ENV)

    def _clear(self, original: Callable[[], None]) -> None:
        original()
        if self._search >= 0:  # what is cleared before the first search was empty
            self._add(CLEAR, "recur", NO_ENV)

    def _add(self, kind: str, scope: str, env: int, **values: Any) -> int:
        return self._writer.add(kind, scope, env, self._batch, self._search, self._simulation, **values)


def _observing(original: Callable[..., Any], observed: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: observed(original, *args, **kwargs)


def _bound(method: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by their names, defaults included."""
    bound = inspect.signature(method).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _rows(states: Any, given: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Environment and timestep of each row of a call."""
    envs = range(len(states)) if given["envs"] is None else given["envs"]
    return list(envs), np.broadcast_to(np.asarray(given["timesteps"]), len(states)).tolist()


def record_model(path: str | Path, config: WorldModelConfig, searches: int, seed: int) -> Iterator[int]:
    """Write a trace of searches over a model of random weights, yielding the number of searches done after each.

    Args:
        path: of the trace; it must not exist.
        config: of the model; its cache is the recorded run's.
        searches: of all environments, one after the other.
        seed: of the play; the weights have their own.

    Raises:
        FileExistsError: the file exists.
        ValueError: contexts of this geometry keep no past: there is nothing to record.
    """
    geometry = config.geometry
    if not geometry.keeps_past:
        raise ValueError(f"a context of {geometry.context_length} tokens keeps no past: its cache is never asked")
    model = WorldModel(config)
    cache = model.cache.primary if isinstance(model.cache, ShadowCache) else model.cache
    source = {
        "library": "kvcache.world_model",
        "environment": "seeded stand-ins",
        "seed": seed,
        "weights": f"random, seed {config.seed}",
        "trained": False,
        "packages": {"torch": torch.__version__, "numpy": np.__version__},
        "python": platform.python_version(),
    }
    pools: Any = {"init": cache.init_pools[0], "recur": cache.recur_pool}
    size = "size" if isinstance(cache, LegacyCache) else "pool_size"
    header = TraceHeader.create(
        geometry,
        source,
        synthetic=False,
        backend=cache.name,
        pools={name: getattr(pool, size) for name, pool in pools.items()},
    )
    with TraceWriter(path, header) as writer, ModelRecorder(model, writer):
        for number, _ in enumerate(play(model, searches, seed, SearchConfig(geometry.num_simulations)), 1):
            yield number
