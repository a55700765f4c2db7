"""Batches over token memory: one gather for all rows and layers, one scatter back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from kvcache.batch.base import Batch, Found, Row
from kvcache.geometry import Geometry
from kvcache.kernels import NULL_PAGE, ZERO_PAGE, Kernels
from kvcache.keys_values import Journal, KeysValues, zeros
from kvcache.pool import KVCachePool
from kvcache.storage import EntrySpec, TokenMemory
from kvcache.storage.tokens import NULL_ENTRY

__all__ = ["TokenBatch"]

_UNKNOWN = -1
_VIEWS = ("_batches", "_buffer", "_viewed", "_journal")
_FEW_MORE = 2  # moving a token by way of the scratch memory takes as long as moving two


def _entries(rows: Sequence[Row]) -> list[int]:
    """The entries in which rows were found; ``NULL_ENTRY`` for those that were not."""
    return [row.pool.storage.first + row.slot if type(row) is Found else NULL_ENTRY for row in rows]  # type: ignore[attr-defined]


class TokenBatch(Batch):
    """Token-major batches ``[T, B, L, 2, H, D]``, of which the batch cache is a view; their addresses stay.

    Rows are aligned to the longest by zeros in front.

    Args:
        geometry: shapes; its number of environments is the size of the first batch.
        memory: of all pools that rows are found in and stored to.
        like: what an entry of this geometry looks like.
        kernels: that suit the memory's device.
    """

    def __init__(self, geometry: Geometry, memory: TokenMemory, like: EntrySpec, kernels: Kernels) -> None:
        super().__init__(geometry)
        self._memory = memory
        self._like = like
        self._kernels = kernels
        self._width = 2 * geometry.num_layers * geometry.embed_dim
        self._tokens = geometry.context_length
        self._windows = [geometry.window(size) for size in range(self._tokens + 1)]
        self._batches: dict[int, tuple[KeysValues, Tensor, Tensor, Journal]] = {}
        self._flat = self._allocate(geometry.env_num)  # [T x B, W] of the largest batch
        self._buffer = self._flat  # [T, B, W] of the batch in use
        self.begin(geometry.env_num)

    def set_position_shift(self, shift: Tensor | None) -> None:
        super().set_position_shift(shift)
        self._memory.set_position_shift(shift)

    def _allocate(self, rows: int) -> Tensor:
        return zeros((rows * self._tokens, self._width), self._like.device, self._like.dtype)

    def begin(self, rows: int) -> None:
        tokens = self._tokens
        if rows * tokens > self._flat.shape[0]:
            self._flat = self._allocate(rows)
            self._batches.clear()
        known = self._batches.get(rows)
        if known is None or not known[0].is_view_of(known[2]):
            buffer = self._flat[: rows * tokens].view(tokens, rows, self._width)
            block, journal = self._block(buffer), Journal()
            known = self._batches[rows] = KeysValues.from_block(block, journal=journal), buffer, block, journal
        self.keys_values, self._buffer, self._viewed, self._journal = known

    def __getstate__(self) -> dict[str, Any]:
        """For copies: without the views of its memory, which would be no views of the copy's."""
        self._take_in()
        return {name: value for name, value in self.__dict__.items() if name not in _VIEWS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        before, self._batches, self._buffer = self.keys_values, {}, self._flat
        self.begin(before.num_samples)
        self.keys_values.size = before.size

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

    def _index(self, entries: Sequence[int], sizes: Sequence[int], longest: int) -> np.ndarray:
        """By which rows the batch is gathered, ``[longest, B]``."""
        tables = self._memory.tables.take(entries, 0)
        return np.ascontiguousarray(tables[:, self._tokens - longest : self._tokens].T)

    # Assembling.

    def assemble(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        memory, longest = self._memory, max(sizes)
        if memory.rows is not None and memory.like != self._like:  # a copy would broadcast
            raise ValueError(f"an entry of {memory.like} does not fit a batch of {self._like}")
        if longest:
            if memory.rows is None:
                self._buffer[:longest].zero_()
            else:
                self._fill(_entries(rows), sizes, longest)
            for row, supplied in enumerate(rows):
                if isinstance(supplied, KeysValues):
                    self._supply(row, supplied, self.start(sizes[row], longest))
        self.keys_values.size = longest
        self._journal.clear()

    def _fill(self, entries: Sequence[int], sizes: Sequence[int], longest: int) -> None:
        """Gather ``entries``, ``NULL_ENTRY`` for rows that were not found, into the batch."""
        index = self._index(entries, sizes, longest)
        self._gather(index, self._moves(entries, longest), self._buffer[:longest])

    def _moves(self, entries: Sequence[int], longest: int) -> np.ndarray | None:
        """Which corrections the batch's tokens need: ``[t, B]``, or ``[t, 1]`` where all rows are alike; or none."""
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

    def _gather(self, index: np.ndarray, moves: np.ndarray | None, out: Tensor) -> None:
        memory = self._memory
        assert memory.rows is not None
        if moves is None:
            self._kernels.gather(memory.rows, memory.index(index), out)
        else:
            assert memory.shifts is not None
            self._kernels.gather(memory.rows, memory.index(index), out, memory.shifts.rows, memory.index(moves))

    def _supply(self, row: int, supplied: KeysValues, start: int) -> None:
        """Copy in what the model made for a row that missed."""
        size = supplied.size
        self._viewed[row].narrow(3, start, size).copy_(supplied.block[0].detach().narrow(3, 0, size))

    # Storing.

    def store(
        self,
        rows: Sequence[Row],
        sizes: Sequence[int],
        pools: Sequence[KVCachePool],
        keys: Sequence[Any],
        priorities: Sequence[float | None],
    ) -> None:
        memory = self._memory
        self._take_in()
        if memory.like is None:
            pools[0].storage.decide(self._like)  # type: ignore[attr-defined]
        elif memory.like != self._like:
            raise ValueError(f"this pool holds entries of {memory.like}; got {self._like}")
        longest, end = max(sizes), self.keys_values.size
        appended = end - longest
        windows = [self._windows[size + appended] for size in sizes]
        first, counts = [window[0] for window in windows], [window[1] for window in windows]
        parents = [self._parent(row, pool) for row, pool in zip(rows, pools, strict=True)]
        tables, new = memory.inherit(parents, first, counts)
        origins = [
            memory.origins[parent].grown(at, at + count, added)
            for parent, at, count, added in zip(parents, first, counts, new, strict=True)
        ]
        claimed: list[int] = []
        standing: Sequence[int] = range(len(rows))
        limited = any(pool.storage.is_limited for pool in pools)
        owed = tables.copy() if limited else tables
        try:
            for pool, priority in zip(pools, priorities, strict=True):
                pool.check_priority(priority)
            if limited:
                self._make_room_and_claim(pools, keys, priorities, owed, new, claimed)
            else:
                claimed += [pool.claim(*each) for pool, *each in zip(pools, keys, priorities, strict=True)]
            entries = [pool.storage.first + slot for pool, slot in zip(pools, claimed, strict=True)]  # type: ignore[attr-defined]
            last = dict(zip(entries, standing, strict=True))
            if limited or len(last) < len(rows):
                # A later row may have taken the slot, by an eviction or with the same key.
                standing = [row for row in sorted(last.values()) if pools[row].owns(keys[row], claimed[row])]
                memory.release_inherited(np.delete(owed, standing, axis=0))
                owed = tables = tables[standing]
                entries, first, counts, new = (
                    [each[row] for row in standing] for each in (entries, first, counts, new)
                )
                origins = [origins[row] for row in standing]
            targets = memory.write(entries, tables, new, origins)
            owed = tables[:0]
            if len(targets):
                in_line = len(standing) == len(rows) and all(
                    at + count == size + appended for at, count, size in zip(first, counts, sizes, strict=True)
                )
                if not in_line or not self._stand_together(max(new), appended):
                    targets = self._placed(targets, standing, sizes, first, counts, new, longest, end)
                assert memory.rows is not None
                written = self._buffer[end - len(targets) : end]
                self._kernels.scatter(memory.rows, memory.index(targets), written)
        except BaseException:
            memory.release_inherited(owed)
            for pool, key in zip(pools, keys[: len(claimed)], strict=False):
                if key in pool:
                    pool.release(key)
            raise

    def _parent(self, row: Row, pool: KVCachePool) -> int:
        """The entry that a row's new one in ``pool`` will share rows with; ``NULL_ENTRY`` where it cannot."""
        if type(row) is not Found or not row.is_current or self._journal.dropped:
            return NULL_ENTRY
        storage: Any = row.pool.storage
        if storage.is_limited and row.pool is not pool:
            return NULL_ENTRY
        return storage.first + row.slot  # type: ignore[no-any-return]

    def _make_room_and_claim(
        self,
        pools: Sequence[KVCachePool],
        keys: Sequence[Any],
        priorities: Sequence[float | None],
        owed: np.ndarray,
        new: Sequence[int],
        claimed: list[int],
    ) -> None:
        """Claim a slot for each row where bytes are limited: entries give way, earlier rows of the batch among them.

        Args:
            pools: where each row goes.
            keys: under which.
            priorities: as in ``KVCachePool.set``.
            owed: tables of what the rows inherit, ``[n, T_max + 1]``; of rows that gave way they are cleared.
            new: tokens that each row needs besides.
            claimed: the slots, appended one by one.
        """
        lost: set[int] = set()
        for row, (pool, key, priority) in enumerate(zip(pools, keys, priorities, strict=True)):
            pool.free_memory(key)
            while pool.evict_for(sum(new[each] for each in range(row + 1) if pools[each] is pool and each not in lost)):
                for earlier in range(row):
                    if earlier not in lost and not pools[earlier].owns(keys[earlier], claimed[earlier]):
                        lost.add(earlier)
                        self._memory.release_inherited(owed[earlier : earlier + 1])
                        owed[earlier] = ZERO_PAGE
            claimed.append(pool.claim(key, priority))

    def _stand_together(self, new: int, appended: int) -> bool:
        """Whether a row's last ``new`` tokens stand side by side in the batch, where ``appended`` were appended."""
        return True

    def _placed(
        self,
        targets: np.ndarray,
        rows: Sequence[int],
        sizes: Sequence[int],
        first: Sequence[int],
        counts: Sequence[int],
        new: Sequence[int],
        longest: int,
        end: int,
    ) -> np.ndarray:
        """Which of the memory's rows each of the batch's last positions up to ``end`` goes to, ``[t, B]``.

        Args:
            targets: where the new tokens of the stored rows go, ``[most, n]`` (see ``TokenMemory.write``).
            rows: those that are stored.
            sizes: of all rows, before anything was appended.
            first: of the stored rows, the first token that is stored.
            counts: how many are.
            new: how many of these are written.
            longest: of all rows.
            end: where what was appended ends.
        """
        index = np.full((end, len(sizes)), NULL_PAGE, dtype=np.int64)
        lowest = end
        for column, (row, at, count, written) in enumerate(zip(rows, first, counts, new, strict=True)):
            taken = len(targets) - written
            for place, length in self._places(sizes[row], longest, at + count - written, written):
                index[place : place + length, row] = targets[taken : taken + length, column]
                taken += length
                if length and place < lowest:
                    lowest = place
        return index[lowest:]

    def _take_in(self) -> None:
        """Where somebody has put other tensors into the batch cache, copy what they hold to where it belongs."""
        if not self.keys_values.is_view_of(self._viewed):
            given = self.keys_values.block.detach()
            if given.shape != self._viewed.shape:
                raise ValueError(f"a batch of {self._viewed.shape[0]} rows was assembled, it has {given.shape[0]} now")
            self._viewed.copy_(given)

    @property
    def shared_bytes(self) -> int:
        return self._memory.nbytes

    @property
    def nbytes(self) -> int:
        shifts = self._memory.shifts
        return self._flat.nbytes + self._kernels.nbytes + (0 if shifts is None else shifts.nbytes)
