"""Caches of symbols: the library's own pools, which hold a number for each context in place of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch

from kvbench.replay.drive import clear_pools
from kvbench.replay.hierarchy import INIT, RECUR, Hierarchy
from kvbench.replay.outcomes import Entry
from kvbench.trace.steps import Step
from kvcache import LEGACY, MISS, CacheConfig, Geometry, KeysValues, KVCacheManager, KVCachePool, LegacyPool, Scope

__all__ = ["LEGACY_POLICY", "PagedCache", "PooledCache"]

LEGACY_POLICY = "legacy"
_FEW = 64  # symbols that are not worth a look


class PooledCache:
    """One init pool for each environment and one recurrent pool.

    ``policy`` is a strategy of the new pools, or ``LEGACY_POLICY``. ``slots`` are those of a pool, by its kind; a
    missing kind has its default size.
    """

    def __init__(self, geometry: Geometry, policy: str, slots: Mapping[str, int]) -> None:
        config = CacheConfig(geometry)
        self._sizes = {INIT: config.default_init_pool_size, RECUR: config.default_recur_pool_size} | dict(slots)
        self._policy = policy
        self._pools: Hierarchy[KVCachePool | LegacyPool] = Hierarchy(self._make)

    def _make(self, kind: str) -> KVCachePool | LegacyPool:
        if self._policy == LEGACY_POLICY:
            return LegacyPool(self._sizes[kind], evicts=kind == INIT and LEGACY.evicts_on_init, copies=False)
        return KVCachePool(self._sizes[kind], self._policy, storage="reference")

    def lookup(self, step: Step) -> list[Entry | None]:
        """The entry found for each row; None for a miss, and for a row that starts empty."""
        rows = zip(step.envs, step.parents, strict=True)
        return [None if key is None else self._find(step, env, key) for env, key in rows]

    def _find(self, step: Step, env: int, key: int) -> Entry | None:
        found = (pool.get(key) for _, pool in self._pools.asked(env, step.scope))
        return cast("Entry | None", next((entry for entry in found if entry is not None), None))

    def store(self, step: Step, contexts: list[int]) -> None:
        """Store each row's new context under its key."""
        priorities = [-depth for depth in step.depths]  # as in ``kvbench.replay.drive``
        known = step.info.entries(step.keys, priorities, step.parents, step.envs)
        for env, key, context, priority, info in zip(step.envs, step.keys, contexts, priorities, known, strict=True):
            self._pools.written(env, step.scope).set(key, (key, context), priority, info)

    def clear(self, step: Step) -> None:
        """Clear what is cleared after the step."""
        for pool in self._pools.cleared_by(step):
            pool.clear()


class PagedCache:
    """The real manager with paged storage: pools of one kind have ``pages`` of one token each, as thin as possible.

    A key's content is the last one stored under it. So the symbols can be kept beside the pools.
    """

    def __init__(self, geometry: Geometry, strategy: str, pages: int, pool: str = RECUR) -> None:
        thin = replace(geometry, num_layers=1, num_heads=1, embed_dim=1, positions="rotary")
        budget: dict[str, Any] = {f"{pool}_pool_bytes": pages * (thin.entry_bytes() // thin.context_length)}
        self._manager = KVCacheManager(CacheConfig(thin, eviction_strategy=strategy, storage="paged", **budget))
        self._generated = KeysValues.from_block(torch.zeros(1, 1, 2, 1, thin.context_length, 1), 1)
        self._entries: Hierarchy[dict[int, Entry]] = Hierarchy(lambda kind: {})

    def lookup(self, step: Step) -> list[Entry | None]:
        """As ``PooledCache.lookup``."""
        sizes = self._manager.lookup(step.envs, step.parents, step.scope)
        for row, size in enumerate(sizes):
            if size == MISS:
                self._manager.supply(row, self._generated)
        if step.envs:
            self._manager.assemble()
        rows = zip(step.envs, step.parents, sizes, strict=True)
        return [None if key is None or size == MISS else self._entry(step, env, key) for env, key, size in rows]

    def _pool(self, kind: str, env: int) -> KVCachePool:
        return self._manager.recur_pool if kind == RECUR else self._manager.init_pools[env]

    def _entry(self, step: Step, env: int, key: int) -> Entry:
        """The entry of a key that one of the manager's pools holds."""
        asked = self._entries.asked(env, step.scope)
        return next(entries[key] for kind, entries in asked if key in self._pool(kind, env))

    def store(self, step: Step, contexts: list[int]) -> None:
        """As ``PooledCache.store``."""
        tokens = torch.zeros(len(step.envs), 1, step.tokens, 1)
        self._manager.keys_values_wm[0].update(tokens, tokens)
        self._manager.store(step.envs, step.keys, step.scope, [-depth for depth in step.depths], step.info)
        for env, key, context in zip(step.envs, step.keys, contexts, strict=True):
            entries = self._entries.written(env, step.scope)
            entries[key] = (key, context)
            self._forget(entries, self._pool(INIT if step.scope is Scope.ROOT else RECUR, env))

    def _forget(self, entries: dict[int, Entry], pool: KVCachePool) -> None:
        """Drop symbols of keys that the pool has evicted, when they are the most."""
        if len(entries) > 2 * len(pool) + _FEW:
            held = {key: entries[key] for key in entries if key in pool}
            entries.clear()
            entries.update(held)

    def clear(self, step: Step) -> None:
        """Clear what is cleared after the step, and the symbols with it."""
        clear_pools(self._manager, step, lambda _, call, *args: call(*args))
        for entries in self._entries.cleared_by(step):
            entries.clear()
