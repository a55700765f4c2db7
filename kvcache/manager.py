"""The new cache: pools that never return another key's content, and batches that move live tokens only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from kvcache.backend import EMPTY, MISS, CacheBackend, CacheConfig, Scope
from kvcache.geometry import Geometry
from kvcache.hashing import hash_states
from kvcache.keys_values import KeysValues, zeros
from kvcache.pool import KVCachePool
from kvcache.stats import CacheStats
from kvcache.storage import EntryLike

__all__ = ["KVCacheManager"]

# A row of the batch before it is assembled: a slot of a pool (and how often the pool had been written to when it was
# found), what the model made for it, or nothing.
_Row = tuple[KVCachePool, int, int] | KeysValues | None


class KVCacheManager(CacheBackend):
    """The pools of a world model (SPEC 3): one init pool per environment, one recurrent pool, one scratch pool.

    It only stores and retrieves. Entry by entry with ``get_*``, ``set_*`` and ``hierarchical_get``, which copy both
    ways; or batch by batch (see ``CacheBackend``), where contents go from their slots straight into the batch.

    Args:
        config: any object with attributes (see ``CacheConfig.from_object``), or a ``CacheConfig``.
        env_num: environments of one batch; may be left out with a ``CacheConfig``, which knows it.
        enable_stats: whether queries and evictions are counted.

    Raises:
        ValueError: a size in ``config`` is out of range, or a strategy or storage has an unknown name.
    """

    name = "new"
    init_pools: list[KVCachePool]
    recur_pool: KVCachePool
    wm_pool: KVCachePool

    def __init__(self, config: Any, env_num: int | None = None, enable_stats: bool = True) -> None:
        if not isinstance(config, CacheConfig):
            if env_num is None:
                raise ValueError("KVCacheManager needs env_num, the number of environments of one batch")
            config = CacheConfig.from_object(config, env_num)
        elif env_num not in (None, config.geometry.env_num):
            raise ValueError(f"env_num is {env_num}, but the configuration is for {config.geometry.env_num}")
        self.config: CacheConfig = config
        self.geometry: Geometry = config.geometry
        self.env_num = config.geometry.env_num
        self.stats_enabled = enable_stats
        self.hierarchy_stats = CacheStats()
        self._batch_memory = _batch_memory(config, self.env_num)
        init_pool_size = config.init_pool_size or config.default_init_pool_size
        self.init_pools = [self._pool(init_pool_size, f"init/env_{env}") for env in range(self.env_num)]
        self.recur_pool = self._pool(config.recur_pool_size or config.default_recur_pool_size, "recur")
        self.wm_pool = self._pool(self.env_num, "wm")
        self.keys_values_wm_list = []
        self.keys_values_wm_size_list = []
        self._rows: list[_Row] = []
        self._assembled = False
        self._batches: dict[int, KeysValues] = {}
        self.keys_values_wm = self._batch(self.env_num)

    def _pool(self, size: int, name: str) -> KVCachePool:
        like = EntryLike.of(self._batch_memory[0]) if self.config.checks_entries else None
        return KVCachePool(
            size, self.config.eviction_strategy, self.stats_enabled, name, storage=self.config.storage, like=like
        )

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

        One query of the hierarchy; the pools count what each of them was asked. ValueError for an ``env_id`` out of
        range.
        """
        found = self._find(self._init_pool(env_id), cache_key)
        if found is None:
            return None
        pool, slot = found
        contents: KeysValues = pool.storage.read(slot)
        return contents

    def _init_pool(self, env_id: int) -> KVCachePool:
        # A negative index would silently be another environment's pool.
        if not isinstance(env_id, (int, np.integer)) or isinstance(env_id, bool) or not 0 <= env_id < self.env_num:
            raise ValueError(f"env_id must be an integer in 0..{self.env_num - 1}, got {env_id!r}")
        return self.init_pools[env_id]

    def _find(self, init_pool: KVCachePool, key: int) -> tuple[KVCachePool, int] | None:
        pool, slot = init_pool, init_pool.find(key)
        if slot is None:
            pool, slot = self.recur_pool, self.recur_pool.find(key)
        if self.stats_enabled:
            if slot is None:
                self.hierarchy_stats.misses += 1
            else:
                self.hierarchy_stats.hits += 1
        return None if slot is None else (pool, slot)

    # Batch by batch.

    def hash_states(self, latents: Tensor | np.ndarray) -> Sequence[int]:
        return hash_states(latents)

    def lookup(self, envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> list[int]:
        rows: list[_Row] = []
        sizes = []
        for env, key in zip(envs, keys, strict=True):
            pool = self._init_pool(env)
            found: tuple[KVCachePool, int] | None
            if key is None:
                found = None
            elif scope is Scope.NODE:
                found = self._find(pool, key)
            else:
                slot = pool.find(key)
                found = None if slot is None else (pool, slot)
            if found is not None:
                pool, slot = found
                rows.append((pool, slot, pool.writes))
                sizes.append(pool.storage.size(slot))
            else:
                rows.append(None)
                sizes.append(EMPTY if key is None else MISS)
        self._rows = rows
        self._assembled = False
        self.keys_values_wm_size_list = sizes
        return sizes.copy()

    def supply(self, row: int, keys_values: KeysValues) -> None:
        given, wanted = keys_values.entry_shape, self.keys_values_wm.entry_shape
        if keys_values.num_samples != 1 or (given[:3], given[4]) != (wanted[:3], wanted[4]):  # a copy would broadcast
            raise ValueError(f"a context of {keys_values.num_samples} x {given} does not fit a row of {wanted}")
        self._rows[row] = keys_values
        self.keys_values_wm_size_list[row] = keys_values.size

    def assemble(self) -> list[int]:
        sizes = self.keys_values_wm_size_list
        assert MISS not in sizes, f"row {sizes.index(MISS)} missed and nothing was supplied for it"
        longest, shortest = max(sizes), min(sizes)
        self.keys_values_wm = batch = self._batch(len(sizes))
        if longest > shortest:
            self._batch_memory[: len(sizes)].narrow(4, 0, longest - shortest).zero_()
        for row, size, target in zip(self._rows, sizes, self._batch_memory[: len(sizes)].unbind(0), strict=True):
            if isinstance(row, tuple):
                pool, slot, writes = row
                assert pool.writes == writes, f"{pool!r} was written to between lookup and assemble"
                pool.storage.load_tokens(slot, target, longest - size)
            elif row is not None:
                target.narrow(3, longest - size, size).copy_(row.block[0].narrow(3, 0, size))
        batch.size = longest
        self._assembled = True
        return sizes

    def store(
        self, envs: Sequence[int], keys: Sequence[int], scope: Scope, priorities: Sequence[float] | None = None
    ) -> None:
        geometry = self.geometry
        if not geometry.keeps_past:
            return
        assert self._assembled, "the batch was looked up but not assembled: there is nothing to store"
        sizes = self.keys_values_wm_size_list
        longest = max(sizes)
        appended = self.keys_values_wm.size - longest
        rows = self.keys_values_wm.block.unbind(0)
        for index, (env, key, size) in enumerate(zip(envs, keys, sizes, strict=True)):
            pool = self.recur_pool if scope is Scope.NODE else self._init_pool(env)
            first, count = geometry.window(size + appended)
            pool.save_tokens(
                key,
                rows[index],
                longest - size + first,
                count,
                self.position_shift if first else None,
                None if priorities is None else priorities[index],
            )

    def _batch(self, rows: int) -> KeysValues:
        """The batch cache of that many rows: views of one memory, which grows when a batch is larger than any yet."""
        if rows > self._batch_memory.shape[0]:
            self._batch_memory = _batch_memory(self.config, rows)
            self._batches.clear()
        batch = self._batches.get(rows)
        if batch is None or not batch.holds_block:
            batch = self._batches[rows] = KeysValues.from_block(self._batch_memory[:rows])
        return batch

    # Both.

    def clear_all(self) -> None:
        super().clear_all()
        self.wm_pool.clear()
        self._rows = []

    @property
    def batch_bytes(self) -> int:
        return self._batch_memory.nbytes


def _batch_memory(config: CacheConfig, rows: int) -> Tensor:
    geometry = config.geometry
    shape = (rows, geometry.num_layers, 2, geometry.num_heads, geometry.context_length, geometry.head_dim)
    return zeros(shape, config.device, config.dtype)
