"""Batches over token memory: one gather for all rows and layers, one scatter back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from kvcache.batch.admission import Admission, NewEntries
from kvcache.batch.base import Batch, Destinations, Found, Row
from kvcache.geometry import Geometry
from kvcache.kernels import NULL_PAGE, Correction, Kernels
from kvcache.keys_values import KeysValues
from kvcache.pool import KVCachePool
from kvcache.storage import EntrySpec, TokenMemory
from kvcache.storage.base import check_matches
from kvcache.storage.tokens import NULL_ENTRY

__all__ = ["TokenBatch"]


def _entries(rows: Sequence[Row]) -> list[int]:
    """The entries in which rows were found; ``NULL_ENTRY`` for those that were not."""
    return [row.pool.storage.first + row.slot if type(row) is Found else NULL_ENTRY for row in rows]


class TokenBatch(Batch):
    """Batches whose rows end at one position; zeros fill up the shorter ones in front.

    Args:
        geometry: shapes; its number of environments is the size of the first batch.
        memory: of all pools that rows are found in and stored to.
        spec: of an entry of this geometry.
        kernels: for the memory's device.
        exact: whether a token's position is corrected slide by slide, each sum rounded, as LightZero does.
    """

    def __init__(
        self, geometry: Geometry, memory: TokenMemory, spec: EntrySpec, kernels: Kernels, exact: bool = False
    ) -> None:
        super().__init__(geometry, spec)
        self._memory = memory
        self._spec = spec
        self._kernels = kernels
        self._exact = exact
        self._tokens = geometry.context_length
        self._windows = [geometry.window(size) for size in range(self._tokens + 1)]
        self.begin(geometry.env_num)

    def set_position_shift(self, shift: Tensor | None) -> bool:
        changes = super().set_position_shift(shift)
        if changes:
            self._memory.set_position_shift(shift)
        return changes

    def __getstate__(self) -> dict[str, Any]:
        self._adopt_given_tensors()
        return super().__getstate__()

    # Where a row's tokens are.

    def _places(self, size: int, longest: int, first: int, count: int) -> list[tuple[int, int]]:
        """Where in the batch ``count`` tokens of a row are, from ``first`` on: the place and length of each run."""
        return [(longest - size + first, count)]

    def _index(self, entries: Sequence[int], sizes: Sequence[int], longest: int) -> np.ndarray:
        """The memory's row for each position of the batch, ``[longest, B]``."""
        tables = self._memory.tables.take(entries, 0)
        return np.ascontiguousarray(tables[:, self._tokens - longest : self._tokens].T)

    # Assembling.

    def assemble(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        memory, longest = self._memory, max(sizes)
        if memory.rows is not None and memory.spec != self._spec:  # a copy would broadcast
            raise ValueError(f"an entry of {memory.spec} does not fit a batch of {self._spec}")
        if longest:
            if memory.rows is None:
                self._view.heads[..., :longest, :].zero_()
            else:
                self._fill(_entries(rows), sizes, longest)
            for row, supplied in enumerate(rows):
                if isinstance(supplied, KeysValues):
                    self._supply(row, supplied, self.start(sizes[row], longest))
        self.keys_values.resize(longest)
        self._view.journal.clear()

    def _fill(self, entries: Sequence[int], sizes: Sequence[int], longest: int) -> None:
        """Gather ``entries``, ``NULL_ENTRY`` for rows that were not found, into the batch."""
        pool, index = self._memory.rows, self._index(entries, sizes, longest)
        assert pool is not None
        correction = self._correction(self._moves(entries, longest))
        self._kernels.gather(pool, self._memory.index(index), self._view.heads, 0, correction)

    def _moves(self, entries: Sequence[int], longest: int) -> np.ndarray | None:
        """The correction of each token: ``[t, B]``, or ``[t, 1]`` where all rows have the same; None where none has."""
        shifts = self._memory.shifts
        if shifts is None:
            return None
        origins = [self._memory.origins[entry] for entry in entries]
        if origins.count(origins[0]) == len(origins):
            return shifts.moves(origins[0])
        moves = None
        for row, each in enumerate(origins):
            needed = shifts.moves(each)
            if needed is not None:
                if moves is None:
                    moves = np.zeros((longest, len(entries)), dtype=np.int64)
                start = self.start(len(needed), longest)
                moves[start : start + len(needed), row] = needed[:, 0]
        return moves

    def _correction(self, moves: np.ndarray | None) -> Correction | None:
        """What is added to tokens, given the result of ``_moves``."""
        if moves is None:
            return None
        assert self._memory.shifts is not None
        return Correction(self._memory.shifts.rows, self._memory.index(moves))

    def _supply(self, row: int, supplied: KeysValues, start: int) -> None:
        """Copy in the context that the model made for a row that missed."""
        size = supplied.size
        self._view.block[row].narrow(3, start, size).copy_(supplied.block[0].detach().narrow(3, 0, size))

    # Storing.

    def check(self, sizes: Sequence[int], pools: Sequence[KVCachePool]) -> None:
        super().check(sizes, pools)
        self._adopt_given_tensors()
        if self._memory.spec is not self._spec:
            check_matches(self._memory.spec, self._spec)

    def store(self, rows: Sequence[Row], sizes: Sequence[int], to: Destinations) -> None:
        if self._memory.spec is None:  # the first entry decides the spec of all
            self._memory.spec = self._spec
        entries = Admission(self._memory, to).admit(self._new_entries(rows, sizes, to.pools))
        targets = self._memory.write(entries.numbers, entries.tables, entries.new, entries.origins)
        if len(targets):
            self._scatter(targets, entries, sizes)

    def _new_entries(self, rows: Sequence[Row], sizes: Sequence[int], pools: Sequence[KVCachePool]) -> NewEntries:
        """The entries to be stored, and the tokens that they share with the ones they grew from."""
        memory = self._memory
        appended = self.keys_values.size - max(sizes)
        windows = [self._windows[size + appended] for size in sizes]
        first, counts = [window[0] for window in windows], [window[1] for window in windows]
        if self._view.journal.dropped:
            parents = [NULL_ENTRY] * len(rows)
        else:
            parents = [self._parent(row, pool) for row, pool in zip(rows, pools, strict=True)]
        tables, new = memory.inherit(parents, first, counts)
        origins = [
            memory.origins[parent].grown(at, at + count, added)
            for parent, at, count, added in zip(parents, first, counts, new, strict=True)
        ]
        return NewEntries(range(len(rows)), first, counts, new, tables, origins)

    def _parent(self, row: Row, pool: KVCachePool) -> int:
        """The entry that a row's new one in ``pool`` will share pages with; ``NULL_ENTRY`` where it cannot."""
        if type(row) is not Found or not row.is_current:
            return NULL_ENTRY
        storage, shifts = row.pool.storage, self._memory.shifts
        if storage.is_limited and row.pool is not pool:
            return NULL_ENTRY
        entry: int = storage.first + row.slot
        # Tokens that were corrected when they were read are written again: the next correction is added to their sum.
        if self._exact and shifts is not None and shifts.moves(self._memory.origins[entry]) is not None:
            return NULL_ENTRY
        return entry

    def _scatter(self, targets: np.ndarray, entries: NewEntries, sizes: Sequence[int]) -> None:
        """Write the new tokens of entries to the memory's rows ``targets`` (see ``TokenMemory.write``)."""
        memory, end = self._memory, self.keys_values.size
        appended = end - max(sizes)
        stored = sizes if len(entries.rows) == len(sizes) else [sizes[row] for row in entries.rows]
        # Mostly each row's new tokens are the batch's last positions: then ``targets`` is the index already.
        at_the_end = all(
            at + count == size + appended for at, count, size in zip(entries.first, entries.counts, stored, strict=True)
        )
        if not at_the_end or not self._is_consecutive(max(entries.new), appended):
            targets = self._targets_by_position(targets, entries, sizes)
        elif stored is not sizes:
            index = np.full((len(targets), len(sizes)), NULL_PAGE, dtype=np.int64)
            index[:, entries.rows] = targets
            targets = index
        assert memory.rows is not None
        self._kernels.scatter(memory.rows, memory.index(targets), self._view.heads, end - len(targets))

    def _is_consecutive(self, new: int, appended: int) -> bool:
        """Whether a row's last ``new`` tokens are consecutive in the batch, where ``appended`` were appended."""
        return True

    def _targets_by_position(self, targets: np.ndarray, entries: NewEntries, sizes: Sequence[int]) -> np.ndarray:
        """The memory's row for each of the batch's last positions, ``[t, B]``.

        Args:
            targets: the memory's rows for new tokens, ``[most, n]`` (see ``TokenMemory.write``).
            entries: the stored ones.
            sizes: of all rows, before anything was appended.
        """
        end, longest = self.keys_values.size, max(sizes)
        index = np.full((end, len(sizes)), NULL_PAGE, dtype=np.int64)
        lowest = end
        columns = zip(entries.rows, entries.first, entries.counts, entries.new, strict=True)
        for column, (row, at, count, written) in enumerate(columns):
            taken = len(targets) - written
            for place, length in self._places(sizes[row], longest, at + count - written, written):
                index[place : place + length, row] = targets[taken : taken + length, column]
                taken += length
                if length and place < lowest:
                    lowest = place
        return index[lowest:]

    def _adopt_given_tensors(self) -> None:
        """Copy in the content of tensors that a caller has put into the batch cache."""
        if not self.keys_values.is_view_of(self._view.block):
            given = self.keys_values.block.detach()
            if given.shape != self._view.block.shape:
                raise ValueError(
                    f"a batch of {self._view.block.shape[0]} rows was assembled, it has {given.shape[0]} now"
                )
            self._view.block.copy_(given)

    @property
    def shared_bytes(self) -> int:
        return self._memory.nbytes

    @property
    def nbytes(self) -> int:
        shifts = self._memory.shifts
        return self._buffer.nbytes + self._kernels.nbytes + (0 if shifts is None else shifts.nbytes)
