"""Token memory: one tensor whose rows are tokens of all layers, and entries that are lists of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvcache.kernels import NULL_PAGE, ZERO_PAGE, large_memory
from kvcache.keys_values import KeysValues
from kvcache.memory import zeros
from kvcache.staging import Staging, make_staging
from kvcache.storage.base import EntrySpec, Storage, check_entry, check_matches
from kvcache.storage.positions import NO_TOKENS, Origins, PositionShifts

__all__ = ["NULL_ENTRY", "NULL_PAGES", "TokenMemory", "TokenStorage"]

NULL_ENTRY = 0  # belongs to no slot and is always empty
NULL_PAGES = max(ZERO_PAGE, NULL_PAGE) + 1
_GROWTH = 4  # memory grows by a quarter at least: all copies together are a few times its size


class TokenMemory(ABC):
    """Rows ``[N, W]``, W = L x 2 x H x D, in one tensor, and the tables of the entries that consist of them.

    Entries are numbered across all pools that share the memory. A table ends with its entry's last token and has
    ``ZERO_PAGE`` in front of the first one. So the tables of some entries, side by side, are the index by which a batch
    of them is gathered, padding included. The memory grows and never shrinks.

    Tokens are stored as they were computed. A token whose position has changed since, because its window slid, is
    corrected when it is read.

    Attributes:
        spec: of all entries; None until the first one decides it.
        rows: the memory; None until it is first needed.
        used: number of rows in use or freed; the rows behind were never used.
        tables: ``[entries, T_max + 1]``: the row of each token; the last column is ``ZERO_PAGE`` everywhere.
        sizes: tokens of each entry.
        origins: of each entry, the positions at which its tokens were computed.
        shifts: corrections; None where none are needed (rotary positions).
    """

    def __init__(self, spec: EntrySpec | None = None) -> None:
        self.spec = spec
        self.rows: Tensor | None = None
        self.used = NULL_PAGES
        self.tables = np.zeros((0, 0), dtype=np.int64)
        self.sizes = [0]
        self.origins = [NO_TOKENS]
        self.shifts: PositionShifts | None = None
        self._reserved_tokens = 0
        self._reserved_entries = 0
        self._staging: Staging | None = None  # the spec decides the device

    def register(self, entries: int) -> int:
        """Add that many entries and return the number of the first."""
        first = len(self.sizes)
        self.sizes += [0] * entries
        self.origins += [NO_TOKENS] * entries
        return first

    def reserve(self, tokens: int = 0, entries: int = 0) -> None:
        """Allocate that many more tokens and whole entries at the start; no effect once memory is allocated."""
        self._reserved_tokens += tokens
        self._reserved_entries += entries

    @property
    def decided(self) -> EntrySpec:
        """The spec, once it is known."""
        assert self.spec is not None, "the first entry decides the spec"
        return self.spec

    @property
    def longest(self) -> int:
        """Most tokens of an entry, T_max."""
        assert self.spec is not None, "the first entry decides the spec"
        return self.spec.shape[3]

    def take(self, count: int) -> int:
        """The first of ``count`` consecutive rows that were never used before."""
        first, used = self.used, self.used + count
        if self.rows is None or used > self.rows.shape[0]:
            self._grow(used)
        self.used = used
        return first

    def _grow(self, needed: int) -> None:
        old, spec = self.rows, self.decided
        if old is None:
            wanted = NULL_PAGES + self._reserved_tokens + self._reserved_entries * self.longest
        else:
            wanted = old.shape[0] + old.shape[0] // _GROWTH
        self.rows = large_memory((max(needed, wanted), self.width), spec.device, spec.dtype)
        if old is None:
            self.rows[:NULL_PAGES].zero_()
        else:
            self.rows[: old.shape[0]].copy_(old)

    def reset(self) -> None:
        """Empty all entries, whatever state an interrupted change has left. The memory is kept."""
        self.used = NULL_PAGES
        if self.rows is not None:
            self.rows[:NULL_PAGES].zero_()
        self.tables = np.zeros_like(self.tables)
        self.sizes = [0] * len(self.sizes)
        self.origins = [NO_TOKENS] * len(self.sizes)

    # Entries.

    @abstractmethod
    def inherit(
        self, parents: Sequence[int], first: Sequence[int], counts: Sequence[int]
    ) -> tuple[np.ndarray, list[int]]:
        """Find the rows that new entries share with the entries they grew from.

        Args:
            parents: the entries ``[n]`` that were looked up; ``NULL_ENTRY`` for a context that was not.
            first: the first kept token of each context.
            counts: number of kept tokens of each context.

        Returns:
            tables ``[n, T_max + 1]`` of the shared rows, which are held until ``write`` or ``release_inherited`` is
            called with them; and the number of new tokens behind those.
        """

    def release_inherited(self, tables: np.ndarray) -> None:  # noqa: B027 - nothing is held where nothing is shared
        """Release the rows that ``inherit`` holds for these tables ``[n, T_max + 1]``."""

    @abstractmethod
    def write(
        self, entries: Sequence[int], tables: np.ndarray, new: list[int], origins: Sequence[Origins]
    ) -> np.ndarray:
        """Make entries of inherited rows and new tokens behind them. Their former rows are released.

        Args:
            entries: to be written, ``[n]``, without repetition.
            tables: as returned by ``inherit``; modified.
            new: likewise.
            origins: positions at which the entries' tokens were computed.

        Returns:
            The rows ``[max(new), n]`` for the new tokens: one column per entry, the last token in the last line, and
            ``NULL_PAGE`` above the tokens of an entry with fewer.
        """

    def _note(self, entries: Sequence[int], origins: Sequence[Origins]) -> None:
        """Set the origins and sizes of entries ``[n]`` that are written."""
        for entry, each in zip(entries, origins, strict=True):
            self.origins[entry] = each
            self.sizes[entry] = len(each.positions)

    def _begin(self) -> None:
        if len(self.tables) < len(self.sizes):
            tables = np.zeros((len(self.sizes), self.longest + 1), dtype=np.int64)
            tables[: len(self.tables), : self.tables.shape[1]] = self.tables
            self.tables = tables

    def release(self, entry: int) -> None:  # noqa: B027 - an entry may keep its rows
        """Free ``entry``."""

    def set_position_shift(self, shift: Tensor | None) -> None:
        """Set the correction by which windows slide (see ``PositionShifts``). No entry may be in use."""
        self.shifts = None if shift is None else PositionShifts(shift)

    # The memory.

    @property
    def width(self) -> int:
        """Elements of a row, W."""
        layers, kinds, heads, _, head_dim = self.decided.shape
        return layers * kinds * heads * head_dim

    @property
    def row_bytes(self) -> int:
        return 0 if self.spec is None else self.width * self.spec.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return 0 if self.rows is None else self.rows.nbytes

    def index(self, rows: np.ndarray) -> Tensor:
        """Row numbers as a tensor on the memory's device, copied without synchronisation."""
        assert self.spec is not None
        if self._staging is None:
            self._staging = make_staging(self.spec.device)
        return self._staging.send(torch.from_numpy(rows))


class TokenStorage(Storage):
    """Entries of a ``TokenMemory``, which several pools may share; slot 0 is entry ``first``."""

    memory: TokenMemory

    def size(self, slot: int) -> int:
        return self.memory.sizes[self.first + slot]

    def rows_of(self, slot: int) -> np.ndarray:
        """The rows of a slot's tokens, ``[size]``; a view."""
        memory, entry = self.memory, self.first + slot
        assert len(memory.tables) > entry, f"slot {slot} is read before it was written"
        return memory.tables[entry, memory.longest - memory.sizes[entry] : memory.longest]

    def release(self, slot: int) -> None:
        self.memory.release(self.first + slot)

    def reset(self) -> None:
        self.memory.reset()

    # Row by row, for callers of the pool and for ``RowBatch``.

    def check(self, value: Any) -> None:
        check_entry(value)
        check_matches(self.memory.spec, EntrySpec(value.entry_shape, value.dtype, value.device))

    def check_row(self, row: Tensor) -> None:
        check_matches(self.memory.spec, EntrySpec.of(row))

    def write(self, slot: int, value: KeysValues) -> None:
        self.save_tokens(slot, value.block[0], 0, value.size, None)

    def read(self, slot: int) -> KeysValues:
        spec, size = self.memory.decided, self.size(slot)
        block = zeros((1, *spec.shape), spec.device, spec.dtype)
        self.load_tokens(slot, block[0], 0)
        return KeysValues.from_block(block, size)

    def save_tokens(self, slot: int, row: Tensor, first: int, count: int, shift: Tensor | None) -> None:
        if self.memory.spec is None:
            self.memory.spec = EntrySpec.of(row)
        tables, new = self.memory.inherit([NULL_ENTRY], [0], [count])
        targets = self.memory.write([self.first + slot], tables, new, [NO_TOKENS.grown(0, count, count)])
        tokens = row.detach().narrow(3, first, count)
        if shift is not None:
            tokens = tokens + shift.detach()
        if count:
            pool = self.memory.rows
            assert pool is not None
            tokens = tokens.movedim(3, 0).to(pool.dtype)
            pool.view(-1, *tokens.shape[1:]).index_copy_(0, self.memory.index(targets[:, 0]), tokens)

    def load_tokens(self, slot: int, row: Tensor, first: int) -> None:
        spec, size = self.memory.spec, self.size(slot)
        if EntrySpec.of(row) != spec:  # a copy would broadcast
            raise ValueError(f"an entry of {spec} does not fit a batch of {EntrySpec.of(row)}")
        if size:
            row.narrow(3, first, size).copy_(self._tokens(slot))

    def _tokens(self, slot: int) -> Tensor:
        """A slot's tokens, corrected, ``[L, 2, H, size, D]``."""
        memory, rows = self.memory, np.ascontiguousarray(self.rows_of(slot))
        assert memory.rows is not None
        layers, kinds, heads, _, head_dim = memory.decided.shape
        tokens = memory.rows.index_select(0, memory.index(rows))
        moves = None if memory.shifts is None else memory.shifts.moves(memory.origins[self.first + slot])
        if moves is not None:
            assert memory.shifts is not None
            tokens += memory.shifts.rows.index_select(0, memory.index(moves[:, 0]))
        return tokens.view(len(rows), layers, kinds, heads, head_dim).movedim(0, 3)
