"""A slot is a stretch of token rows of its own, ``T_max`` of them in a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvcache.storage.base import EntryLike
from kvcache.storage.positions import Origins
from kvcache.storage.tokens import NO_ROWS, TokenMemory, TokenStorage

__all__ = ["Slab", "SlabStorage"]


class Slab(TokenMemory):
    """Token memory in which an entry's rows are its own: nothing is shared."""

    shares = False

    def write_entries(
        self,
        storages: Sequence[Any],
        slots: Sequence[int],
        inherited: Sequence[np.ndarray],
        origins: Sequence[Origins],
        first: Sequence[int],
        new: Sequence[int],
    ) -> np.ndarray:
        rows = [storage.hold(slot, count) for storage, slot, count in zip(storages, slots, new, strict=True)]
        return np.concatenate(rows) if rows else NO_ROWS


class SlabStorage(TokenStorage):
    """All slots in one tensor: a batch is gathered from it and scattered to it in one operation each.

    Args:
        pool_size: slots.
        like: what entries look like, if it is known.
        memory: shared with other pools; None makes one.
        reserves: whether room for all slots is there from the first entry on. Without it memory grows as slots come
            into use, for pools that are larger than they are ever full.
    """

    def __init__(
        self,
        pool_size: int,
        like: EntryLike | None = None,
        memory: Slab | None = None,
        reserves: bool = True,
    ) -> None:
        self.memory = Slab(like) if memory is None else memory
        self._pool_size = pool_size
        self._reserves = reserves
        self._rows: list[np.ndarray | None] = [None] * pool_size  # each [T_max]
        self._sizes = [0] * pool_size
        self._allocated = 0
        if reserves and self.memory.like is not None:
            self._reserve()

    def _reserve(self) -> None:
        self.memory.reserve(self._pool_size * self._tokens_of_a_slot)

    def decide(self, like: EntryLike) -> None:
        super().decide(like)
        if self._reserves:
            self._reserve()

    @property
    def _tokens_of_a_slot(self) -> int:
        assert self.memory.like is not None
        return self.memory.like.shape[3]

    def size(self, slot: int) -> int:
        return self._sizes[slot]

    def rows_of(self, slot: int) -> np.ndarray:
        rows = self._rows[slot]
        assert rows is not None, f"slot {slot} is read before it was written"
        return rows[: self._sizes[slot]]

    def hold(self, slot: int, count: int) -> np.ndarray:
        """Let ``slot`` hold ``count`` tokens: their rows."""
        rows = self._rows[slot]
        if rows is None:
            first = self.memory.take(self._tokens_of_a_slot)
            rows = self._rows[slot] = np.arange(first, first + self._tokens_of_a_slot)
            self._allocated += 1
        self._sizes[slot] = count
        return rows[:count]

    def clear(self) -> None:
        """Nothing to do: slots keep their rows, and none is read before it is written again."""

    @property
    def slots_allocated(self) -> int:
        return self._allocated

    @property
    def bytes_reserved(self) -> int:
        if self.memory.rows is None:
            return 0
        slots = self._pool_size if self._reserves else self._allocated
        return slots * self._tokens_of_a_slot * self.memory.row_bytes
