"""Memory of single tokens: one tensor in which a row is one token of all layers, and entries that are lists of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvcache.kernels import TRASH, ZERO
from kvcache.keys_values import KeysValues, memory, zeros
from kvcache.storage.base import EntryLike, Storage, check_entry, refuse_unlike
from kvcache.storage.positions import NO_TOKENS, Origins, PositionShifts

__all__ = ["NOBODYS_ROWS", "NO_ROWS", "TokenMemory", "TokenStorage"]

NO_ROWS = np.empty(0, dtype=np.int64)
NOBODYS_ROWS = max(ZERO, TRASH) + 1
_GROWTH = 4  # a quarter more each time: what is copied, all in all, stays a few times what is held


class TokenMemory(ABC):
    """Rows ``[N, W]``, W = L x 2 x H x D, in one tensor; it grows and never shrinks.

    Attributes:
        shares: whether an entry may have rows in common with others. What is shared is corrected when it is read, what
            is not before it is written.
        like: what entries look like; None until the first one decides.
        rows: the memory, allocated when it is first needed.
        used: rows handed out so far; those behind are untouched.
        shifts: corrections of tokens that are moved; None where none are needed (rotary positions).
    """

    shares: bool

    def __init__(self, like: EntryLike | None = None) -> None:
        self.like = like
        self.rows: Tensor | None = None
        self.used = NOBODYS_ROWS
        self.shifts: PositionShifts | None = None
        self._reserved = NOBODYS_ROWS

    def reserve(self, rows: int) -> None:
        """Let the memory have room for that many rows more from the beginning, unless it has begun already."""
        self._reserved += rows

    def take(self, count: int) -> int:
        """The first of ``count`` rows in a line that nobody had before."""
        first, used = self.used, self.used + count
        if self.rows is None or used > self.rows.shape[0]:
            self._grow(used)
        self.used = used
        return first

    def _grow(self, needed: int) -> None:
        assert self.like is not None, "the first entry decides what rows look like"
        old, size = self.rows, max(needed, self._reserved)
        if old is not None:
            size = max(size, old.shape[0] + old.shape[0] // _GROWTH)
        self.rows = memory((size, self.width), self.like.device, self.like.dtype)
        if old is None:
            self.rows[:NOBODYS_ROWS].zero_()
        else:
            self.rows[: old.shape[0]].copy_(old)

    def inherit(self, parents: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Rows of parents, ``[n]`` each, that their children will have as their own first ones (where ``shares``).

        They stay as they are until ``write_entries`` or ``disown`` is called with what was returned.
        """
        raise NotImplementedError("these rows are not shared")

    def disown(self, inherited: np.ndarray) -> None:  # noqa: B027 - nothing is inherited where nothing is shared
        """The child for whom these rows were inherited is not stored after all."""

    @abstractmethod
    def write_entries(
        self,
        storages: Sequence[Any],
        slots: Sequence[int],
        inherited: Sequence[np.ndarray],
        origins: Sequence[Origins],
        first: Sequence[int],
        new: Sequence[int],
    ) -> np.ndarray:
        """Make each storage's slot hold an entry of inherited rows and of new tokens behind them.

        Args:
            storages: of this memory.
            slots: one of each storage.
            inherited: what ``inherit`` returned.
            origins: of the inherited tokens.
            first: where in its context an entry's first new token was computed.
            new: how many new tokens.

        Returns:
            The rows ``[sum(new)]`` to write the new tokens to, entry by entry.
        """

    @property
    def width(self) -> int:
        """Elements of a row, W."""
        assert self.like is not None
        layers, kinds, heads, _, head_dim = self.like.shape
        return layers * kinds * heads * head_dim

    @property
    def row_bytes(self) -> int:
        return 0 if self.like is None else self.width * self.like.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return 0 if self.rows is None else self.rows.nbytes

    def index(self, rows: np.ndarray) -> Tensor:
        """Row numbers on the memory's device, handed over without waiting for it."""
        assert self.like is not None
        index = torch.from_numpy(rows)
        if self.like.device.type == "cpu":
            return index
        return index.pin_memory().to(self.like.device, non_blocking=True)


class TokenStorage(Storage):
    """Entries whose tokens are rows of a ``TokenMemory``, which several pools may share."""

    memory: TokenMemory

    @abstractmethod
    def rows_of(self, slot: int) -> np.ndarray:
        """The rows of a slot's live tokens, ``[size]``: a view."""

    def origins_of(self, slot: int) -> Origins:
        """Where a slot's live tokens were computed (where rows are shared)."""
        raise NotImplementedError("these rows are where they belong")

    def decide(self, like: EntryLike) -> None:
        """The first entry, where none was promised: all others are like it."""
        self.memory.like = like

    # Row by row, for callers of the pool, and for batches that are not made of token memory.

    def check(self, value: Any) -> None:
        check_entry(value)
        refuse_unlike(self.memory.like, EntryLike(value.entry_shape, value.dtype, value.device))

    def check_row(self, row: Tensor) -> None:
        refuse_unlike(self.memory.like, EntryLike.of(row))

    def write(self, slot: int, value: KeysValues) -> None:
        self.save_tokens(slot, value.block[0], 0, value.size, None)

    def read(self, slot: int) -> KeysValues:
        like, size = self.memory.like, self.size(slot)
        assert like is not None
        block = zeros((1, *like.shape), like.device, like.dtype)
        self.load_tokens(slot, block[0], 0)
        return KeysValues.from_block(block, size)

    def save_tokens(self, slot: int, row: Tensor, first: int, count: int, shift: Tensor | None) -> None:
        if self.memory.like is None:
            self.decide(EntryLike.of(row))
        rows = self.memory.write_entries([self], [slot], [NO_ROWS], [NO_TOKENS], [0], [count])
        tokens = row.detach().narrow(3, first, count)
        if shift is not None:
            tokens = tokens + shift.detach()
        if count:
            pool = self.memory.rows
            assert pool is not None
            tokens = tokens.movedim(3, 0)
            pool.view(-1, *tokens.shape[1:]).index_copy_(0, self.memory.index(rows), tokens)

    def load_tokens(self, slot: int, row: Tensor, first: int) -> None:
        like, size = self.memory.like, self.size(slot)
        if EntryLike.of(row) != like:  # a copy would broadcast
            raise ValueError(f"an entry of {like} does not fit a batch of {EntryLike.of(row)}")
        if size:
            row.narrow(3, first, size).copy_(self._tokens(slot))

    def _tokens(self, slot: int) -> Tensor:
        """Live tokens as they are to be read, ``[L, 2, H, size, D]``."""
        like, rows, pool = self.memory.like, self.rows_of(slot), self.memory.rows
        assert like is not None
        assert pool is not None
        layers, kinds, heads, _, head_dim = like.shape
        tokens = pool.index_select(0, self.memory.index(np.ascontiguousarray(rows)))
        return tokens.view(len(rows), layers, kinds, heads, head_dim).movedim(0, 3)
