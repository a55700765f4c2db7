"""An entry is a table of pages, and shares those of the context that it grew from.

A page holds one token of all layers: 1 KiB (cartpole) to 48 KiB (wide), large enough to be copied at full bandwidth.
It is never partly filled, so it is written once and then shared. A child owns the tokens of its own step only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvcache.geometry import TOKENS_PER_STEP
from kvcache.kernels import ZERO_PAGE
from kvcache.storage.base import EntrySpec
from kvcache.storage.positions import Origins
from kvcache.storage.tokens import NULL_PAGES, TokenMemory, TokenStorage

try:
    import kvcache.storage._page_arrays as arrays
except ImportError:  # it could not be compiled
    import kvcache.storage.page_arrays as arrays  # type: ignore[no-redef]

__all__ = ["PagedStorage", "Pages"]

_ENTRIES_AT_ONCE = 256  # of a cleared storage: so no single call frees all that a search has stored


class Pages(TokenMemory):
    """Token memory with a count of references to each row: tables of several pools may refer to one page.

    Attributes:
        references: ``[N]``: number of tables that hold the page; 0 for a free page. Not counted for ``ZERO_PAGE``.
        serials: ``[N]``: a unique number of the page's current content; 0 for ``ZERO_PAGE``.
    """

    def __init__(self, spec: EntrySpec | None = None) -> None:
        super().__init__(spec)
        self.references = np.zeros(NULL_PAGES, dtype=np.int64)
        self.serials = np.zeros(NULL_PAGES, dtype=np.int64)
        self._owners = np.zeros(NULL_PAGES, dtype=np.int64)  # [N]: the storage that is charged for the page
        self._charges = np.zeros(0, dtype=np.int64)  # pages charged to each storage
        self._owner_of = [0]  # the storage of each entry
        self._ranges: list[range] = []  # the entries of each storage
        self._epochs: list[int] = []  # how often each storage was cleared
        self._written = [0]  # the epoch in which each entry was written
        self._cleared: dict[int, int] = {}  # by storage: the first entry that may still be of an older epoch
        self._free = np.zeros(0, dtype=np.int64)  # a stack
        self._free_count = 0
        self._next_serial = 1
        self._dropped: list[np.ndarray] = []

    def register(self, entries: int) -> int:
        self._owner_of += [len(self._charges)] * entries
        self._charges = _lengthened(self._charges, len(self._charges) + 1)
        self._epochs.append(0)
        self._written += [0] * entries
        first = super().register(entries)
        self._ranges.append(range(first, first + entries))
        return first

    def reset(self) -> None:
        super().reset()
        for column in (self.references, self._owners, self._charges):
            column.fill(0)
        self._free_count = 0
        self._next_serial = max(self._next_serial, int(self.serials.max()) + 1)  # no serial is given twice
        self.serials.fill(0)
        self._dropped.clear()
        self._cleared.clear()

    def owner_of(self, entry: int) -> int:
        """The number of the storage that an entry was registered for."""
        return self._owner_of[entry]

    def charge(self, owner: int) -> int:
        """Pages that were allocated for a storage and that any table still holds."""
        self._collect()
        return int(self._charges[owner])

    @property
    def free(self) -> np.ndarray:
        """The free pages; the last is used first."""
        return self._free[: self._free_count]

    def inherit(
        self, parents: Sequence[int], first: Sequence[int], counts: Sequence[int]
    ) -> tuple[np.ndarray, list[int]]:
        self._begin()
        tables = np.empty((len(parents), self.longest + 1), dtype=np.int64)
        return tables, arrays.inherit(self.tables, self.references, self.sizes, parents, first, counts, tables)

    def find_changed(
        self, entries: Sequence[int], sizes: Sequence[int], held: np.ndarray, index: np.ndarray, changed: np.ndarray
    ) -> int:
        """As ``page_arrays.find_changed``."""
        return arrays.find_changed(self.tables, self.serials, entries, sizes, held, index, changed)

    def release_inherited(self, tables: np.ndarray) -> None:
        self._dropped.append(tables[tables != ZERO_PAGE])

    def write(
        self, entries: Sequence[int], tables: np.ndarray, new: list[int], origins: Sequence[Origins]
    ) -> np.ndarray:
        self._begin()
        for entry in entries:
            epoch = self._epochs[self._owner_of[entry]]
            if self.sizes[entry]:
                while self.sizes[entry] and self._written[entry] != epoch:
                    self._free_some_cleared(self._owner_of[entry])
                self.release(entry)
            self._written[entry] = epoch
        count = sum(new)
        self._make_free(count)
        targets = np.empty((max(new), len(entries)), dtype=np.int64)
        arrays.place(
            self.tables, tables, entries, new, self._owner_of, self.references, self.serials, self._owners,
            self._charges, self._free, self._free_count, self._next_serial, targets,
        )  # fmt: skip
        self._free_count -= count
        self._next_serial += count
        self._note(entries, origins)
        return targets

    def _make_free(self, count: int) -> None:
        """Make at least that many pages free. Those of cleared entries are freed before the memory grows."""
        self._free_dropped()
        while self._free_count < count and self._cleared:
            self._free_some_cleared(next(iter(self._cleared)))
        if self._free_count < count:
            missing = count - self._free_count
            begin = self.take(missing)
            self._lengthen()
            # New pages go below the free ones. The lowest is used first, so pages used together are consecutive.
            self._free[missing:count] = self.free
            self._free[:missing] = np.arange(begin + missing - 1, begin - 1, -1)
            self._free_count = count

    def release(self, entry: int) -> None:
        """Free ``entry``. Pages that no other table holds are free when pages are next needed."""
        size = self.sizes[entry]
        if size:
            self._dropped.append(self.tables[entry, self.longest - size : self.longest].copy())
            self.sizes[entry] = 0

    def clear(self, owner: int) -> None:
        """Free all entries of a storage, in O(1).

        A new epoch of it begins. Entries of an older one are freed when one of them is written again or when pages are
        needed, some at once: one by one takes several times as long.
        """
        self._epochs[owner] += 1
        self._cleared[owner] = self._ranges[owner].start

    def _collect(self) -> None:
        """Free all pages that only dropped tables and cleared entries hold."""
        self._free_dropped()
        while self._cleared:
            self._free_some_cleared(next(iter(self._cleared)))

    def _free_dropped(self) -> None:
        """Free the dropped pages that no table holds."""
        if self._dropped:
            pages = np.concatenate(self._dropped)
            self._dropped.clear()
            self._free_pages(pages)

    def _free_some_cleared(self, owner: int) -> None:
        """Free the next entries of a cleared storage."""
        begin = self._cleared.pop(owner)
        end = min(begin + _ENTRIES_AT_ONCE, self._ranges[owner].stop)
        if end < self._ranges[owner].stop:
            self._cleared[owner] = end
        sizes, written, epoch = self.sizes[begin:end], self._written[begin:end], self._epochs[owner]
        longest = max(sizes)
        if longest:
            pages = self.tables[begin:end, self.longest - longest : self.longest]
            left = [0] * len(sizes)
            if 0 in sizes or epoch in written:  # not all are to be freed, which is one copy
                held = [size > 0 and wrote != epoch for size, wrote in zip(sizes, written, strict=True)]
                pages = pages[np.array(held)]
                left = [0 if freed else size for size, freed in zip(sizes, held, strict=True)]
            self.sizes[begin:end] = left
            self._free_pages(pages.ravel())

    def _free_pages(self, pages: np.ndarray) -> None:
        """Drop one reference to each of these ``[n]``."""
        self._free_count = arrays.release(
            pages, self.references, self._owners, self._charges, self._free, self._free_count
        )

    def _lengthen(self) -> None:
        """Make the columns as long as the memory."""
        assert self.rows is not None
        for name in ("references", "serials", "_owners", "_free"):  # each by itself: one may be longer already
            column = getattr(self, name)
            if len(self.rows) > len(column):
                setattr(self, name, _lengthened(column, len(self.rows)))


def _lengthened(column: np.ndarray, length: int) -> np.ndarray:
    """The column with zeros appended."""
    return np.concatenate([column, np.zeros(length - len(column), dtype=column.dtype)])


class PagedStorage(TokenStorage):
    """Slots are tables of pages.

    Args:
        pool_size: slots.
        spec: of all entries, if it is known.
        memory: pages shared with other pools; None makes them.
        reserves: whether memory for one step's tokens of each slot is allocated with the first entry.
        page_limit: most pages that this storage may be charged for; None for no limit.
    """

    memory: Pages

    def __init__(
        self,
        pool_size: int,
        spec: EntrySpec | None = None,
        memory: Pages | None = None,
        reserves: bool = True,
        page_limit: int | None = None,
    ) -> None:
        self.memory = Pages(spec) if memory is None else memory
        self.first = self.memory.register(pool_size)
        self._owner = self.memory.owner_of(self.first)
        self._reserved = pool_size * TOKENS_PER_STEP if reserves else 0
        if page_limit is not None:
            self._reserved = min(self._reserved, page_limit)
        self._page_limit = page_limit
        self.is_limited = page_limit is not None
        self.memory.reserve(self._reserved)

    @property
    def charge(self) -> int:
        """Pages that were allocated for this storage and that any table still holds."""
        return self.memory.charge(self._owner)

    def lacks_room(self, tokens: int) -> bool:
        return self._page_limit is not None and self.charge + tokens > self._page_limit

    def clear(self) -> None:
        self.memory.clear(self._owner)

    @property
    def slots_allocated(self) -> int:
        """The pages used so far, in full entries."""
        return 0 if self.memory.spec is None else self.memory.used // self.memory.longest

    @property
    def bytes_reserved(self) -> int:
        if self.memory.rows is None:
            return 0
        return max(self._reserved, self.charge) * self.memory.row_bytes
