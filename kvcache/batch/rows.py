"""Batches made row by row, for storages that move one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvcache.batch.base import Batch, Destinations, Found, Row
from kvcache.geometry import Geometry
from kvcache.pool import KVCachePool
from kvcache.storage import EntrySpec

__all__ = ["RowBatch"]


class RowBatch(Batch):
    """A batch whose rows are copied one by one.

    Args:
        geometry: shapes; its number of environments is the size of the first batch.
        spec: of an entry of this geometry.
    """

    def __init__(self, geometry: Geometry, spec: EntrySpec) -> None:
        super().__init__(geometry, spec)
        self.begin(geometry.env_num)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._view.block.copy_(state["keys_values"].block)  # a caller may have replaced its tensors

    def assemble(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        longest, shortest = max(sizes), min(sizes)
        memory = self._view.block
        if longest > shortest:
            memory.narrow(4, 0, longest - shortest).zero_()
        for row, size, target in zip(rows, sizes, memory.unbind(0), strict=True):
            if isinstance(row, Found):
                row.pool.storage.load_tokens(row.slot, target, longest - size)
            elif row is not None:
                target.narrow(3, longest - size, size).copy_(row.block[0].narrow(3, 0, size))
        self.keys_values.resize(longest)

    def check(self, sizes: Sequence[int], pools: Sequence[KVCachePool]) -> None:
        super().check(sizes, pools)
        block = self.keys_values.block
        if len(block) != len(sizes):
            raise ValueError(f"a batch of {len(sizes)} rows was assembled, it has {len(block)} now")
        for pool in set(pools):
            pool.storage.check_row(block[0])

    def store(self, rows: Sequence[Row], sizes: Sequence[int], to: Destinations) -> None:
        longest = max(sizes)
        appended = self.keys_values.size - longest
        contents = self.keys_values.block.unbind(0)
        windows = [self.geometry.window(size + appended) for size in sizes]
        counts = [count for _, count in windows]
        columns = zip(
            contents, sizes, windows, to.pools, to.keys, to.priorities, to.entries(counts, counts), strict=True
        )
        for content, size, (first, count), pool, key, priority, info in columns:
            shift = self.position_shift if first else None
            pool.save_tokens(key, content, longest - size + first, count, shift, priority, info)

    @property
    def nbytes(self) -> int:
        return self._buffer.nbytes
