"""Admission of a batch's new entries: each gets a slot, and others are evicted for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kvcache.batch.base import Destinations
from kvcache.kernels import ZERO_PAGE
from kvcache.storage import TokenMemory
from kvcache.storage.positions import Origins

__all__ = ["Admission", "NewEntries"]


@dataclass(slots=True)
class NewEntries:
    """The entries that rows of a batch become, ``n`` of them.

    Attributes:
        rows: of the batch.
        first: the first token of each row that is stored.
        counts: number of stored tokens of each row.
        new: number of written tokens of each row. The others are shared with the context that it grew from.
        tables: ``[n, T_max + 1]``, from ``TokenMemory.inherit``.
        origins: positions at which the tokens were computed.
        numbers: of the entries, once they are admitted.
    """

    rows: Sequence[int]
    first: list[int]
    counts: list[int]
    new: list[int]
    tables: np.ndarray
    origins: list[Origins]
    numbers: list[int] = field(default_factory=list)

    def only(self, rows: Sequence[int]) -> NewEntries:
        """The entries of some rows of a whole batch."""
        first, counts, new = ([each[row] for row in rows] for each in (self.first, self.counts, self.new))
        return NewEntries(rows, first, counts, new, self.tables.take(rows, 0), [self.origins[row] for row in rows])


class Admission:
    """Slots for the rows of one batch, claimed one by one.

    Args:
        memory: of all the pools.
        to: where each row is stored.
    """

    def __init__(self, memory: TokenMemory, to: Destinations) -> None:
        self._memory = memory
        self._to = to

    def admit(self, entries: NewEntries) -> NewEntries:
        """Claim a slot for each row.

        Returns:
            The entries that own a slot when all are claimed. Of two rows with one key only the last one does. Where
            bytes are limited a later row may evict an earlier one.
        """
        pools, keys = self._to.pools, self._to.keys
        limited = any(pool.storage.is_limited for pool in set(pools))
        if limited:
            inherited = entries.tables.copy()
            claimed = self._claim_with_room(entries, inherited)
        else:
            inherited = entries.tables
            claimed = self._claim(entries)
        numbers = [pool.storage.first + slot for pool, slot in zip(pools, claimed, strict=True)]
        last = dict(zip(numbers, entries.rows, strict=True))
        kept = sorted(last.values())
        if limited:  # a row may have been evicted for its bytes, and nobody has its slot
            kept = [row for row in kept if pools[row].owns(keys[row], claimed[row])]
        if len(kept) < len(numbers):
            lost = sorted(set(entries.rows).difference(kept))
            self._memory.release_inherited(inherited.take(lost, 0))
            entries, numbers = entries.only(kept), [numbers[row] for row in kept]
        entries.numbers = numbers
        return entries

    def _claim(self, entries: NewEntries) -> list[int]:
        """Claim a slot for each row where slots alone are limited."""
        to = self._to
        if to.info is None:
            rows = zip(to.pools, to.keys, to.priorities, strict=True)
            return [pool.claim(key, priority) for pool, key, priority in rows]
        known = zip(to.pools, to.keys, to.priorities, to.entries(entries.counts, entries.new), strict=True)
        return [pool.claim(key, priority, 0, info) for pool, key, priority, info in known]

    def _claim_with_room(self, entries: NewEntries, inherited: np.ndarray) -> list[int]:
        """Claim a slot for each row where bytes are limited: earlier rows of the batch may be evicted for later ones.

        Args:
            entries: of all rows.
            inherited: the rows' tables ``[n, T_max + 1]``; those of evicted rows are released.
        """
        pools, keys, new = self._to.pools, self._to.keys, entries.new
        claimed: list[int] = []
        evicted: set[int] = set()
        columns = zip(pools, keys, self._to.priorities, self._to.entries(entries.counts, new), strict=True)
        for row, (pool, key, priority, info) in enumerate(columns):
            pool.free_memory(key)
            while pool.evict_for(sum(new[n] for n in range(row + 1) if pools[n] is pool and n not in evicted), info):
                for earlier in range(row):
                    if earlier not in evicted and not pools[earlier].owns(keys[earlier], claimed[earlier]):
                        evicted.add(earlier)
                        self._memory.release_inherited(inherited[earlier : earlier + 1])
                        inherited[earlier] = ZERO_PAGE
            claimed.append(pool.claim(key, priority, 0, info))
        return claimed
