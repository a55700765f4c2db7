"""Each slot is ``T_max`` consecutive token rows of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvcache.kernels import NULL_PAGE, ZERO_PAGE
from kvcache.storage.base import EntrySpec
from kvcache.storage.positions import Origins
from kvcache.storage.tokens import TokenMemory, TokenStorage

__all__ = ["Slab", "SlabStorage"]

_NONE_YET = 0


class Slab(TokenMemory):
    """Token memory in which every entry has rows of its own; nothing is shared.

    Attributes:
        begins: the first row of each entry; 0 until it is first written.
    """

    def __init__(self, spec: EntrySpec | None = None) -> None:
        super().__init__(spec)
        self.begins = [_NONE_YET]

    def register(self, entries: int) -> int:
        self.begins += [_NONE_YET] * entries
        return super().register(entries)

    def reset(self) -> None:
        super().reset()
        self.begins = [_NONE_YET] * len(self.begins)

    def inherit(
        self, parents: Sequence[int], first: Sequence[int], counts: Sequence[int]
    ) -> tuple[np.ndarray, list[int]]:
        return np.zeros((len(parents), self.longest + 1), dtype=np.int64), list(counts)

    def write(
        self, entries: Sequence[int], tables: np.ndarray, new: list[int], origins: Sequence[Origins]
    ) -> np.ndarray:
        self._begin()
        begins, longest, most = self.begins, self.longest, max(new)
        for entry in entries:
            if begins[entry] == _NONE_YET:
                begins[entry] = self.take(longest)
        back = np.arange(-most, 0)[:, None]
        targets = np.array([begins[entry] + count for entry, count in zip(entries, new, strict=True)]) + back
        written = targets
        if min(new) < most:
            taken = back >= -np.array(new)
            targets, written = np.where(taken, targets, NULL_PAGE), np.where(taken, targets, ZERO_PAGE)
        tables[:, longest - most : longest] = written.T
        self.tables[np.array(entries)] = tables
        self._note(entries, origins)
        return targets


class SlabStorage(TokenStorage):
    """All slots in one tensor: a batch is gathered from it and scattered to it in one operation each.

    Args:
        pool_size: slots.
        spec: of all entries, if it is known.
        memory: shared with other pools; None makes one.
        reserves: whether memory for all slots is allocated with the first entry. Otherwise it grows with the slots in
            use, for pools that are never full.
    """

    memory: Slab

    def __init__(
        self, pool_size: int, spec: EntrySpec | None = None, memory: Slab | None = None, reserves: bool = True
    ) -> None:
        self.memory = Slab(spec) if memory is None else memory
        self.first = self.memory.register(pool_size)
        self._pool_size = pool_size
        self._reserves = reserves
        if reserves:
            self.memory.reserve(entries=pool_size)

    def clear(self) -> None:
        """Does nothing: slots keep their rows, and none is read before it is written again."""

    @property
    def slots_allocated(self) -> int:
        begins = self.memory.begins[self.first : self.first + self._pool_size]
        return len(begins) - begins.count(_NONE_YET)

    @property
    def bytes_reserved(self) -> int:
        if self.memory.rows is None:
            return 0
        slots = self._pool_size if self._reserves else self.slots_allocated
        return slots * self.memory.longest * self.memory.row_bytes
