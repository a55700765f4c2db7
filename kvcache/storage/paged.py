"""An entry is a table of pages, and shares those of the context that it grew from.

A page holds one token of all layers, 1 KiB (cartpole) to 48 KiB (wide): large enough to be copied at full bandwidth,
and never partly filled, so that a page is written once and shared as it is. A child owns the tokens of its own step
and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from kvcache.geometry import TOKENS_PER_STEP
from kvcache.kernels import ZERO
from kvcache.storage.base import EntryLike
from kvcache.storage.positions import NO_TOKENS, Origins
from kvcache.storage.tokens import NO_ROWS, NOBODYS_ROWS, TokenMemory, TokenStorage

__all__ = ["PagedStorage", "Pages"]


class Pages(TokenMemory):
    """Token memory whose rows are counted: free, or referred to by the tables of several pools.

    Attributes:
        references: ``[N]``: how many tables hold the page; 0 is free.
        serials: ``[N]``: a number for the page's present content that no other content ever has; 0 for ``ZERO``.
    """

    shares = True

    def __init__(self, like: EntryLike | None = None) -> None:
        super().__init__(like)
        self.references = np.zeros(NOBODYS_ROWS, dtype=np.int64)
        self.serials = np.zeros(NOBODYS_ROWS, dtype=np.int64)
        self._owners = np.zeros(NOBODYS_ROWS, dtype=np.int32)  # who is charged for the page
        self._charges: list[int] = []
        self._free: list[int] = []
        self._next_serial = 1
        self._dropped: list[np.ndarray] = []

    def register(self) -> int:
        """A number for one more storage that is charged for what it allocates."""
        self._charges.append(0)
        return len(self._charges) - 1

    def charge(self, owner: int) -> int:
        """Pages that ``owner`` allocated and that are still held, by whomever."""
        self._collect()
        return self._charges[owner]

    def write_entries(
        self,
        storages: Sequence[Any],
        slots: Sequence[int],
        inherited: Sequence[np.ndarray],
        origins: Sequence[Origins],
        first: Sequence[int],
        new: Sequence[int],
    ) -> np.ndarray:
        for storage, slot in zip(storages, slots, strict=True):
            storage.release(slot)
        self._collect()
        pages = self._allocate(
            [storage.owner for storage, count in zip(storages, new, strict=True) for _ in range(count)]
        )
        taken = 0
        for storage, slot, shared, before, at, count in zip(
            storages, slots, inherited, origins, first, new, strict=True
        ):
            storage.hold(slot, shared, pages[taken : taken + count], before.grown(at, count))
            taken += count
        return pages

    def _allocate(self, owners: list[int]) -> np.ndarray:
        """A free page for each of those who are charged for it, held once: ``[n]``."""
        count, free = len(owners), self._free
        if len(free) < count:
            missing = count - len(free)
            begin = self.take(missing)
            # The lowest are taken first: handed out in order they lie in a line.
            free[:0] = range(begin + missing - 1, begin - 1, -1)
            self._lengthen()
        if not count:
            return NO_ROWS
        pages = np.array(free[: -count - 1 : -1], dtype=np.int64)
        del free[-count:]
        self.references[pages] = 1
        self.serials[pages] = np.arange(self._next_serial, self._next_serial + count)
        self._next_serial += count
        self._owners[pages] = owners
        for owner in owners:
            self._charges[owner] += 1
        return pages

    def inherit(self, parents: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        pages = np.concatenate(parents)  # a copy: tables change
        np.add.at(self.references, pages, 1)
        inherited, begin = [], 0
        for parent in parents:
            inherited.append(pages[begin : begin + len(parent)])
            begin += len(parent)
        return inherited

    def disown(self, inherited: np.ndarray) -> None:
        self.drop(inherited)

    def drop(self, pages: np.ndarray) -> None:
        """A table that held these pages does no more. They are free when they are next asked for."""
        self._dropped.append(pages)

    def drop_all(self, tables: np.ndarray) -> None:
        """All these tables, ``[tables, T_max]`` with ``ZERO`` behind their tokens, hold their pages no more."""
        counts = np.bincount(tables.ravel(), minlength=len(self.references))
        counts[ZERO] = 0
        self.references -= counts
        held = np.flatnonzero(counts)
        self._free_pages(held[self.references[held] == 0])

    def _collect(self) -> None:
        """Free those dropped pages that no table holds any more."""
        if self._dropped:
            pages = np.concatenate(self._dropped)
            self._dropped.clear()
            np.subtract.at(self.references, pages, 1)
            self._free_pages(np.unique(pages[self.references[pages] == 0]))

    def _free_pages(self, pages: np.ndarray) -> None:
        """These pages ``[n]``, in order, are held by nobody."""
        if len(pages):
            self._free += pages[::-1].tolist()  # the lowest are handed out first
            for owner, count in enumerate(np.bincount(self._owners[pages]).tolist()):
                self._charges[owner] -= count

    def _lengthen(self) -> None:
        """Let the columns be as long as the memory."""
        assert self.rows is not None
        more = self.rows.shape[0] - len(self.references)
        if more > 0:
            for name in ("references", "serials", "_owners"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.zeros(more, dtype=column.dtype)]))


class PagedStorage(TokenStorage):
    """Slots are tables ``[T_max]`` of pages.

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
        memory: TokenMemory | None = None,
        reserves: bool = True,
        page_limit: int | None = None,
    ) -> None:
        if memory is None:
            memory = Pages(like)
        assert isinstance(memory, Pages)
        self.memory = memory
        self._pool_size = pool_size
        self.owner = memory.register()
        self._reserved = pool_size * TOKENS_PER_STEP if reserves else 0
        if page_limit is not None:
            self._reserved = min(self._reserved, page_limit)
        self._page_limit = page_limit
        self._tables: np.ndarray | None = None
        self._sizes = [0] * pool_size
        self._origins = [NO_TOKENS] * pool_size
        self._in_use = 0  # slots from here on are empty
        memory.reserve(self._reserved)

    def lacks_room(self, tokens: int) -> bool:
        if self._page_limit is None:
            return False
        return self.memory.charge(self.owner) + tokens > self._page_limit

    def size(self, slot: int) -> int:
        return self._sizes[slot]

    def rows_of(self, slot: int) -> np.ndarray:
        assert self._tables is not None, f"slot {slot} is read before it was written"
        return self._tables[slot, : self._sizes[slot]]

    def origins_of(self, slot: int) -> Origins:
        return self._origins[slot]

    def hold(self, slot: int, inherited: np.ndarray, new: np.ndarray, origins: Origins) -> None:
        """Let the empty ``slot`` hold these pages, which are counted already."""
        tables = self._tables
        if tables is None:
            assert self.memory.like is not None
            tables = self._tables = np.zeros((self._pool_size, self.memory.like.shape[3]), dtype=np.int64)
        shared, size = len(inherited), len(inherited) + len(new)
        table = tables[slot]
        table[:shared] = inherited
        table[shared:size] = new
        self._sizes[slot] = size
        self._origins[slot] = origins
        if slot >= self._in_use:
            self._in_use = slot + 1

    def release(self, slot: int) -> None:
        size = self._sizes[slot]
        if size:
            assert self._tables is not None
            self.memory.drop(self._tables[slot, :size].copy())
            self._tables[slot, :size] = ZERO
            self._sizes[slot] = 0

    def clear(self) -> None:
        if self._tables is not None and self._in_use:
            used = self._tables[: self._in_use]
            self.memory.drop_all(used)
            used.fill(ZERO)
            self._sizes[: self._in_use] = [0] * self._in_use
            self._in_use = 0

    def _tokens(self, slot: int) -> Tensor:
        tokens, pages = super()._tokens(slot), self.memory
        if pages.shifts is None:
            return tokens
        moves = pages.shifts.moves(self._origins[slot])
        if moves is None:
            return tokens
        layers, kinds, heads, size, head_dim = tokens.shape
        shift = pages.shifts.rows.index_select(0, pages.index(moves))
        return tokens + shift.view(size, layers, kinds, heads, head_dim).movedim(0, 3)

    @property
    def slots_allocated(self) -> int:
        """Pages are no slots: what was handed out so far, in entries of full length."""
        return 0 if self.memory.like is None else self.memory.used // self.memory.like.shape[3]

    @property
    def bytes_reserved(self) -> int:
        if self.memory.rows is None:
            return 0
        return max(self._reserved, self.memory.charge(self.owner)) * self.memory.row_bytes
