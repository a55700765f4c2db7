"""Admission of a batch's new entries: each gets a slot, or none of them does."""

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
        return NewEntries(rows, first, counts, new, self.tables[rows], [self.origins[row] for row in rows])


class Admission:
    """Slots for the rows of one batch, claimed one by one.

    Args:
        memory: of all the pools.
        to: the pool, key and priority of each row.
    """

    def __init__(self, memory: TokenMemory, to: Destinations) -> None:
        self._memory = memory
        self._pools, self._keys, self._priorities = to
        self._claimed: list[int] = []
        self._inherited: np.ndarray | None = None  # tables that hold pages for entries not written yet

    def admit(self, entries: NewEntries) -> NewEntries:
        """Claim a slot for each row.

        Returns:
            The entries that own a slot when all are claimed. Of two rows with one key only the last one does. Where
            bytes are limited a later row may evict an earlier one.
        """
        pools, keys = self._pools, self._keys
        limited = any(pool.storage.is_limited for pool in set(pools))
        self._inherited = entries.tables.copy() if limited else entries.tables
        for pool, priority in zip(pools, self._priorities, strict=True):
            if priority is not None:
                pool.check_priority(priority)
        if limited:
            self._claim_with_room(entries.new)
        else:
            rows = zip(pools, keys, self._priorities, strict=True)
            self._claimed += [pool.claim(key, priority) for pool, key, priority in rows]
        numbers = [pool.storage.first + slot for pool, slot in zip(pools, self._claimed, strict=True)]
        last = dict(zip(numbers, entries.rows, strict=True))
        if limited or len(last) < len(numbers):
            kept = [row for row in sorted(last.values()) if pools[row].owns(keys[row], self._claimed[row])]
            self._memory.release_inherited(np.delete(self._inherited, kept, axis=0))
            entries, numbers = entries.only(kept), [numbers[row] for row in kept]
            self._inherited = entries.tables
        entries.numbers = numbers
        return entries

    def _claim_with_room(self, new: Sequence[int]) -> None:
        """Claim a slot for each row where bytes are limited: earlier rows of the batch may be evicted for later ones.

        Args:
            new: tokens that each row writes.
        """
        pools, keys, inherited = self._pools, self._keys, self._inherited
        assert inherited is not None
        evicted: set[int] = set()
        for row, (pool, key, priority) in enumerate(zip(pools, keys, self._priorities, strict=True)):
            pool.free_memory(key)
            while pool.evict_for(sum(new[n] for n in range(row + 1) if pools[n] is pool and n not in evicted)):
                for earlier in range(row):
                    if earlier not in evicted and not pools[earlier].owns(keys[earlier], self._claimed[earlier]):
                        evicted.add(earlier)
                        self._memory.release_inherited(inherited[earlier : earlier + 1])
                        inherited[earlier] = ZERO_PAGE
            self._claimed.append(pool.claim(key, priority))

    def written(self) -> None:
        """The entries are written: from now on they hold the inherited pages."""
        self._inherited = None

    def roll_back(self) -> None:
        """Release the claimed slots and the inherited pages."""
        if self._inherited is not None:
            self._memory.release_inherited(self._inherited)
        for pool, key in zip(self._pools, self._keys[: len(self._claimed)], strict=False):
            if key in pool:
                pool.release(key)
