"""The new cache: a pool returns a key's own entry or none, and batches move live tokens only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from kvcache import checks
from kvcache.backend import EMPTY, MISS, CacheBackend, Scope
from kvcache.batch import Destinations, Found, Row
from kvcache.config import CacheConfig
from kvcache.eviction import EvictionStrategy, SearchInfo
from kvcache.geometry import check_row, is_whole
from kvcache.hashing import hash_states, on_host
from kvcache.integrity import Integrity
from kvcache.keys import KeyVerifier
from kvcache.keys_values import KeysValues
from kvcache.layout import make_layout
from kvcache.pool import KVCachePool
from kvcache.stats import CacheStats
from kvcache.storage import Storage
from kvcache.storage.base import check_entry
from kvcache.threads import make_thread_safe

__all__ = ["KVCacheManager"]


# How far the batch is. Plain numbers: these are compared in every call.
_NOTHING, _LOOKED_UP, _ASSEMBLED = range(3)


class KVCacheManager(CacheBackend):
    """The pools of a world model: one init pool per environment, one recurrent pool, one scratch pool.

    ``get_*``, ``set_*`` and ``hierarchical_get`` copy single entries, in and out. The methods of ``CacheBackend`` work
    on batches: contents are copied from their slots into the batch directly.

    Args:
        config: a dict or any object with attributes (see ``CacheConfig.from_object``), or a ``CacheConfig``.
        env_num: environments of one batch; optional with a ``CacheConfig``, which has it.
        enable_stats: whether queries and evictions are counted.
        storage: of the pools, instead of the configuration's.
        eviction_strategy: of the pools, instead of the configuration's.
        thread_safe: whether all threads may call it, instead of the configuration's.

    Raises:
        ValueError: a size in ``config`` is out of range, or a strategy or storage has an unknown name.
    """

    name = "new"
    init_pools: list[KVCachePool]
    recur_pool: KVCachePool
    wm_pool: KVCachePool

    def __init__(
        self,
        config: Any,
        env_num: int | None = None,
        enable_stats: bool = True,
        storage: str | None = None,
        eviction_strategy: EvictionStrategy | str | None = None,
        thread_safe: bool | None = None,
    ) -> None:
        settings = {"storage": storage, "eviction_strategy": eviction_strategy, "thread_safe": thread_safe}
        self.config = config = CacheConfig.of(config, env_num, **settings)
        self.geometry, self.env_num = config.geometry, config.geometry.env_num
        self.stats_enabled = enable_stats
        self.hierarchy_stats = CacheStats()
        self.verifier = KeyVerifier() if config.verify_keys else None
        layout = make_layout(config)
        self._batch = layout.batch
        self.thread = self._integrity = Integrity()
        self.init_pools = [
            self._pool(f"init/env_{env}", layout.init_storage(), layout.init_pool_size) for env in range(self.env_num)
        ]
        self.recur_pool = self._pool("recur", layout.recur_storage(), layout.recur_pool_size)
        self.wm_pool = self._pool("wm", layout.wm_storage(), self.env_num)
        self.keys_values_wm_size_list = []
        self._known = frozenset(range(self.env_num))
        self.wants_info = self.recur_pool.sees_entries
        self._rows: list[Row] = []
        self._looked_up: Sequence[int | None] = ()  # the keys of the rows, where info is wanted
        self._stage = _NOTHING
        if config.thread_safe:
            make_thread_safe(self)

    def _pool(self, name: str, storage: Storage, size: int) -> KVCachePool:
        pool = KVCachePool(size, self.config.eviction_of(name), self.stats_enabled, name, storage=storage)
        pool.join(self._integrity)
        return pool

    @property
    def keys_values_wm(self) -> KeysValues:  # type: ignore[override]
        """The batch cache: views of memory whose addresses stay."""
        return self._batch.keys_values

    @property
    def keys_values_wm_list(self) -> list[KeysValues | None]:  # type: ignore[override]
        """As in ``CacheBackend``. The copies are made when this is read: ``assemble`` does not use it."""
        self._integrity.check()
        return [self._context(row) for row in range(len(self._rows))]

    def _context(self, row: int) -> KeysValues | None:
        found = self._rows[row]
        if found is None or isinstance(found, KeysValues):
            return found
        # After assembly the slot may hold another entry.
        return self.row_context(row) if self._stage == _ASSEMBLED else found.read()

    @property
    def position_shift(self) -> Tensor | None:
        """As in ``CacheBackend``. Setting another one clears all pools: their entries are of other weights."""
        return self._batch.position_shift

    @position_shift.setter
    def position_shift(self, shift: Tensor | None) -> None:
        checks.check_position_shift(self.geometry, shift)
        self._integrity.begin()
        if self._batch.set_position_shift(shift):
            for pool in (*self.init_pools, self.recur_pool, self.wm_pool):
                pool.empty()
            self._stage = _NOTHING  # the batch too is of other weights
        self._integrity.end()

    # Entry by entry: copies both ways.

    def get_init_cache(self, env_id: int, cache_key: int) -> KeysValues | None:
        """An independent copy of the environment's entry, or None. ValueError for an ``env_id`` out of range."""
        return self._init_pool(env_id).get(cache_key)

    def set_init_cache(self, env_id: int, cache_key: int, kv_cache: KeysValues, priority: float | None = None) -> int:
        """Store a private copy and return its slot. ValueError for an ``env_id`` out of range."""
        return self._init_pool(env_id).set(cache_key, kv_cache, priority)

    def get_recur_cache(self, cache_key: int) -> KeysValues | None:
        """An independent copy of the recurrent entry, or None."""
        return self.recur_pool.get(cache_key)

    def set_recur_cache(self, cache_key: int, kv_cache: KeysValues, priority: float | None = None) -> int:
        """Store a private copy and return its slot."""
        return self.recur_pool.set(cache_key, kv_cache, priority)

    def get_wm_cache(self, cache_key: int) -> KeysValues | None:
        """An independent copy of the scratch entry, or None."""
        return self.wm_pool.get(cache_key)

    def set_wm_cache(self, cache_key: int, kv_cache: KeysValues, priority: float | None = None) -> int:
        """Store a private copy and return its slot."""
        return self.wm_pool.set(cache_key, kv_cache, priority)

    def hierarchical_get(self, env_id: int, cache_key: int) -> KeysValues | None:
        """Init, then recur: an independent copy of the first entry found, or None.

        One query of the hierarchy, and of each pool that is searched. ValueError for an ``env_id`` out of range.
        """
        self._integrity.take()
        found = self._find(env_id, cache_key, Scope.NODE)
        if self.stats_enabled:
            self.hierarchy_stats.count(found is not None, found is None)
        return None if found is None else found.read()

    def _init_pool(self, env_id: int) -> KVCachePool:
        # A negative index would be another environment's pool.
        if not is_whole(env_id) or not 0 <= env_id < self.env_num:
            raise ValueError(f"env_id must be an integer in 0..{self.env_num - 1}, got {env_id!r}")
        return self.init_pools[env_id]

    def _find(self, env_id: int, key: int, scope: Scope) -> Found | None:
        pool = self._init_pool(env_id)
        slot = pool.find(key)
        if slot is None and scope is Scope.NODE:
            pool = self.recur_pool
            slot = pool.find(key)
        return None if slot is None else Found(pool, slot, pool.writes)

    # Batch by batch.

    def hash_states(self, latents: Tensor | np.ndarray) -> Sequence[int]:
        if self.verifier is None:
            return hash_states(latents)
        latents = on_host(latents)  # one transfer for both hashes
        return self.verifier.verified(hash_states(latents), latents)

    def lookup(self, envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> list[int]:
        self._integrity.take()
        if type(scope) is not Scope or len(envs) != len(keys):
            checks.check_rows(scope, len(envs), keys=keys)
        self._stage = _NOTHING
        rows: list[Row] = []
        sizes = []
        hits = misses = 0
        for env, key in zip(envs, keys, strict=True):
            if key is None:
                self._init_pool(env)
                found, size = None, EMPTY
            else:
                found = self._find(env, key, scope)
                if found is None:
                    size = MISS
                    misses += 1
                else:
                    size = found.pool.storage.size(found.slot)
                    hits += 1
            rows.append(found)
            sizes.append(size)
        if scope is Scope.NODE and self.stats_enabled:
            self.hierarchy_stats.count(hits, misses)
        self._rows = rows
        self._looked_up = list(keys) if self.wants_info else ()
        self.keys_values_wm_size_list = sizes
        self._stage = _LOOKED_UP
        return sizes.copy()

    def supply(self, row: int, keys_values: KeysValues) -> None:
        self._integrity.check()
        check_row(row, len(self._rows))
        check_entry(keys_values)
        checks.check_context(keys_values.entry_shape, keys_values.size, self.keys_values_wm.entry_shape)
        if self._stage == _ASSEMBLED:
            raise checks.OrderError("this batch is assembled already: call lookup for the next one, then supply")
        self._rows[row] = keys_values
        self.keys_values_wm_size_list[row] = keys_values.size

    def assemble(self) -> list[int]:
        self._integrity.check()
        sizes = self.keys_values_wm_size_list
        if self._stage == _NOTHING or not sizes:
            raise checks.OrderError("there is no batch to assemble: call lookup with one row or more first")
        checks.check_supplied(sizes)
        for row in self._rows:
            if type(row) is Found and not row.is_current:
                raise checks.OrderError(f"{row.pool!r} was written to between lookup and assemble: call lookup again")
        self._stage = _NOTHING
        self._batch.begin(len(sizes))
        self._batch.assemble(self._rows, sizes)
        self._stage = _ASSEMBLED
        return sizes

    def store(
        self,
        envs: Sequence[int],
        keys: Sequence[int],
        scope: Scope,
        priorities: Sequence[float] | None = None,
        info: SearchInfo | None = None,
    ) -> None:
        self._integrity.take()
        if not self.geometry.keeps_past:
            return
        if self._stage != _ASSEMBLED:
            raise checks.OrderError("the batch is not assembled: call lookup and assemble, then store")
        sizes = self.keys_values_wm_size_list
        to = self._destinations(envs, keys, scope, priorities)
        if info is not None:
            checks.check_info(info, len(sizes), "store")
        if self.wants_info:
            to = Destinations(to.pools, keys, to.priorities, info or SearchInfo(), self._looked_up, envs)
        self._batch.check(sizes, to.pools)
        self._integrity.begin()
        self._batch.store(self._rows, sizes, to)
        self._integrity.end()

    def _destinations(
        self, envs: Sequence[int], keys: Sequence[int], scope: Scope, priorities: Sequence[float] | None
    ) -> Destinations:
        """Where each row of the batch goes. Raises TypeError and ValueError for what cannot be stored."""
        rows = len(self.keys_values_wm_size_list)
        if type(scope) is not Scope or not len(envs) == len(keys) == rows:
            checks.check_rows(scope, rows, envs=envs, keys=keys)
        checks.check_hashable(keys)
        if not self._known.issuperset(envs):
            checks.check_environments(envs, self.env_num)
        pools = [self.recur_pool] * rows if scope is Scope.NODE else [self._init_pool(env) for env in envs]
        if priorities is None:
            return Destinations(pools, keys, [None] * rows)
        checks.check_priorities(scope, rows, priorities)
        return Destinations(pools, keys, priorities)

    def renew_batch(self) -> None:
        self._batch.renew()

    def row_start(self, row: int) -> int:
        check_row(row, len(self.keys_values_wm_size_list))
        return self._batch.start(self.keys_values_wm_size_list[row], max(self.keys_values_wm_size_list))

    def clear_all(self) -> None:
        super().clear_all()
        self.wm_pool.clear()
        self._rows = []
        self._stage = _NOTHING

    @property
    def batch_bytes(self) -> int:
        pools = (*self.init_pools, self.recur_pool, self.wm_pool)
        unassigned = self._batch.shared_bytes - sum(pool.bytes_reserved for pool in pools)
        return self._batch.nbytes + max(0, unassigned)
