"""Hit rates of a recorded search in pools of any size, by entries and bytes, with their bounds.

Pools of symbols follow the trace (``kvbench.capacity.symbols``), those of all policies and sizes in one pass. LRU of
all sizes is one stack (``kvbench.capacity.stacks``). The outcomes are those that ``kvbench replay --capacity`` counts.

Three lines bound every policy. *Unbounded* never evicts. *Belady* knows the future and evicts the entry whose next
lookup is the latest. It may refuse an entry, and it has an entry again after its miss. No real pool can do the latter
here, because a context made after a miss has another history. *Strict* counts right histories alone
(``kvbench.capacity.strict``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from kvbench.capacity.bounds import Belady, Unlimited
from kvbench.capacity.census import Census
from kvbench.capacity.lines import JUDGED, BoundLine, CacheLine, Line, StrictLine, follow
from kvbench.capacity.sampling import Estimate, Sample
from kvbench.capacity.stacks import LruLine
from kvbench.capacity.symbols import LEGACY_POLICY, PagedCache, PooledCache
from kvbench.replay.hierarchy import INIT, RECUR
from kvbench.trace.steps import Step
from kvcache import TOKENS_PER_STEP, EvictionStrategy, Geometry

__all__ = [
    "BOUNDS", "BYTE_BACKENDS", "ENTRIES", "PAGES", "POLICIES", "POOLS", "Sized", "capacities_to_try", "count_lines",
    "hit_rate_by_bytes", "hit_rate_curves", "most_entries",
]  # fmt: skip

BELADY, STRICT, UNBOUNDED = BOUNDS = ("belady", "strict", "unbounded")
STRATEGIES = tuple(each.value for each in EvictionStrategy)
# Strategies of the new pools; legacy's circle of slots; and the bounds.
POLICIES = (*STRATEGIES, LEGACY_POLICY, *BOUNDS)
POOLS = (INIT, RECUR)
# What a pool's memory is divided into: slots of full entries, or pages of one token that contexts share.
ENTRIES, PAGES = "entries", "pages"
# The first two divide a budget into slots of full entries, the last into pages of one token.
BYTE_BACKENDS = (LEGACY_POLICY, "new:slab", "new:paged")
OUTCOMES = [outcome.value.replace(" ", "_") for outcome in JUDGED]


@dataclass(frozen=True)
class Sized:
    """A line of a curve.

    Attributes:
        policy: out of ``POLICIES``; in pages legacy has none.
        unit: ``ENTRIES`` or ``PAGES``.
        sizes: of one pool, in that unit.
    """

    policy: str
    unit: str
    sizes: Sequence[int]

    def made(self, geometry: Geometry, pool: str, one_pass: bool, census: Census | None = None) -> Line:
        """Pools that hold nothing.

        Args:
            one_pass: LRU's stack can tell (``LruLine.can_tell``).
            census: as in ``count_lines``.
        """
        if self.policy in BOUNDS:
            return self._bound(pool, census)
        if self.unit == PAGES:
            return CacheLine(PagedCache(geometry, self.policy, size, pool) for size in self.sizes)
        if self.policy == EvictionStrategy.LRU.value and one_pass and self.sizes:
            return LruLine(geometry, self.sizes, pool)
        return CacheLine(PooledCache(geometry, self.policy, {pool: size}) for size in self.sizes)

    def _bound(self, pool: str, census: Census | None) -> Line:
        # No pool has more entries than pages for the tokens that each entry shares with none that is older.
        own = census.least_tokens[pool] if census else TOKENS_PER_STEP
        entries = [size // own for size in self.sizes] if self.unit == PAGES else self.sizes
        if self.policy == STRICT:
            return StrictLine(pool, entries, census.reach if census else None)
        return BoundLine(Belady(pool, entries), len(entries), self.policy == UNBOUNDED)


def count_lines(
    steps: Iterable[Step],
    geometry: Geometry,
    lines: Sequence[Sized],
    pool: str = RECUR,
    *,
    census: Census | None = None,
    sample: Sample | None = None,
) -> pd.DataFrame:
    """Lookup outcomes of all lines, in one pass over the steps.

    Args:
        pool: the kind whose size varies, ``"recur"`` or ``"init"``; the other has its default size.
        census: of the steps' trace, where it was taken. Without it all contexts are remembered.
        sample: that the steps are; the counts are then estimates of the whole trace's.

    Returns:
        A row for each line and size, in the given order: ``policy``, ``unit``, ``size``; ``lookups`` (of the whole
        trace, root and node); counts ``hit``, ``context_mismatch``, ``stale_hit``, ``miss``; the same with ``_rate``
        behind, as shares of the lookups (NaN without any); and with ``_error`` behind, half the width of the 95 %
        confidence interval of that share: 0 where all is followed.
    """
    most = census.most_entries[RECUR] if census else most_entries(steps) if pool == INIT else 0
    one_pass = LruLine.can_tell(geometry, pool, most)
    made = [each.made(geometry, pool, one_pass, census) for each in lines]
    estimates = [Estimate() for _ in lines]
    counted = [np.zeros((len(each.sizes), 1, 1), dtype=np.int64) for each in lines]
    for is_end in _periods(follow(steps, made, census.reach if census else None), sample):
        if is_end:
            for place, (line, estimate) in enumerate(zip(made, estimates, strict=True)):
                before, counted[place] = counted[place], line.table()
                estimate.add(counted[place] - before)
    rows = [
        (each.policy, each.unit, size, *counts, *errors)
        for each, estimate in zip(lines, estimates, strict=True)
        for size, counts, errors in zip(each.sizes, estimate.counts(sample), estimate.errors(sample), strict=True)
    ]
    table = pd.DataFrame(rows, columns=["policy", "unit", "size", *OUTCOMES, *(f"{each}_error" for each in OUTCOMES)])
    lookups = table[OUTCOMES].sum(axis=1)
    rates = table[OUTCOMES].div(lookups, axis=0).add_suffix("_rate")
    table.insert(3, "lookups", lookups.round().astype(int))
    table[OUTCOMES] = table[OUTCOMES].round().astype(int)
    return pd.concat([table.iloc[:, : 4 + len(OUTCOMES)], rates, table.iloc[:, 4 + len(OUTCOMES) :]], axis=1)


def _periods(steps: Iterable[Step], sample: Sample | None) -> Iterator[bool]:
    """For each step, and at the end, whether counts are taken: with a sample where the recurrent pool is cleared."""
    for step in steps:
        yield sample is not None and not {RECUR, "all"}.isdisjoint(step.clears)
    yield True


def hit_rate_curves(
    steps: Iterable[Step],
    geometry: Geometry,
    capacities: Sequence[int],
    policies: Sequence[str] = POLICIES,
    *,
    pool: str = RECUR,
    itemsize: int = 4,
) -> pd.DataFrame:
    """Lookup outcomes at several sizes of one kind of pool; the other kind has its default size.

    Args:
        steps: of a trace; each pass begins at the first.
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
    table = count_lines(steps, geometry, [Sized(each, ENTRIES, capacities) for each in policies], pool)
    pools = geometry.env_num if pool == INIT else 1
    table = _exact(table.drop(columns="unit").rename(columns={"size": "entries"}))
    table.insert(2, "bytes", table["entries"] * pools * geometry.entry_bytes(itemsize))
    return table


def hit_rate_by_bytes(
    steps: Iterable[Step],
    geometry: Geometry,
    budgets: Sequence[int],
    backends: Sequence[str] = BYTE_BACKENDS,
    *,
    eviction: str = EvictionStrategy.FIFO.value,
    itemsize: int = 4,
) -> pd.DataFrame:
    """Lookup outcomes at several byte sizes of the recurrent pool; init pools have their default size.

    Args:
        steps: as in ``hit_rate_curves``.
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
    strategy, entry_bytes = EvictionStrategy.parse(eviction).value, geometry.entry_bytes(itemsize)
    too_small = [budget for budget in budgets if budget < entry_bytes]
    if too_small:
        raise ValueError(f"{too_small[0]} bytes hold no entry of {geometry.name!r}: one takes {entry_bytes}")
    slots = [budget // entry_bytes for budget in budgets]
    pages = [budget * geometry.context_length // entry_bytes for budget in budgets]
    lines = {
        LEGACY_POLICY: Sized(LEGACY_POLICY, ENTRIES, slots),
        "new:slab": Sized(strategy, ENTRIES, slots),
        "new:paged": Sized(strategy, PAGES, pages),
    }
    table = _exact(count_lines(steps, geometry, [lines[each] for each in backends]))
    places = pd.DataFrame(product(backends, budgets), columns=["backend", "bytes"])
    return places.join(table.drop(columns=["policy", "unit", "size"]))


def _exact(table: pd.DataFrame) -> pd.DataFrame:
    """Without errors, which a pass over everything does not have."""
    return table.drop(columns=[f"{each}_error" for each in OUTCOMES])


def most_entries(steps: Iterable[Step], *, pool: str = RECUR) -> int:
    """The most keys that are stored in one pool between two clears: with that many slots nothing is ever evicted."""
    unlimited = Unlimited(pool)
    for step in steps:
        unlimited.follow(step)
    return unlimited.most_entries


def capacities_to_try(most: int, count: int = 12, least: int = 1) -> list[int]:
    """At most ``count`` sizes from ``least`` to ``most``, evenly apart on a logarithmic axis; ascending, none twice."""
    if most < least or count < 1:
        raise ValueError(f"at least one size and one entry are needed, got {count} sizes up to {most}")
    return sorted({round(float(size)) for size in np.geomspace(least, most, count)} if count > 1 else {most})


def _check(geometry: Geometry, sizes: Sequence[int], names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {name!r}: choose out of {', '.join(known)}")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"a capacity must be a positive integer, got {size!r}")
    if geometry.slid_size < 1:
        raise ValueError(f"contexts of {geometry.context_length} tokens keep no past: there is nothing to size")
