"""A cache that leaves its work to another one: the common part of ``ObservedCache`` and ``ShadowCache``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from kvcache.backend import CacheBackend, Scope
from kvcache.threads import join_threads

__all__ = ["DelegatingCache"]


def _passed_on(name: str) -> Any:
    """A property whose value is the other cache's."""

    def read(self: DelegatingCache) -> Any:
        return getattr(self._backend, name)

    def write(self: DelegatingCache, value: Any) -> None:
        setattr(self._backend, name, value)

    return property(read, write)


class DelegatingCache(CacheBackend):
    """Keys, batch, pools, counters and memory are those of another cache; subclasses pass on its other calls.

    Args:
        backend: the cache that does the work.
    """

    def __init__(self, backend: CacheBackend) -> None:
        self._backend = backend
        self.name, self.config, self.stats_enabled = backend.name, backend.config, backend.stats_enabled
        self.init_pools, self.recur_pool, self.wm_pool = backend.init_pools, backend.recur_pool, backend.wm_pool
        self.hierarchy_stats = backend.hierarchy_stats
        join_threads(self, backend)

    keys_values_wm = _passed_on("keys_values_wm")
    keys_values_wm_list = _passed_on("keys_values_wm_list")
    keys_values_wm_size_list = _passed_on("keys_values_wm_size_list")
    position_shift = _passed_on("position_shift")
    report = _passed_on("report")
    stale_hits = _passed_on("stale_hits")
    collisions = _passed_on("collisions")
    batch_bytes = _passed_on("batch_bytes")

    def release_thread(self) -> None:
        self._backend.release_thread()

    def renew_batch(self) -> None:
        self._backend.renew_batch()

    def hash_states(self, latents: Tensor | np.ndarray) -> Sequence[int]:
        return self._backend.hash_states(latents)

    def is_stale(self, env: int, key: int, scope: Scope) -> bool:
        return self._backend.is_stale(env, key, scope)

    def row_start(self, row: int) -> int:
        return self._backend.row_start(row)
