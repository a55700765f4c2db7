"""Hit rates of a recorded search in pools of any size, by entries and bytes, with their bounds.

Pools of symbols replay the trace (``kvbench.capacity.symbols``): a second or so for a whole trace and one size. All
sizes of LRU are one pass (``kvbench.capacity.stacks``). The outcomes are those that ``kvbench replay --capacity``
counts.

Two lines bound every policy. *Unbounded* never evicts. *Belady* knows the future and evicts the entry whose next lookup
is the latest. It may refuse an entry, and it has an entry again after its miss. No real pool can do the latter here,
because a context made after a miss has another history. So the bound cannot always be reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from kvbench.capacity.bounds import Future
from kvbench.capacity.stacks import lru_outcomes
from kvbench.capacity.symbols import LEGACY_POLICY, PagedCache, PooledCache, count_outcomes
from kvbench.replay.hierarchy import INIT, RECUR
from kvbench.replay.outcomes import Outcome, by_name
from kvbench.trace.steps import Step
from kvcache import EvictionStrategy, Geometry

__all__ = [
    "BOUNDS", "BYTE_BACKENDS", "POLICIES", "POOLS", "capacities_to_try", "hit_rate_by_bytes", "hit_rate_curves",
    "most_entries",
]  # fmt: skip

BELADY, UNBOUNDED = BOUNDS = ("belady", "unbounded")
# Strategies of the new pools; legacy's circle of slots; and the bounds.
POLICIES = (*(each.value for each in EvictionStrategy), LEGACY_POLICY, *BOUNDS)
POOLS = (INIT, RECUR)
# The first two divide a budget into slots of full entries, the last into pages of one token.
BYTE_BACKENDS = (LEGACY_POLICY, "new:slab", "new:paged")

_OUTCOMES = ["hit", "context_mismatch", "stale_hit", "miss"]


def hit_rate_curves(
    steps: Sequence[Step],
    geometry: Geometry,
    capacities: Sequence[int],
    policies: Sequence[str] = POLICIES,
    *,
    pool: str = RECUR,
    itemsize: int = 4,
) -> pd.DataFrame:
    """Lookup outcomes at several sizes of one kind of pool; the other kind has its default size.

    Args:
        capacities: slots of the recurrent pool, or of each environment's init pool.
        policies: out of ``POLICIES``.
        pool: the kind whose size varies, ``"recur"`` or ``"init"``.
        itemsize: bytes of one element of an entry.

    Returns:
        A row for each policy and capacity, in the given order: ``policy``; ``entries``; ``bytes`` (of that many full
        entries, all environments' together); ``lookups`` (of the whole trace, root and node); counts ``hit``,
        ``context_mismatch``, ``stale_hit``, ``miss``; and the same with ``_rate`` behind, as shares of the lookups (NaN
        without any). The bounds do not compare histories: all they find is a hit.

    Raises:
        ValueError: an unknown policy or pool, a capacity that is not a positive integer, or a geometry that keeps no
            past.
    """
    _check(geometry, capacities, policies, POLICIES)
    if pool not in POOLS:
        raise ValueError(f"unknown pool {pool!r}: choose one of {', '.join(POOLS)}")
    pools = geometry.env_num if pool == INIT else 1
    future = Future(steps, pool)
    lru = EvictionStrategy.LRU.value
    in_one_pass = lru_outcomes(steps, geometry, capacities, pool) if lru in policies and capacities else None

    def count(policy: str, capacity: int) -> Counter[Outcome]:
        if policy == lru and in_one_pass is not None:
            return in_one_pass[capacities.index(capacity)]
        if policy not in BOUNDS:
            return count_outcomes(steps, PooledCache(geometry, policy, {pool: capacity}))
        found = future.found_by_belady(capacity) if policy == BELADY else future.found
        return Counter({Outcome.HIT: found, Outcome.MISS: future.lookups - found})

    table = _table({"policy": policies, "entries": capacities}, count)
    table.insert(2, "bytes", table["entries"] * pools * geometry.entry_bytes(itemsize))
    return table


def hit_rate_by_bytes(
    steps: Sequence[Step],
    geometry: Geometry,
    budgets: Sequence[int],
    backends: Sequence[str] = BYTE_BACKENDS,
    *,
    eviction: str = EvictionStrategy.FIFO.value,
    itemsize: int = 4,
) -> pd.DataFrame:
    """Lookup outcomes at several byte sizes of the recurrent pool; init pools have their default size.

    Args:
        budgets: bytes of the recurrent pool.
        backends: out of ``BYTE_BACKENDS``; of ``new:paged`` a token that contexts share counts once.
        eviction: strategy of the new backends.
        itemsize: bytes of one element.

    Returns:
        A row for each backend and budget, in the given order: ``backend``, ``bytes``, and outcomes as in
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

    def count(backend: str, budget: int) -> Counter[Outcome]:
        if backend == "new:paged":
            pages = budget * geometry.context_length // entry_bytes
            return count_outcomes(steps, PagedCache(geometry, pages, strategy))
        policy = LEGACY_POLICY if backend == LEGACY_POLICY else strategy
        return count_outcomes(steps, PooledCache(geometry, policy, {RECUR: budget // entry_bytes}))

    return _table({"backend": backends, "bytes": budgets}, count)


def most_entries(steps: Sequence[Step], *, pool: str = RECUR) -> int:
    """The most keys that are stored in one pool between two clears: with that many slots nothing is ever evicted."""
    return Future(steps, pool).most_entries


def capacities_to_try(most: int, count: int = 12) -> list[int]:
    """At most ``count`` sizes from 1 to ``most``, evenly apart on a logarithmic axis; ascending, none twice."""
    if most < 1 or count < 1:
        raise ValueError(f"at least one size and one entry are needed, got {count} sizes up to {most}")
    return sorted({round(float(size)) for size in np.geomspace(1, most, count)} if count > 1 else {most})


def _check(geometry: Geometry, sizes: Sequence[int], names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {name!r}: choose out of {', '.join(known)}")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"a capacity must be a positive integer, got {size!r}")
    if geometry.slid_size < 1:
        raise ValueError(f"contexts of {geometry.context_length} tokens keep no past: there is nothing to size")


def _table(axes: dict[str, Sequence[Any]], count: Callable[..., Counter[Outcome]]) -> pd.DataFrame:
    """Counts of outcomes at every combination of the axes' values, their sum, and their shares of it."""
    rows = []
    for place in product(*axes.values()):
        counts = by_name(count(*place))
        rows.append([*place, *(counts[name] for name in _OUTCOMES)])
    table = pd.DataFrame(rows, columns=[*axes, *_OUTCOMES])
    table.insert(len(axes), "lookups", table[_OUTCOMES].sum(axis=1))
    return table.join(table[_OUTCOMES].div(table["lookups"], axis=0).add_suffix("_rate"))
