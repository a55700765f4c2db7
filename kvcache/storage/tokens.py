"""Memory of single tokens: one tensor in which a row is one token of all layers, and entries that are lists of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvcache.kernels import NULL_PAGE, ZERO_PAGE
from kvcache.keys_values import KeysValues, memory, zeros
from kvcache.storage.base import EntrySpec, Storage, check_entry, check_matches
from kvcache.storage.positions import NO_TOKENS, Origins, PositionShifts

__all__ = ["NULL_ENTRY", "NULL_PAGES", "TokenMemory", "TokenStorage"]

NULL_ENTRY = 0  # the entry of no slot: empty for ever
NULL_PAGES = max(ZERO_PAGE, NULL_PAGE) + 1
_GROWTH = 4  # a quarter more each time: what is copied, all in all, stays a few times what is held


class TokenMemory(ABC):
    """Rows ``[N, W]``, W = L x 2 x H x D, in one tensor, and the tables of the entries that are made of them.

    Entries are numbered through all the pools that share the memory. A table ends with its entry's last token and has
    ``ZERO_PAGE`` in front of the first one. So the tables of some entries, side by side, are the index by which a batch
    of them is gathered, padding included. The memory grows and never shrinks.

    Tokens are kept as they stood in the batch that they were stored from. Where one stands elsewhere by now, because
    its window slid, it is corrected when it is read.

    Attributes:
        spec: of all entries; None until the first one decides.
        rows: the memory, allocated when it is first needed.
        used: rows handed out so far; those behind are untouched.
        tables: ``[entries, T_max + 1]``: which row each token is; the last column is ``ZERO_PAGE`` everywhere.
        sizes: tokens of each entry.
        origins: of each entry, where its tokens were computed.
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

    def register(self, entries: int) -> int:
        """The number of the first of that many entries more."""
        first = len(self.sizes)
        self.sizes += [0] * entries
        self.origins += [NO_TOKENS] * entries
        return first

    def reserve(self, tokens: int = 0, entries: int = 0) -> None:
        """Let there be room for these tokens and whole entries more from the beginning on, unless it is over."""
        self._reserved_tokens += tokens
        self._reserved_entries += entries

    @property
    def longest(self) -> int:
        """Most tokens of an entry, T_max."""
        assert self.spec is not None, "the first entry decides what rows look like"
        return self.spec.shape[3]

    def take(self, count: int) -> int:
        """The first of ``count`` rows in a line that nobody had before."""
        first, used = self.used, self.used + count
        if self.rows is None or used > self.rows.shape[0]:
            self._grow(used)
        self.used = used
        return first

    def _grow(self, needed: int) -> None:
        old, size = self.rows, needed
        if old is None:
            reserved = NULL_PAGES + self._reserved_tokens + self._reserved_entries * self.longest
            size = max(size, reserved)
        else:
            size = max(size, old.shape[0] + old.shape[0] // _GROWTH)
        assert self.spec is not None
        self.rows = memory((size, self.width), self.spec.device, self.spec.dtype)
        if old is None:
            self.rows[:NULL_PAGES].zero_()
        else:
            self.rows[: old.shape[0]].copy_(old)

    # Entries.

    @abstractmethod
    def inherit(
        self, parents: Sequence[int], first: Sequence[int], counts: Sequence[int]
    ) -> tuple[np.ndarray, list[int]]:
        """What new entries have in common with those that they grew from.

        Args:
            parents: the entries ``[n]`` that were looked up; ``NULL_ENTRY`` for a context that was not.
            first: the first token of each context that is kept.
            counts: how many tokens are.

        Returns:
            tables ``[n, T_max + 1]`` of the rows in common, which stay as they are until ``write`` or
            ``release_inherited`` is called with them; and how many tokens behind those are new.
        """

    def release_inherited(self, tables: np.ndarray) -> None:  # noqa: B027 - nothing is held where nothing is in common
        """The new entries of these tables ``[n, T_max + 1]`` will not be written after all."""

    @abstractmethod
    def write(
        self, entries: Sequence[int], tables: np.ndarray, new: list[int], origins: Sequence[Origins]
    ) -> np.ndarray:
        """Make entries of inherited rows and of new tokens behind them; what they held before is let go.

        Args:
            entries: to be written, ``[n]``, none of them twice.
            tables: what ``inherit`` returned; taken over.
            new: likewise.
            origins: where the entries' tokens were computed.

        Returns:
            The rows ``[most, n]`` to write the new tokens to, ``most`` being ``max(new)``: each entry's last ones, the
            last in the last line. ``NULL_PAGE`` stands above those of an entry that has fewer.
        """

    def _note(self, entries: Sequence[int], origins: Sequence[Origins]) -> None:
        """These entries ``[n]`` are written: of tokens that were computed there."""
        for entry, each in zip(entries, origins, strict=True):
            self.origins[entry] = each
            self.sizes[entry] = len(each.positions)

    def _begin(self) -> None:
        if len(self.tables) < len(self.sizes):
            tables = np.zeros((len(self.sizes), self.longest + 1), dtype=np.int64)
            tables[: len(self.tables), : self.tables.shape[1]] = self.tables
            self.tables = tables

    def release(self, entry: int) -> None:  # noqa: B027 - most memory keeps an entry's rows for its next content
        """``entry`` is not in use any more."""

    def set_position_shift(self, shift: Tensor | None) -> None:
        """From now on windows slide by this correction (see ``PositionShifts``). No entry is in use."""
        self.shifts = None if shift is None else PositionShifts(shift)

    # The memory.

    @property
    def width(self) -> int:
        """Elements of a row, W."""
        assert self.spec is not None
        layers, kinds, heads, _, head_dim = self.spec.shape
        return layers * kinds * heads * head_dim

    @property
    def row_bytes(self) -> int:
        return 0 if self.spec is None else self.width * self.spec.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return 0 if self.rows is None else self.rows.nbytes

    def index(self, rows: np.ndarray) -> Tensor:
        """Row numbers on the memory's device, handed over without waiting for it."""
        assert self.spec is not None
        index = torch.from_numpy(rows)
        if self.spec.device.type == "cpu":
            return index
        return index.pin_memory().to(self.spec.device, non_blocking=True)


class TokenStorage(Storage):
    """Entries of a ``TokenMemory``, which several pools may share.

    Attributes:
        memory: where their tokens are.
        first: the number of slot 0's entry.
    """

    memory: TokenMemory
    first: int

    def size(self, slot: int) -> int:
        return self.memory.sizes[self.first + slot]

    def rows_of(self, slot: int) -> np.ndarray:
        """The rows of a slot's tokens, ``[size]``: a view."""
        memory, entry = self.memory, self.first + slot
        assert len(memory.tables) > entry, f"slot {slot} is read before it was written"
        return memory.tables[entry, memory.longest - memory.sizes[entry] : memory.longest]

    def decide(self, spec: EntrySpec) -> None:
        """The first entry, where none was promised: all others are like it."""
        self.memory.spec = spec

    def release(self, slot: int) -> None:
        self.memory.release(self.first + slot)

    # Row by row, for callers of the pool, and for batches that are not made of token memory.

    def check(self, value: Any) -> None:
        check_entry(value)
        check_matches(self.memory.spec, EntrySpec(value.entry_shape, value.dtype, value.device))

    def check_row(self, row: Tensor) -> None:
        check_matches(self.memory.spec, EntrySpec.of(row))

    def write(self, slot: int, value: KeysValues) -> None:
        self.save_tokens(slot, value.block[0], 0, value.size, None)

    def read(self, slot: int) -> KeysValues:
        spec, size = self.memory.spec, self.size(slot)
        assert spec is not None
        block = zeros((1, *spec.shape), spec.device, spec.dtype)
        self.load_tokens(slot, block[0], 0)
        return KeysValues.from_block(block, size)

    def save_tokens(self, slot: int, row: Tensor, first: int, count: int, shift: Tensor | None) -> None:
        if self.memory.spec is None:
            self.decide(EntrySpec.of(row))
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
        """A slot's tokens as they are to be read, ``[L, 2, H, size, D]``."""
        memory, rows = self.memory, np.ascontiguousarray(self.rows_of(slot))
        assert memory.spec is not None
        assert memory.rows is not None
        layers, kinds, heads, _, head_dim = memory.spec.shape
        tokens = memory.rows.index_select(0, memory.index(rows))
        moves = None if memory.shifts is None else memory.shifts.moves(memory.origins[self.first + slot])
        if moves is not None:
            assert memory.shifts is not None
            tokens += memory.shifts.rows.index_select(0, memory.index(moves[:, 0]))
        return tokens.view(len(rows), layers, kinds, heads, head_dim).movedim(0, 3)
