"""Batches over token memory: one gather for all rows and layers, one scatter back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from kvcache.batch import Batch, Found, Row
from kvcache.geometry import Geometry
from kvcache.kernels import TRASH, Kernels, copy_rows
from kvcache.keys_values import Journal, KeysValues, memory, zeros
from kvcache.pool import KVCachePool
from kvcache.storage import Pages, TokenMemory
from kvcache.storage.base import EntryLike
from kvcache.storage.positions import NO_TOKENS, Origins, PositionShifts
from kvcache.storage.tokens import NO_ROWS

__all__ = ["ResidentBatch", "TokenBatch"]

_UNKNOWN = -1


class TokenBatch(Batch):
    """Token-major batches ``[T, B, L, 2, H, D]``, of which the batch cache is a view; their addresses stay.

    Rows are aligned to the longest by zeros in front.

    Args:
        geometry: shapes; its number of environments is the size of the first batch.
        memory: of all pools that rows are found in and stored to.
        like: what an entry of this geometry looks like.
        kernels: that suit the memory's device.
    """

    def __init__(self, geometry: Geometry, memory: TokenMemory, like: EntryLike, kernels: Kernels) -> None:
        super().__init__(geometry)
        self._memory = memory
        self._like = like
        self._kernels = kernels
        self._width = 2 * geometry.num_layers * geometry.embed_dim
        self._windows = [geometry.window(size) for size in range(geometry.context_length + 1)]
        self._positions = np.arange(geometry.context_length)
        self._journal = Journal()
        self._batches: dict[int, tuple[KeysValues, Tensor]] = {}
        self._flat = self._allocate(geometry.env_num)  # [T x B, W] of the largest batch
        self._buffer = self._flat  # [T, B, W] of the batch in use
        self.begin(geometry.env_num)

    def set_position_shift(self, shift: Tensor | None) -> None:
        super().set_position_shift(shift)
        self._memory.shifts = None if shift is None else PositionShifts(shift)

    def _allocate(self, rows: int) -> Tensor:
        return zeros((rows * self.geometry.context_length, self._width), self._like.device, self._like.dtype)

    def begin(self, rows: int) -> None:
        tokens = self.geometry.context_length
        if rows * tokens > self._flat.shape[0]:
            self._flat = self._allocate(rows)
            self._batches.clear()
        known = self._batches.get(rows)
        if known is None or not known[0].holds_block:
            buffer = self._flat[: rows * tokens].view(tokens, rows, self._width)
            known = self._batches[rows] = KeysValues.from_block(self._block(buffer), journal=self._journal), buffer
        self.keys_values, self._buffer = known

    def _block(self, buffer: Tensor) -> Tensor:
        """``[T, B, W]`` seen as ``[B, L, 2, H, T, D]``."""
        layers, kinds, heads, _, head_dim = self._like.shape
        return buffer.view(*buffer.shape[:2], layers, kinds, heads, head_dim).permute(1, 2, 3, 4, 0, 5)

    # Where a row's tokens are.

    def start(self, size: int, longest: int) -> int:
        return longest - size

    def _places(self, size: int, longest: int, first: int, count: int) -> list[tuple[int, int]]:
        """Where in the batch ``count`` tokens of a row are, from ``first`` on: places and lengths of stretches."""
        return [(longest - size + first, count)]

    # Assembling.

    def assemble(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        longest = max(sizes)
        if self._memory.rows is not None and self._memory.like != self._like:  # a copy would broadcast
            raise ValueError(f"an entry of {self._memory.like} does not fit a batch of {self._like}")
        if longest:
            index = np.zeros((longest, len(rows)), dtype=np.int64)  # ZERO
            for row, found in enumerate(rows):
                if type(found) is Found:
                    size = sizes[row]
                    start = self.start(size, longest)
                    index[start : start + size, row] = found.pool.storage.rows_of(found.slot)  # type: ignore[attr-defined]
            self._fill(index, rows, sizes)
            for row, supplied in enumerate(rows):
                if isinstance(supplied, KeysValues):
                    self._supply(row, supplied, self.start(sizes[row], longest))
        self.keys_values.size = longest

    def _fill(self, index: np.ndarray, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        """Make the batch's first positions hold the memory's rows ``index`` ``[t, B]``."""
        memory, buffer = self._memory, self._buffer[: len(index)]
        if memory.rows is None:
            buffer.zero_()
        elif memory.shifts is None or not memory.shares:
            self._kernels.gather(memory.rows, memory.index(index), buffer)
        else:
            moves = self._moves(rows, sizes, len(index))
            shift_index = None if moves is None else memory.index(moves)
            self._kernels.gather(memory.rows, memory.index(index), buffer, memory.shifts.rows, shift_index)

    def _moves(self, rows: Sequence[Row], sizes: Sequence[int], longest: int) -> np.ndarray | None:
        """Which corrections the batch's tokens need: ``[t, B]``, or ``[t, 1]`` where all rows are alike; or none."""
        shifts = self._memory.shifts
        assert shifts is not None
        origins = [
            row.pool.storage.origins_of(row.slot) if type(row) is Found else None  # type: ignore[attr-defined]
            for row in rows
        ]
        alike = origins[0]
        if alike is not None and all(each is alike for each in origins):
            moves = shifts.moves(alike)
            return None if moves is None else moves[:, None]
        moves = None
        for row, (each, size) in enumerate(zip(origins, sizes, strict=True)):
            needed = None if each is None else shifts.moves(each)
            if needed is not None:
                if moves is None:
                    moves = np.zeros((longest, len(rows)), dtype=np.int64)
                start = self.start(size, longest)
                moves[start : start + size, row] = needed
        return moves

    def _supply(self, row: int, supplied: KeysValues, start: int) -> None:
        """Copy in what the model made for a row that missed."""
        size = supplied.size
        self.keys_values.block[row].narrow(3, start, size).copy_(supplied.block[0].detach().narrow(3, 0, size))

    # Storing.

    def store(
        self,
        rows: Sequence[Row],
        sizes: Sequence[int],
        pools: Sequence[KVCachePool],
        keys: Sequence[Any],
        priorities: Sequence[float | None],
    ) -> None:
        self._take_in()
        if self._memory.like is None:
            pools[0].storage.decide(self._like)  # type: ignore[attr-defined]
        elif self._memory.like != self._like:
            raise ValueError(f"this pool holds entries of {self._memory.like}; got {self._like}")
        longest, appended = max(sizes), self._appended(sizes)
        windows = [self._windows[size + appended] for size in sizes]
        inherited, origins = self._inherit(rows, windows)
        new = [count - len(shared) for (_, count), shared in zip(windows, inherited, strict=True)]
        claimed: list[int] = []
        owed = inherited
        try:
            needed = dict.fromkeys(pools, 0)  # tokens of all rows so far
            for pool, key, priority, count in zip(pools, keys, priorities, new, strict=True):
                needed[pool] += count
                claimed.append(pool.claim(key, priority, needed[pool]))
            standing = self._standing(pools, keys, claimed)
            if len(standing) < len(rows):
                for row in set(range(len(rows))).difference(standing):
                    self._memory.disown(inherited[row])
                owed = inherited = [inherited[row] for row in standing]
                new = [new[row] for row in standing]
                origins = [origins[row] for row in standing]
            first = [windows[row][0] + len(shared) for row, shared in zip(standing, inherited, strict=True)]
            slots = [claimed[row] for row in standing]
            storages = [pools[row].storage for row in standing]
            targets = self._memory.write_entries(storages, slots, inherited, origins, first, new)
            owed = []
            if len(targets):
                index = self._layout(standing, sizes, longest, longest + appended, first, new, targets)
                self._scatter(index, longest + appended, standing, sizes, windows)
        except BaseException:
            for shared in owed:
                self._memory.disown(shared)
            for pool, key in zip(pools, keys[: len(claimed)], strict=False):
                if key in pool:
                    pool.release(key)
            raise

    def _inherit(
        self, rows: Sequence[Row], windows: Sequence[tuple[int, int]]
    ) -> tuple[Sequence[np.ndarray], Sequence[Origins]]:
        """What each row's entry shares with the one that the row was found in: rows, and where they were computed."""
        origins = [NO_TOKENS] * len(rows)
        if not self._memory.shares:
            return [NO_ROWS] * len(rows), origins
        parents = [NO_ROWS] * len(rows)
        for number, (row, (first, count)) in enumerate(zip(rows, windows, strict=True)):
            if type(row) is Found and row.pool.writes == row.writes:
                storage: Any = row.pool.storage
                parents[number] = storage.rows_of(row.slot)[first : first + count]
                origins[number] = storage.origins_of(row.slot).part(first, count)
        return self._memory.inherit(parents), origins

    @staticmethod
    def _standing(pools: Sequence[KVCachePool], keys: Sequence[Any], slots: Sequence[int]) -> Sequence[int]:
        """Rows whose slot no other row of the batch has taken, by an eviction or as the last one of its key."""
        last = dict(zip(zip(pools, keys, strict=True), range(len(keys)), strict=True))
        return [row for (pool, key), row in last.items() if pool.owns(key, slots[row])]

    def _layout(
        self,
        rows: Sequence[int],
        sizes: Sequence[int],
        longest: int,
        end: int,
        first: Sequence[int],
        new: Sequence[int],
        targets: np.ndarray,
    ) -> np.ndarray:
        """Which of the memory's rows each place of the batch goes to, ``[t, B]``: its last positions up to ``end``.

        Args:
            rows: those that are stored.
            sizes: of all rows.
            longest: of them.
            end: where what the model appended ends.
            first: each stored row's first token to be written.
            new: how many of them.
            targets: the memory's rows ``[sum(new)]``, row by row.
        """
        count = new[0]
        if len(rows) == len(sizes) and new.count(count) == len(new):
            alike = [(end - count, count)]
            if all(self._places(sizes[row], longest, at, count) == alike for row, at in zip(rows, first, strict=True)):
                return np.ascontiguousarray(targets.reshape(len(rows), count).T)
        index = np.full((end, len(sizes)), TRASH, dtype=np.int64)
        lowest, taken = end, 0
        for row, at, count in zip(rows, first, new, strict=True):
            for place, length in self._places(sizes[row], longest, at, count):
                index[place : place + length, row] = targets[taken : taken + length]
                taken += length
                if length and place < lowest:
                    lowest = place
        return index[lowest:]

    def _take_in(self) -> None:
        """Where somebody has put other tensors into the batch cache, copy what they hold to where it belongs."""
        if not self.keys_values.holds_block:
            self._block(self._buffer).copy_(self.keys_values.block.detach())

    def _scatter(
        self,
        index: np.ndarray,
        end: int,
        rows: Sequence[int],
        sizes: Sequence[int],
        windows: Sequence[tuple[int, int]],
    ) -> None:
        """Write the batch's last positions up to ``end`` to the memory's rows ``index`` ``[t, B]``."""
        begin = end - len(index)
        shifts = moves = None
        if self._memory.shifts is not None and not self._memory.shares:
            shifts, moves = self._slides(begin, end, rows, sizes, windows)
        assert self._memory.rows is not None
        self._kernels.scatter(self._memory.rows, self._memory.index(index), self._buffer[begin:end], shifts, moves)

    def _slides(
        self, begin: int, end: int, rows: Sequence[int], sizes: Sequence[int], windows: Sequence[tuple[int, int]]
    ) -> tuple[Tensor | None, Tensor | None]:
        """What has to be added to tokens of the batch's positions from ``begin`` to ``end``: their windows slide."""
        assert self._memory.shifts is not None
        longest, kept, steps = max(sizes), self.geometry.slid_size, self._memory.shifts.steps
        slides = [row for row in rows if windows[row][0]]
        if not slides:
            return None, None
        places = {row: self._places(sizes[row], longest, windows[row][0], kept) for row in slides}
        alike = places[slides[0]]
        if len(slides) == len(rows) and all(each == alike for each in places.values()):
            slides, columns = slides[:1], 1  # one column for all of them
        else:
            columns = len(sizes)
        moves = np.zeros((end - begin, columns), dtype=np.int64)
        for row in slides:
            done = 0
            for place, length in places[row]:
                moves[place - begin : place - begin + length, row if columns > 1 else 0] = steps[done : done + length]
                done += length
        return self._memory.shifts.rows, self._memory.index(moves)

    @property
    def shared_bytes(self) -> int:
        return self._memory.nbytes

    @property
    def nbytes(self) -> int:
        shifts = self._memory.shifts
        return self._flat.nbytes + self._kernels.nbytes + (0 if shifts is None else shifts.nbytes)


class ResidentBatch(TokenBatch):
    """A batch that stays where it is: what a row holds already is not moved again.

    Rows begin at the first position and zeros fill them up behind, so that a token stands where it stands in its
    context, however long the other rows are. From one simulation to the next the root's context is the same: only the
    tokens below the root are moved. A write into the batch other than by ``update`` is noticed (by torch's count of
    the writes to a tensor; what goes past torch is not), and everything is moved anew.

    Args:
        memory: pages, whose serial numbers tell one content from another.
    """

    _memory: Pages

    def __init__(self, geometry: Geometry, memory: Pages, like: EntryLike, kernels: Kernels) -> None:
        self._holds = np.empty((0, 0), dtype=np.int64)  # [T, B]: serial numbers of what is there
        self._version = 0
        self._scratch: Tensor | None = None
        super().__init__(geometry, memory, like, kernels)

    def set_position_shift(self, shift: Tensor | None) -> None:
        super().set_position_shift(shift)
        self._forget()

    def begin(self, rows: int) -> None:
        before = self._buffer
        super().begin(rows)
        if self._buffer is not before:
            self._forget()

    def _forget(self) -> None:
        """Nothing is known of what the batch holds."""
        self._holds = np.full(tuple(self._buffer.shape[:2]), _UNKNOWN, dtype=np.int64)

    def start(self, size: int, longest: int) -> int:
        return 0

    def _places(self, size: int, longest: int, first: int, count: int) -> list[tuple[int, int]]:
        if first >= size:  # the model appended them behind the padding
            return [(longest + first - size, count)]
        inside = min(size - first, count)
        return [(first, inside), (longest, count - inside)]

    def assemble(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        if self._flat._version != self._version + self._journal.writes:
            self._forget()
        else:
            self._holds[self._journal.lowest :] = _UNKNOWN
        super().assemble(rows, sizes)
        self._journal.clear()
        self._version = self._flat._version

    def _fill(self, index: np.ndarray, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        if self._memory.rows is None:
            super()._fill(index, rows, sizes)
            return
        held, wanted = self._holds[: len(index)], self._memory.serials[index]
        changed = np.flatnonzero(wanted != held)
        if 2 * len(changed) > index.size:
            super()._fill(index, rows, sizes)
        elif len(changed):
            self._move(index, changed, rows, sizes)
        held[:] = wanted

    def _move(self, index: np.ndarray, changed: np.ndarray, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        """Move the rows of ``index`` ``[t, B]`` at the flat places ``changed`` ``[n]``."""
        pages = self._memory
        assert pages.rows is not None
        count = len(changed)
        if self._scratch is None or len(self._scratch) < count:
            self._scratch = memory((2 * count, self._width), self._like.device, self._like.dtype)
        moved = self._scratch[:count]
        shifts = shift_index = None
        if pages.shifts is not None:
            moves = self._moves(rows, sizes, len(index))
            if moves is not None:
                moves = np.broadcast_to(moves, index.shape).reshape(-1, 1)[changed]
                shifts, shift_index = pages.shifts.rows, pages.index(moves)
        self._kernels.gather(
            pages.rows, pages.index(index.reshape(-1, 1)[changed]), moved.unsqueeze(1), shifts, shift_index
        )
        copy_rows(self._flat, pages.index(changed), moved)

    def _supply(self, row: int, supplied: KeysValues, start: int) -> None:
        super()._supply(row, supplied, start)
        self._holds[:, row] = _UNKNOWN

    @property
    def nbytes(self) -> int:
        return super().nbytes + (0 if self._scratch is None else self._scratch.nbytes)
