"""Caches of symbols: the library's own pools, which hold a number for each context in place of its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch

from kvbench.replay.content import NO_CONTEXT, extend_context, generated_context
from kvbench.replay.drive import clear_pools
from kvbench.replay.hierarchy import INIT, RECUR, Hierarchy
from kvbench.replay.outcomes import Entry, Outcome, RecordedContexts, judge
from kvbench.trace.steps import Step
from kvcache import LEGACY, MISS, CacheConfig, Geometry, KeysValues, KVCacheManager, KVCachePool, LegacyPool

__all__ = ["LEGACY_POLICY", "PagedCache", "PooledCache", "count_outcomes"]

LEGACY_POLICY = "legacy"


def count_outcomes(steps: Sequence[Step], cache: PooledCache | PagedCache) -> Counter[Outcome]:
    """The outcomes of all lookups of a trace, as ``kvbench.replay.verify`` counts them."""
    counts: Counter[Outcome] = Counter()
    recorded = RecordedContexts()
    for step in steps:
        contexts = []
        for row, found in enumerate(cache.lookup(step)):
            key = step.parents[row]
            if key is None:
                contexts.append(NO_CONTEXT)
            else:
                contexts.append(generated_context(key) if found is None else found[1])
                counts[judge((key, recorded.wanted(step, row)), found)] += 1
        recorded.store(step)
        if step.keys:
            cache.store(step, [extend_context(context, key) for context, key in zip(contexts, step.keys, strict=True)])
        cache.clear(step)
    return counts


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
    """The real manager with paged storage: the recurrent pool has ``pages`` of one token each, as thin as possible.

    A key's content is the last one stored under it. So the symbols can be kept beside the pools.
    """

    def __init__(self, geometry: Geometry, pages: int, strategy: str) -> None:
        thin = replace(geometry, num_layers=1, num_heads=1, embed_dim=1, positions="rotary")
        page_bytes = thin.entry_bytes() // thin.context_length
        self._manager = KVCacheManager(
            CacheConfig(thin, recur_pool_bytes=pages * page_bytes, eviction_strategy=strategy, storage="paged")
        )
        self._generated = KeysValues.from_block(torch.zeros(1, 1, 2, 1, thin.context_length, 1), 1)
        self._entries: Hierarchy[dict[int, Entry]] = Hierarchy(lambda kind: {})

    def lookup(self, step: Step) -> list[Entry | None]:
        sizes = self._manager.lookup(step.envs, step.parents, step.scope)
        for row, size in enumerate(sizes):
            if size == MISS:
                self._manager.supply(row, self._generated)
        if step.envs:
            self._manager.assemble()
        rows = zip(step.envs, step.parents, sizes, strict=True)
        return [None if key is None or size == MISS else self._entry(step, env, key) for env, key, size in rows]

    def _entry(self, step: Step, env: int, key: int) -> Entry:
        """The entry of a key that one of the manager's pools holds."""
        pools = {INIT: self._manager.init_pools[env], RECUR: self._manager.recur_pool}
        return next(entries[key] for kind, entries in self._entries.asked(env, step.scope) if key in pools[kind])

    def store(self, step: Step, contexts: list[int]) -> None:
        tokens = torch.zeros(len(step.envs), 1, step.tokens, 1)
        self._manager.keys_values_wm[0].update(tokens, tokens)
        self._manager.store(step.envs, step.keys, step.scope, [-depth for depth in step.depths], step.info)
        for env, key, context in zip(step.envs, step.keys, contexts, strict=True):
            self._entries.written(env, step.scope)[key] = (key, context)

    def clear(self, step: Step) -> None:
        clear_pools(self._manager, step, lambda _, call, *args: call(*args))
