"""An entry is a table of pages, and shares those of the context that it grew from.

A page holds one token of all layers, 1 KiB (cartpole) to 48 KiB (wide): large enough to be copied at full bandwidth,
and never partly filled, so that a page is written once and shared as it is. A child owns the tokens of its own step
and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvcache.geometry import TOKENS_PER_STEP
from kvcache.kernels import TRASH, ZERO
from kvcache.storage.base import EntryLike
from kvcache.storage.tokens import NOBODYS_ROWS, TokenMemory, TokenStorage

__all__ = ["PagedStorage", "Pages"]


class Pages(TokenMemory):
    """Token memory whose rows are counted: free, or referred to by the tables of several pools.

    Attributes:
        references: ``[N]``: how many tables hold the page; 0 is free. Of ``ZERO``, any number.
        serials: ``[N]``: a number for the page's present content that no other content ever has; 0 for ``ZERO``.
    """

    def __init__(self, like: EntryLike | None = None) -> None:
        super().__init__(like)
        self.references = np.zeros(NOBODYS_ROWS, dtype=np.int64)
        self.serials = np.zeros(NOBODYS_ROWS, dtype=np.int64)
        self._owners = np.zeros(NOBODYS_ROWS, dtype=np.int64)  # who is charged for the page
        self._charges: list[int] = []
        self._owner_of = [0]  # who is charged for what an entry needs
        self._free = np.zeros(0, dtype=np.int64)  # a stack
        self._free_count = 0
        self._next_serial = 1
        self._dropped: list[np.ndarray] = []

    def register(self, entries: int) -> int:
        self._owner_of += [len(self._charges)] * entries
        self._charges.append(0)
        return super().register(entries)

    def charge(self, entry: int) -> int:
        """Pages allocated for this entry and those that were registered with it, and still held, by whomever."""
        self._collect()
        return self._charges[self._owner_of[entry]]

    @property
    def free(self) -> np.ndarray:
        """Pages that nobody holds; the last is handed out first."""
        return self._free[: self._free_count]

    def inherit(
        self, parents: Sequence[int], first: Sequence[int], counts: Sequence[int]
    ) -> tuple[np.ndarray, list[int]]:
        self._begin()
        longest, sizes = self.longest, self.sizes
        # By how much a table moves on: what it moves into view is new.
        advances = [at + count - sizes[parent] for parent, at, count in zip(parents, first, counts, strict=True)]
        advance, most = advances[0], max(counts)
        tables = np.zeros((len(parents), longest + 1), dtype=np.int64)
        of_parents = self.tables.take(parents, 0)
        if 0 <= advance <= min(counts) and advances.count(advance) == len(advances):
            tables[:, : longest - advance] = of_parents[:, advance:longest]
            new = advances
        else:
            for table, of_parent, advance in zip(tables, of_parents, advances, strict=True):
                begin, end = max(advance, 0), longest + min(advance, 0)
                if begin < end:
                    table[begin - advance : end - advance] = of_parent[begin:end]
            new = [min(max(advance, 0), count) for advance, count in zip(advances, counts, strict=True)]
        if any(first):
            if all(first):
                tables[:, : longest - most] = ZERO
            else:
                for table, at, count in zip(tables, first, counts, strict=True):
                    if at:
                        table[: longest - count] = ZERO
        # One-dimensional: add.at is several times as fast then (NumPy 2.4).
        np.add.at(self.references, tables[:, longest - most : longest].ravel(), 1)
        return tables, new

    def disown(self, tables: np.ndarray) -> None:
        self._dropped.append(tables[tables != ZERO])

    def _rows_for(self, entries: Sequence[int], new: Sequence[int], taken: np.ndarray | None) -> np.ndarray:
        sizes, owner_of = self.sizes, self._owner_of
        for entry in entries:
            if sizes[entry]:
                self.let_go(entry)
        owners = [owner_of[entry] for entry in entries]
        if taken is not None:
            pages = np.full(taken.shape, TRASH, dtype=np.int64)
            pages[taken] = self._allocate(sum(new), np.broadcast_to(owners, taken.shape)[taken].tolist())
            return pages
        most, count = new[0], len(entries)
        same = owners.count(owners[0]) == count
        return self._allocate(most * count, owners[0] if same else owners * most).reshape(most, count)

    def _allocate(self, count: int, owners: int | list[int]) -> np.ndarray:
        """Free pages ``[count]``, held once each, charged to one or to one each."""
        self._collect()
        if self._free_count < count:
            missing = count - self._free_count
            begin = self.take(missing)
            self._lengthen()
            # Under those that are free already. The lowest are taken first: handed out in order they lie in a line.
            self._free[missing:count] = self.free
            self._free[:missing] = np.arange(begin + missing - 1, begin - 1, -1)
            self._free_count = count
        left = self._free_count - count
        pages = self._free[left : self._free_count][::-1].copy()
        self._free_count = left
        self.references[pages] = 1
        self.serials[pages] = np.arange(self._next_serial, self._next_serial + count)
        self._next_serial += count
        self._owners[pages] = owners
        if isinstance(owners, int):
            self._charges[owners] += count
        else:
            for owner in owners:
                self._charges[owner] += 1
        return pages

    def let_go(self, entry: int) -> None:
        """Its pages are free when they are next asked for, where no other table holds them."""
        size = self.sizes[entry]
        if size:
            self._dropped.append(self.tables[entry, self.longest - size : self.longest].copy())
            self.sizes[entry] = 0

    def let_all_go(self, first: int, end: int) -> None:
        """No entry from ``first`` to ``end`` is in use any more."""
        self._collect()
        size = max(self.sizes[first:end], default=0)
        if not size:
            return
        held = [entry for entry in range(first, end) if self.sizes[entry]]
        tables = self.tables[held, self.longest - size : self.longest]
        counts = np.bincount(tables.ravel(), minlength=len(self.references))
        counts[ZERO] = 0
        self.references -= counts
        pages = np.flatnonzero(counts)
        self._free_pages(pages[self.references[pages] == 0])
        self.sizes[first:end] = [0] * (end - first)

    def _collect(self) -> None:
        """Free those dropped pages that no table holds any more."""
        if self._dropped:
            pages = np.concatenate(self._dropped)
            self._dropped.clear()
            np.subtract.at(self.references, pages, 1)
            self._free_pages(np.unique(pages[self.references[pages] == 0]))

    def _free_pages(self, pages: np.ndarray) -> None:
        """These pages ``[n]``, in order, are held by nobody."""
        count = self._free_count + len(pages)
        self._free[self._free_count : count] = pages[::-1]  # the lowest are handed out first
        self._free_count = count
        for owner, freed in enumerate(np.bincount(self._owners[pages]).tolist()):
            self._charges[owner] -= freed

    def _rows_instead(self, rows: np.ndarray) -> np.ndarray:
        pages = self._allocate(len(rows), self._owners[rows].tolist())
        self.references[pages] = 0  # counted when they stand in tables
        return pages

    def _replace(self, old: np.ndarray, new: np.ndarray) -> None:
        np.add.at(self.references, new, 1)
        self._dropped.append(old)

    def _lengthen(self) -> None:
        """Let the columns be as long as the memory."""
        assert self.rows is not None
        length = self.rows.shape[0]
        if length > len(self.references):
            self.references = _lengthened(self.references, length)
            self.serials = _lengthened(self.serials, length)
            self._owners = _lengthened(self._owners, length)
            self._free = _lengthened(self._free, length)


def _lengthened(column: np.ndarray, length: int) -> np.ndarray:
    """The column, filled up with zeros."""
    return np.concatenate([column, np.zeros(length - len(column), dtype=column.dtype)])


class PagedStorage(TokenStorage):
    """Slots are tables of pages.

    Args:
        pool_size: slots.
        like: what entries look like, if it is known.
        memory: pages shared with other pools; None makes them.
        reserves: whether there is room for one step's tokens in each slot from the first entry on.
        page_limit: most pages that this storage may be charged for; None sets no limit.
    """

    memory: Pages

    def __init__(
        self,
        pool_size: int,
        like: EntryLike | None = None,
        memory: Pages | None = None,
        reserves: bool = True,
        page_limit: int | None = None,
    ) -> None:
        self.memory = Pages(like) if memory is None else memory
        self.first = self.memory.register(pool_size)
        self._pool_size = pool_size
        self._reserved = pool_size * TOKENS_PER_STEP if reserves else 0
        if page_limit is not None:
            self._reserved = min(self._reserved, page_limit)
        self._page_limit = page_limit
        self.is_limited = page_limit is not None
        self.memory.reserve(self._reserved)

    @property
    def charge(self) -> int:
        """Pages that were allocated for this storage and are still held, by whomever."""
        return self.memory.charge(self.first)

    def lacks_room(self, tokens: int) -> bool:
        return self._page_limit is not None and self.charge + tokens > self._page_limit

    def clear(self) -> None:
        self.memory.let_all_go(self.first, self.first + self._pool_size)

    @property
    def slots_allocated(self) -> int:
        """Pages are no slots: what was handed out so far, in entries of full length."""
        return 0 if self.memory.like is None else self.memory.used // self.memory.longest

    @property
    def bytes_reserved(self) -> int:
        if self.memory.rows is None:
            return 0
        return max(self._reserved, self.charge) * self.memory.row_bytes
