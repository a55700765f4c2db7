"""A cache that leaves its work to another one: the common part of ``ObservedCache`` and ``ShadowCache``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from kvcache.backend import CacheBackend, Pool, Scope
from kvcache.threads import join_threads

__all__ = ["DelegatingCache"]

_READ = ("eviction_strategy", "name", "slots_allocated", "stats_enabled")


class _PoolView:
    """A pool of the other cache. Clearing it is a call of the whole cache, which an observer or a shadow sees.

    Args:
        only_read: whether nothing but its keys, counters and sizes is offered beside ``clear``.
    """

    __slots__ = ("_clear", "_only_read", "_pool", "pool_size", "stats")

    def __init__(self, pool: Pool, clear: Callable[[], None], only_read: bool) -> None:
        self._pool, self._clear, self._only_read = pool, clear, only_read
        self.pool_size, self.stats = pool.pool_size, pool.stats

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in self.__slots__:  # a copy that is not filled yet
            raise AttributeError(name)
        if self._only_read and name not in _READ:
            raise AttributeError(f"{name} of a pool would reach one of two caches: call the whole cache's methods")
        return getattr(self._pool, name)

    def __len__(self) -> int:
        return len(self._pool)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._pool  # type: ignore[operator]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pool)  # type: ignore[call-overload, no-any-return]

    def __repr__(self) -> str:
        return repr(self._pool)

    @property
    def bytes_reserved(self) -> int:
        return self._pool.bytes_reserved

    def clear(self) -> None:
        """Remove all keys, by the whole cache's own call."""
        self._clear()


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

    Attributes:
        init_pools, recur_pool, wm_pool: of the other cache; ``clear()`` goes through this cache.
    """

    _pools_are_only_read = False

    def __init__(self, backend: CacheBackend) -> None:
        self._backend = backend
        self.name, self.config, self.stats_enabled = backend.name, backend.config, backend.stats_enabled
        self.wants_info = backend.wants_info
        only_read = self._pools_are_only_read
        self.init_pools = [
            _PoolView(pool, partial(self.clear_init_caches, [env]), only_read)
            for env, pool in enumerate(backend.init_pools)
        ]
        self.recur_pool = _PoolView(backend.recur_pool, self.clear_recur_cache, only_read)
        self.wm_pool = _PoolView(backend.wm_pool, self._clear_scratch, only_read)
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

    def _clear_scratch(self) -> None:
        self._backend.wm_pool.clear()
