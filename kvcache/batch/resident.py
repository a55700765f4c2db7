"""A batch over pages that keeps its content from one inference to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from kvcache.batch.base import Row
from kvcache.batch.tokens import TokenBatch
from kvcache.geometry import Geometry
from kvcache.kernels import Kernels
from kvcache.keys_values import KeysValues
from kvcache.pool import KVCachePool
from kvcache.storage import EntrySpec, Pages

__all__ = ["ResidentBatch"]

_UNKNOWN = -1


class ResidentBatch(TokenBatch):
    """A batch that keeps its content: only tokens that differ from those already there are moved.

    Rows begin at the first position, with zeros behind them. So a token's position is the one in its context, however
    long the other rows are. From one simulation to the next the root's context is the same, and only the tokens below
    the root are moved. After a write into the batch other than by ``update`` all tokens are moved. Such a write is
    detected by torch's version of the tensor; one that bypasses torch is not.

    Args:
        memory: pages; a serial number identifies the content of each.
    """

    _memory: Pages
    _holds: np.ndarray  # [T, B]: serial numbers of the pages that are there

    def __init__(
        self, geometry: Geometry, memory: Pages, spec: EntrySpec, kernels: Kernels, exact: bool = False
    ) -> None:
        self._version = 0
        super().__init__(geometry, memory, spec, kernels, exact)

    def set_position_shift(self, shift: Tensor | None) -> bool:
        changes = super().set_position_shift(shift)
        if changes:
            self._forget()
        return changes

    def begin(self, rows: int) -> None:
        before = getattr(self, "_view", None)
        super().begin(rows)
        if self._view is not before:
            self._forget()

    def check(self, sizes: Sequence[int], pools: Sequence[KVCachePool]) -> None:
        if self._view.journal.dropped and min(sizes) < max(sizes):
            raise ValueError(
                f"more was appended than a context of {self._tokens} tokens has room for: the dropped tokens are not "
                "the oldest ones of rows that are padded behind"
            )
        super().check(sizes, pools)

    def _forget(self) -> None:
        """Take the whole batch as unknown: all tokens are moved at the next assembly."""
        self._holds = np.full((self._tokens, self._view.block.shape[0]), _UNKNOWN, dtype=np.int64)

    def start(self, size: int, longest: int) -> int:
        return 0

    def _places(self, size: int, longest: int, first: int, count: int) -> list[tuple[int, int]]:
        if first >= size:  # the model appended them behind the padding
            return [(longest + first - size, count)]
        inside = min(size - first, count)
        return [(first, inside), (longest, count - inside)]

    def assemble(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        if self._buffer.version != self._version + self._view.journal.writes:
            self._forget()
        else:
            self._holds[self._view.journal.lowest :] = _UNKNOWN
        super().assemble(rows, sizes)
        self._version = self._buffer.version

    def _is_consecutive(self, new: int, appended: int) -> bool:
        return new <= appended  # older tokens are in front of the padding

    def _fill(self, entries: Sequence[int], sizes: Sequence[int], longest: int) -> None:
        pages, index = self._memory, np.empty((longest, len(entries)), dtype=np.int64)
        places = np.empty(index.size, dtype=np.int64)
        try:
            count = pages.find_changed(entries, sizes, self._holds, index, places)
            if count:
                assert pages.rows is not None
                moves, changed = self._moves(entries, longest), places[:count]
                if moves is not None:
                    moves = np.broadcast_to(moves, index.shape).reshape(-1)[changed]
                moved, to = pages.index(index.reshape(-1)[changed]), pages.index(changed)
                self._kernels.move(pages.rows, moved, self._view.heads, to, self._correction(moves))
        except BaseException:
            self._forget()  # the serial numbers are written, the tokens are not
            raise

    def _supply(self, row: int, supplied: KeysValues, start: int) -> None:
        super()._supply(row, supplied, start)
        self._holds[:, row] = _UNKNOWN
