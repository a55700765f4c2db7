"""Recording the cache requests of a search over the world model."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kvbench.trace.schema import ASSEMBLE, CLEAR, GENERATE, LOOKUP, NO_ENV, ROOT_SIMULATION, STORE, TraceHeader
from kvbench.trace.writer import TraceWriter
from kvcache import MISS, ObservedCache, Scope, SearchInfo
from kvcache.world_model import InferenceRequest, SearchConfig, WorldModel, WorldModelConfig, play

__all__ = ["ModelRecorder", "record_model"]


class ModelRecorder:
    """Records a world model's cache requests while the block runs; the model's results do not change.

    The model is observed through its cache and its inferences; its caches are empty when the block begins.
    """

    def __init__(self, model: WorldModel, writer: TraceWriter) -> None:
        self._model, self._cache, self._writer = model, model.cache, writer
        self._batch = -1
        self._search = -1
        self._simulations = [ROOT_SIMULATION]  # of each row
        self._depths: Sequence[int] = ()
        self._roots: dict[int, int] = {}  # environment -> timestep of its root
        self._stored: dict[tuple[int, int], int] = {}  # environment and key -> row of the store event
        self._envs: list[int] = []
        self._scope = Scope.ROOT
        self._parents: list[int | None] = []
        self._observers: dict[str, Callable[..., Any]] = {
            "lookup": self._lookup,
            "assemble": self._assemble,
            "store": self._store,
            "clear_recur_cache": partial(self._clear, "recur"),
            "clear_init_caches": self._clear_init,
            "clear_all": partial(self._clear, "all"),
        }

    def __enter__(self) -> ModelRecorder:
        self._model.cache = ObservedCache(self._cache, self)
        self._model.cache.wants_info = True
        self._model.inference_observers.append(self._inference)
        return self

    def __exit__(self, *_: object) -> None:
        self._model.cache = self._cache
        self._model.inference_observers.remove(self._inference)

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        """As an observer of the cache."""
        observer = self._observers.get(operation)
        return call(*args) if observer is None else observer(call, *args)

    def _inference(self, request: InferenceRequest) -> None:
        if request.scope is Scope.ROOT:
            self._roots |= dict(zip(request.envs, request.timesteps, strict=True))
            self._search += 1
            self._simulations = [ROOT_SIMULATION] * len(request.envs)
            self._writer.flush()  # a kill costs one search, not more
        else:
            rows = zip(request.envs, request.timesteps, strict=True)
            self._depths = [step - self._roots[env] + 1 for env, step in rows]
            assert request.simulation is not None
            self._simulations = []
            leaves: Counter[int] = Counter()  # of each environment
            for env in request.envs:
                self._simulations.append(request.simulation + leaves[env])
                leaves[env] += 1

    def _lookup(
        self, call: Callable[..., list[int]], envs: Sequence[int], keys: Sequence[int | None], scope: Scope
    ) -> list[int]:
        found = call(envs, keys, scope)
        self._batch += 1
        self._parents = list(keys)
        if scope is Scope.ROOT:
            self._depths = [0] * len(envs)  # roots may come in two batches
            self._simulations = [ROOT_SIMULATION] * len(envs)
        rows = list(zip(envs, self._simulations, keys, found, self._depths, strict=True))
        for env, simulation, key, size, depth in rows:
            if key is not None:
                node = self._stored.get((env, key))
                self._add(LOOKUP, scope.value, env, simulation, key=key, node=node, hit=size != MISS, depth=depth)
        for env, simulation, key, size, _ in rows:
            if size == MISS:
                self._add(GENERATE, scope.value, env, simulation, key=key)
        self._envs, self._scope = list(envs), scope
        return found

    def _assemble(self, call: Callable[[], list[int]]) -> list[int]:
        sizes = call()
        for env, simulation, size in zip(self._envs, self._simulations, sizes, strict=True):
            self._add(ASSEMBLE, self._scope.value, env, simulation, size=size)
        return sizes

    def _store(
        self,
        call: Callable[..., None],
        envs: Sequence[int],
        keys: Sequence[int],
        scope: Scope,
        priorities: Sequence[float] | None = None,
        info: SearchInfo | None = None,
    ) -> None:
        tokens = self._cache.keys_values_wm.size - max(self._cache.keys_values_wm_size_list)
        call(envs, keys, scope, priorities, *(() if info is None else (info,)))
        pool = "init" if scope is Scope.ROOT else "recur"
        known = (info or SearchInfo()).entries(keys, keys, self._parents, envs)
        rows = zip(known, envs, self._simulations, keys, self._parents, self._depths, strict=True)
        for entry, env, simulation, key, parent, depth in rows:
            values: dict[str, Any] = {"key": key, "parent": parent, "tokens": tokens, "depth": depth}
            values |= {"visits": entry.visits, "prior": entry.prior}
            self._stored[env, key] = self._add(STORE, pool, env, simulation, **values)

    def _clear(self, scope: str, call: Callable[[], None]) -> None:
        call()
        if self._search >= 0:  # before the first search the pools are empty
            self._add(CLEAR, scope, NO_ENV, self._simulations[-1])

    def _clear_init(self, call: Callable[..., None], envs: Sequence[int] | None) -> None:
        if envs is None:
            self._clear("init", partial(call, None))
            return
        call(envs)
        if self._search >= 0:
            for env in dict.fromkeys(envs):
                self._add(CLEAR, "init", env, self._simulations[-1])

    def _add(self, kind: str, scope: str, env: int, simulation: int, **values: Any) -> int:
        return self._writer.add(kind, scope, env, self._batch, self._search, simulation, **values)


def record_model(
    path: str | Path, config: WorldModelConfig, searches: int, seed: int, leaves: int = 1
) -> Iterator[int]:
    """Write a trace of searches over a model of random weights, yielding the number of searches done after each.

    ``seed`` is the play's; the weights have their own, in ``config``. ``leaves`` is as in ``SearchConfig``.

    Raises:
        FileExistsError: the file exists.
        ValueError: contexts of this geometry keep no past, so that the cache is never used.
    """
    geometry = config.geometry
    if not geometry.keeps_past:
        raise ValueError(f"a context of {geometry.context_length} tokens keeps no past: its cache is never used")
    model = WorldModel(config)
    source = {
        "library": "kvcache.world_model",
        "environment": "seeded stand-ins",
        "seed": seed,
        "weights": f"random, seed {config.seed}",
        "trained": False,
        "packages": {"torch": torch.__version__, "numpy": np.__version__},
        "python": platform.python_version(),
        **({"leaves": leaves} if leaves > 1 else {}),  # traces without it have one
    }
    pools = {"init": model.cache.init_pools[0].pool_size, "recur": model.cache.recur_pool.pool_size}
    made_of = {"backend": config.cache_name, "pools": pools, "actions": config.action_space_size}
    header = TraceHeader.create(geometry, source, synthetic=False, **made_of)
    searched = SearchConfig(geometry.num_simulations, leaves=leaves)
    with TraceWriter(path, header) as writer, ModelRecorder(model, writer):
        for number, _ in enumerate(play(model, searches, seed, searched), 1):
            yield number
