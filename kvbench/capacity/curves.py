"""How much a recorded search finds in pools of any size: hit rates against entries and bytes, with their bounds.

The requests of a trace are asked of the library's own pools, which hold a symbol for each context instead of its
tensors: a second or so for a whole trace and one size, and the very outcomes that ``kvbench replay --capacity`` counts.
Two lines bound every policy. *Unbounded* never evicts. *Belady* knows the future and, as in his rule, gives up what is
asked for last of all; it may refuse an entry, and takes one back after its miss. No pool can do the latter here, where
what is made after a miss belongs to another history: it is a bound, and not always within reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import pandas as pd
import torch

from kvbench.capacity.bounds import Future, count_lookups
from kvbench.replay.content import NO_CONTEXT, extend_context, generated_context
from kvbench.replay.verify import Outcome
from kvbench.trace.steps import Step
from kvcache import (
    LEGACY,
    MISS,
    CacheConfig,
    EvictionStrategy,
    Geometry,
    KeysValues,
    KVCacheManager,
    KVCachePool,
    LegacyPool,
    Scope,
)

__all__ = [
    "BOUNDS",
    "BYTE_BACKENDS",
    "POLICIES",
    "POOLS",
    "capacities_to_try",
    "hit_rate_by_bytes",
    "hit_rate_curves",
    "most_entries",
]

BELADY, UNBOUNDED = BOUNDS = ("belady", "unbounded")
_LEGACY = "legacy"
# Strategies of the new pools; legacy's circle, whose stale hits are counted as such; and the bounds.
POLICIES = (*(each.value for each in EvictionStrategy), _LEGACY, *BOUNDS)
INIT, RECUR = POOLS = ("init", "recur")
# What divides a budget into slots of full entries, and what into pages of one token.
BYTE_BACKENDS = (_LEGACY, "new:slab", "new:paged")

_OUTCOMES = (Outcome.HIT, Outcome.CONTEXT_MISMATCH, Outcome.STALE_HIT, Outcome.MISS)

Entry = tuple[int, int]  # (key, context)
Progress = Callable[[str, int], None]  # (policy or backend, its capacity)


def _no_progress(name: str, capacity: int) -> None:
    pass


def hit_rate_curves(
    steps: Sequence[Step],
    geometry: Geometry,
    capacities: Sequence[int],
    policies: Sequence[str] = POLICIES,
    *,
    pool: str = RECUR,
    itemsize: int = 4,
    progress: Progress = _no_progress,
) -> pd.DataFrame:
    """What lookups come to at several sizes of one kind of pool; the other kind has its default size.

    Args:
        steps: of the trace (``kvbench.trace.steps.read_steps``).
        geometry: of the trace; it sizes the other pools and weighs an entry.
        capacities: slots: of the recurrent pool, or of each environment's init pool.
        policies: out of ``POLICIES``.
        pool: the kind whose size varies, ``"recur"`` or ``"init"``.
        itemsize: bytes of one element of an entry.
        progress: told of each line and size before it is replayed.

    Returns:
        A row for each policy and capacity, in the given order: ``policy``; ``entries``; ``bytes`` (of that many full
        entries, all environments' together); ``lookups`` (of the whole trace, root and node); counts ``hit``,
        ``context_mismatch``, ``stale_hit``, ``miss``; and the same as shares of the lookups, ``hit_rate``,
        ``context_mismatch_rate``, ``stale_hit_rate``, ``miss_rate`` (NaN without lookups). A hit is what a replay calls
        one: the right key, the right history. The bounds do not tell histories: what they find is a hit. The unbounded
        line is the same at every capacity.

    Raises:
        ValueError: an unknown policy or pool, a capacity that is not a positive integer, or a geometry that keeps no
            past.
    """
    _check(geometry, capacities, policies, POLICIES)
    if pool not in POOLS:
        raise ValueError(f"unknown pool {pool!r}: choose one of {', '.join(POOLS)}")
    lookups = count_lookups(steps)
    pools = geometry.env_num if pool == INIT else 1
    future = Future(steps, pool) if set(policies) & set(BOUNDS) else None
    rows = []
    for policy in policies:
        for capacity in capacities:
            progress(policy, capacity)
            if policy in BOUNDS:
                assert future is not None
                found = future.found_by_belady(capacity) if policy == BELADY else future.found
                counts = Counter({Outcome.HIT: found, Outcome.MISS: lookups - found})
            else:
                counts = _outcomes(steps, _pools(geometry, policy, {pool: capacity}))
            rows.append(
                {
                    "policy": policy,
                    "entries": capacity,
                    "bytes": pools * capacity * geometry.entry_bytes(itemsize),
                    **_shares(counts, lookups),
                }
            )
    return pd.DataFrame(rows)


def hit_rate_by_bytes(
    steps: Sequence[Step],
    geometry: Geometry,
    budgets: Sequence[int],
    backends: Sequence[str] = BYTE_BACKENDS,
    *,
    eviction: str = EvictionStrategy.FIFO.value,
    itemsize: int = 4,
    progress: Progress = _no_progress,
) -> pd.DataFrame:
    """What lookups come to when the recurrent pool has so many bytes; init pools have their default size.

    Args:
        steps: of the trace.
        geometry: of the trace: what an entry and a token weigh.
        budgets: bytes of the recurrent pool.
        backends: out of ``BYTE_BACKENDS``. ``legacy`` and ``new:slab`` hold as many full entries as fit;
            ``new:paged`` as many different tokens, so that what contexts share is paid for once.
        eviction: strategy of the new backends.
        itemsize: bytes of one element.
        progress: as in ``hit_rate_curves``.

    Returns:
        A row for each backend and budget, in the given order: ``backend``, ``bytes``, and the columns of outcomes of
        ``hit_rate_curves``.

    Raises:
        ValueError: as in ``hit_rate_curves``; a budget that holds no entry.
    """
    _check(geometry, budgets, backends, BYTE_BACKENDS)
    strategy = EvictionStrategy.parse(eviction).value
    entry_bytes = geometry.entry_bytes(itemsize)
    too_small = [budget for budget in budgets if budget < entry_bytes]
    if too_small:
        raise ValueError(f"{too_small[0]} bytes hold no entry of {geometry.name!r}: one takes {entry_bytes}")
    lookups = count_lookups(steps)
    rows = []
    for backend in backends:
        for budget in budgets:
            progress(backend, budget)
            caches: _Caches
            if backend == "new:paged":
                caches = _Paged(geometry, budget * geometry.context_length // entry_bytes, strategy)
            else:
                policy = _LEGACY if backend == _LEGACY else strategy
                caches = _pools(geometry, policy, {RECUR: budget // entry_bytes})
            rows.append({"backend": backend, "bytes": budget, **_shares(_outcomes(steps, caches), lookups)})
    return pd.DataFrame(rows)


def most_entries(steps: Sequence[Step], *, pool: str = RECUR) -> int:
    """The most keys that are stored in one pool between two clears: with that many slots nothing is ever evicted."""
    held: dict[int, set[int]] = {}
    most = 0
    for step in steps:
        for env, key in zip(step.envs, step.keys, strict=False):
            if (step.scope is Scope.ROOT) == (pool == INIT):
                keys = held.setdefault(env if pool == INIT else 0, set())
                keys.add(key)
                most = max(most, len(keys))
        if any(scope in ("all", pool) for scope in step.clears):
            held.clear()
    return most


def capacities_to_try(most: int, count: int = 12) -> list[int]:
    """At most ``count`` sizes from 1 to ``most``, evenly apart on a logarithmic axis; ascending, none twice."""
    if most < 1 or count < 1:
        raise ValueError(f"at least one size and one entry are needed, got {count} sizes up to {most}")
    if count == 1:
        return [most]
    return sorted({round(most ** (number / (count - 1))) for number in range(count)})


def _check(geometry: Geometry, sizes: Sequence[int], names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {name!r}: choose out of {', '.join(known)}")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"a capacity must be a positive integer, got {size!r}")
    if geometry.slid_size < 1:
        raise ValueError(f"contexts of {geometry.context_length} tokens keep no past: there is nothing to size")


def _shares(counts: Counter[Outcome], lookups: int) -> dict[str, float]:
    named = {outcome.value.replace(" ", "_"): counts[outcome] for outcome in _OUTCOMES}
    rates = {f"{name}_rate": count / lookups if lookups else float("nan") for name, count in named.items()}
    return {"lookups": lookups, **named, **rates}


class _Caches(Protocol):
    """Pools that hold contexts' symbols."""

    def lookup(self, step: Step) -> list[Entry | None]:
        """What is found for each row; None for a miss, and for a row that asks nothing."""

    def store(self, step: Step, contexts: list[int]) -> None:
        """Each row's new context, under its key."""

    def clear(self, scope: str) -> None:
        """``init``, ``recur``, ``all``."""


def _outcomes(steps: Sequence[Step], caches: _Caches) -> Counter[Outcome]:
    """Of all lookups, told apart as ``kvbench.replay.verify`` does."""
    counts: Counter[Outcome] = Counter()
    meant: dict[int, int] = {}  # row of a store event -> the context that the recorded search had there
    for step in steps:
        contexts, wanted = [], []
        for row, found in enumerate(caches.lookup(step)):
            key, node = step.parents[row], step.nodes[row]
            if key is None:
                contexts.append(NO_CONTEXT)
                wanted.append(NO_CONTEXT)
                continue
            generated = generated_context(key)
            right = generated if node is None else meant[node]
            # Where the recorded run missed, its history went on from what its model generated.
            wanted.append(generated if step.recorded_hits[row] is False else right)
            contexts.append(generated if found is None else found[1])
            counts[_judge(key, right, found)] += 1
        if step.keys:
            for store, key, context in zip(step.stores, step.keys, wanted, strict=True):
                meant[store] = extend_context(context, key)
            caches.store(step, [extend_context(context, key) for context, key in zip(contexts, step.keys, strict=True)])
        for scope in step.clears:
            caches.clear(scope)
    return counts


def _judge(key: int, right: int, found: Entry | None) -> Outcome:
    if found is None:
        return Outcome.MISS
    if found[0] != key:
        return Outcome.STALE_HIT
    return Outcome.HIT if found[1] == right else Outcome.CONTEXT_MISMATCH


class _NewPool(KVCachePool):
    """A pool of the new backend, of symbols."""

    def __init__(self, slots: int, strategy: str) -> None:
        super().__init__(slots, strategy, storage="reference")

    def ask(self, key: int) -> Entry | None:
        return self.get(key)

    def put(self, key: int, entry: Entry, priority: float) -> None:
        self.set(key, entry, priority)


class _OldPool(LegacyPool):
    """A pool of the legacy backend, of symbols: which slot is written and what the dict says of it are its own."""

    def write(self, keys_values: Any) -> tuple[int, Any]:
        slot, self.position = self.position, (self.position + 1) % self.size
        self.slots[slot] = keys_values
        return slot, keys_values

    def ask(self, key: int) -> Entry | None:
        return self.find(key)  # type: ignore[return-value]

    def put(self, key: int, entry: Entry, priority: float) -> None:
        self.store(key, entry)  # type: ignore[arg-type]


class _Pools:
    """One init pool for each environment and one recurrent pool."""

    def __init__(self, init: Sequence[_NewPool | _OldPool], recur: _NewPool | _OldPool) -> None:
        self._init = init
        self._recur = recur

    def lookup(self, step: Step) -> list[Entry | None]:
        found: list[Entry | None] = []
        for env, key in zip(step.envs, step.parents, strict=True):
            entry = None if key is None else self._init[env].ask(key)
            if entry is None and key is not None and step.scope is Scope.NODE:
                entry = self._recur.ask(key)
            found.append(entry)
        return found

    def store(self, step: Step, contexts: list[int]) -> None:
        for env, key, context, depth in zip(step.envs, step.keys, contexts, step.depths, strict=True):
            pool = self._init[env] if step.scope is Scope.ROOT else self._recur
            pool.put(key, (key, context), -depth)  # priorities as kvbench.replay.drive gives them

    def clear(self, scope: str) -> None:
        if scope != RECUR:
            for pool in self._init:
                pool.clear()
        if scope != INIT:
            self._recur.clear()


def _pools(geometry: Geometry, policy: str, slots: dict[str, int]) -> _Pools:
    config = CacheConfig(geometry)
    sizes = {INIT: config.default_init_pool_size, RECUR: config.default_recur_pool_size} | slots

    def make(kind: str) -> _NewPool | _OldPool:
        if policy == _LEGACY:
            return _OldPool(sizes[kind], evicts=kind == INIT and LEGACY.evicts_on_init)
        return _NewPool(sizes[kind], policy)

    return _Pools([make(INIT) for _ in range(geometry.env_num)], make(RECUR))


class _Paged:
    """The real manager with paged storage, its entries as thin as they can be: pages are counted, not their bytes.

    A key's content is what was last stored under it, so that its symbol may stand beside the pools.
    """

    def __init__(self, geometry: Geometry, pages: int, strategy: str) -> None:
        thin = replace(geometry, num_layers=1, num_heads=1, embed_dim=1, positions="rotary")
        page_bytes = thin.entry_bytes() // thin.context_length
        self._manager = KVCacheManager(
            CacheConfig(thin, recur_pool_bytes=pages * page_bytes, eviction_strategy=strategy, storage="paged")
        )
        self._generated = KeysValues.from_block(torch.zeros(1, 1, 2, 1, thin.context_length, 1), 1)
        self._init: list[dict[int, Entry]] = [{} for _ in range(geometry.env_num)]
        self._recur: dict[int, Entry] = {}

    def lookup(self, step: Step) -> list[Entry | None]:
        manager = self._manager
        found: list[Entry | None] = []
        for row, size in enumerate(manager.lookup(step.envs, step.parents, step.scope)):
            env, key = step.envs[row], step.parents[row]
            if key is None:
                found.append(None)
            elif size == MISS:
                manager.supply(row, self._generated)
                found.append(None)
            else:
                found.append(self._init[env][key] if key in manager.init_pools[env] else self._recur[key])
        if step.envs:
            manager.assemble()
        return found

    def store(self, step: Step, contexts: list[int]) -> None:
        manager = self._manager
        tokens = torch.zeros(len(step.envs), 1, step.tokens, 1)
        manager.keys_values_wm[0].update(tokens, tokens)
        manager.store(step.envs, step.keys, step.scope, [-depth for depth in step.depths])
        for env, key, context in zip(step.envs, step.keys, contexts, strict=True):
            (self._init[env] if step.scope is Scope.ROOT else self._recur)[key] = (key, context)

    def clear(self, scope: str) -> None:
        if scope != RECUR:
            self._manager.clear_init_caches()
        if scope != INIT:
            self._manager.clear_recur_cache()
