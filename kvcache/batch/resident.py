"""A batch over pages that stays where it is from one inference to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from kvcache.batch.base import Row
from kvcache.batch.tokens import TokenBatch
from kvcache.geometry import Geometry
from kvcache.kernels import Kernels, copy_rows
from kvcache.keys_values import KeysValues, memory
from kvcache.pool import KVCachePool
from kvcache.storage import EntrySpec, Pages

__all__ = ["ResidentBatch"]

_UNKNOWN = -1
_FEW_MORE = 2  # moving a token by way of the scratch memory takes as long as moving two


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

    def __init__(self, geometry: Geometry, memory: Pages, spec: EntrySpec, kernels: Kernels) -> None:
        self._holds = np.empty((0, 0), dtype=np.int64)  # [T, B]: serial numbers of what is there
        self._version = 0
        self._scratch: Tensor | None = None
        super().__init__(geometry, memory, spec, kernels)

    def set_position_shift(self, shift: Tensor | None) -> bool:
        changes = super().set_position_shift(shift)
        if changes:
            self._forget()
        return changes

    def begin(self, rows: int) -> None:
        before = self._buffer
        super().begin(rows)
        if self._buffer is not before:
            self._forget()

    def store(
        self,
        rows: Sequence[Row],
        sizes: Sequence[int],
        pools: Sequence[KVCachePool],
        keys: Sequence[Any],
        priorities: Sequence[float | None],
    ) -> None:
        if self._journal.dropped and min(sizes) < max(sizes):
            raise ValueError(
                f"more was appended than a context of {self._tokens} tokens has room for: what was dropped for it is "
                "not what is oldest in rows that are padded behind"
            )
        super().store(rows, sizes, pools, keys, priorities)

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
        self._version = self._flat._version

    def _is_consecutive(self, new: int, appended: int) -> bool:
        return new <= appended  # what was there before lies in front of the padding

    def _fill(self, entries: Sequence[int], sizes: Sequence[int], longest: int) -> None:
        pages, width = self._memory, len(entries)
        index = np.empty((longest, width), dtype=np.int64)
        places = np.empty(index.size, dtype=np.int64)
        try:
            count = pages.find_changed(entries, sizes, self._holds, index, places)
            if not count:
                return
            moves, changed = self._moves(entries, longest), places[:count]
            lowest = int(changed[0]) // width
            if index.size - lowest * width <= _FEW_MORE * count:
                # From where the tokens below the root begin all is moved: some are there already, none is moved twice.
                self._gather(index[lowest:], None if moves is None else moves[lowest:], self._buffer[lowest:longest])
            else:
                if moves is not None:
                    moves = np.broadcast_to(moves, index.shape).reshape(-1, 1)[changed]
                self._move(index.reshape(-1, 1)[changed], moves, changed)
        except BaseException:
            self._forget()  # it does not hold yet what it was to hold
            raise

    def _move(self, rows: np.ndarray, moves: np.ndarray | None, places: np.ndarray) -> None:
        """Move pages ``[n, 1]`` to flat places ``[n]`` of the batch, with these corrections ``[n, 1]``."""
        pages, count = self._memory, len(places)
        if self._scratch is None or len(self._scratch) < count:
            self._scratch = memory((2 * count, self._width), self._spec.device, self._spec.dtype)
        moved = self._scratch[:count]
        self._gather(rows, moves, moved.unsqueeze(1))
        copy_rows(self._flat, pages.index(places), moved)

    def _supply(self, row: int, supplied: KeysValues, start: int) -> None:
        super()._supply(row, supplied, start)
        self._holds[:, row] = _UNKNOWN

    @property
    def nbytes(self) -> int:
        return super().nbytes + (0 if self._scratch is None else self._scratch.nbytes)
