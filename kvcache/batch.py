"""Batches: how rows found in pools get into the batch cache, and how the batch's rows get back into pools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from kvcache.geometry import Geometry
from kvcache.keys_values import KeysValues, zeros
from kvcache.pool import KVCachePool

__all__ = ["Batch", "Found", "Row", "RowBatch"]


class Found(NamedTuple):
    """A row that was looked up.

    Attributes:
        pool: where it was found.
        slot: the entry's.
        writes: how often the pool had been written to by then.
    """

    pool: KVCachePool
    slot: int
    writes: int

    @property
    def stands(self) -> bool:
        """Whether the slot still holds what was found."""
        return self.pool.writes == self.writes


# A row of a batch before it is assembled: found, supplied by the model, or empty.
Row = Found | KeysValues | None


class Batch(ABC):
    """The memory that batches are assembled in.

    Attributes:
        keys_values: the batch cache in use.
        position_shift: as in ``CacheBackend``.
    """

    keys_values: KeysValues

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.position_shift: Tensor | None = None

    @abstractmethod
    def begin(self, rows: int) -> None:
        """Let ``keys_values`` be a batch cache of that many rows."""

    @abstractmethod
    def assemble(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        """Put rows of those sizes into ``keys_values``. Every ``Found`` of them stands."""

    @abstractmethod
    def store(
        self,
        rows: Sequence[Row],
        sizes: Sequence[int],
        pools: Sequence[KVCachePool],
        keys: Sequence[Any],
        priorities: Sequence[float | None],
    ) -> None:
        """Store each row as the model left it.

        Args:
            rows: what was assembled.
            sizes: of the rows before the model appended anything.
            pools: where each row goes.
            keys: under which; of two rows with one key the last stays.
            priorities: as in ``KVCachePool.set``.
        """

    def start(self, size: int, longest: int) -> int:
        """Where in the batch a row of ``size`` tokens begins."""
        return longest - size

    def set_position_shift(self, shift: Tensor | None) -> None:
        """From now on windows slide by this correction, as in ``CacheBackend.position_shift``.

        Raises:
            ValueError: it is of another shape than ``[L, 2, H, context_length - 3, D]``.
        """
        geometry = self.geometry
        wanted = geometry.num_layers, 2, geometry.num_heads, geometry.slid_size, geometry.head_dim
        if shift is not None and tuple(shift.shape) != wanted:
            raise ValueError(
                f"a position shift of this geometry is [L, 2, H, T - 3, D] = {list(wanted)}, got {list(shift.shape)}"
            )
        self.position_shift = shift

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of tensor memory that is no pool's."""

    @property
    def shared_bytes(self) -> int:
        """Bytes of the memory that pools share, all of it."""
        return 0


class RowBatch(Batch):
    """One row after the other, for storages that know nothing of batches: ``[B, L, 2, H, T, D]``.

    Args:
        geometry: shapes; its number of environments is the size of the first batch.
        device: where the batch lives.
        dtype: of its elements.
    """

    def __init__(self, geometry: Geometry, device: Any, dtype: Any) -> None:
        super().__init__(geometry)
        self._like = {"device": device, "dtype": dtype}
        self._batches: dict[int, tuple[KeysValues, Tensor]] = {}
        self._memory = self._allocate(geometry.env_num)
        self.begin(geometry.env_num)

    def _allocate(self, rows: int) -> Tensor:
        shape = self.geometry
        return zeros((rows, shape.num_layers, 2, shape.num_heads, shape.context_length, shape.head_dim), **self._like)

    def begin(self, rows: int) -> None:
        if rows > self._memory.shape[0]:
            self._memory = self._allocate(rows)
            self._batches.clear()
        known = self._batches.get(rows)
        if known is None or not known[0].is_view_of(known[1]):
            block = self._memory[:rows]
            known = self._batches[rows] = KeysValues.from_block(block), block
        self.keys_values, _ = known

    def __getstate__(self) -> dict[str, Any]:
        """For copies: without the views of its memory, which would be no views of the copy's."""
        return {name: value for name, value in self.__dict__.items() if name != "_batches"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        before, self._batches = self.keys_values, {}
        self.begin(before.num_samples)
        self.keys_values.block.copy_(before.block)
        self.keys_values.size = before.size

    def assemble(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        longest, shortest = max(sizes), min(sizes)
        memory = self._memory[: len(sizes)]
        if longest > shortest:
            memory.narrow(4, 0, longest - shortest).zero_()
        for row, size, target in zip(rows, sizes, memory.unbind(0), strict=True):
            if isinstance(row, Found):
                row.pool.storage.load_tokens(row.slot, target, longest - size)
            elif row is not None:
                target.narrow(3, longest - size, size).copy_(row.block[0].narrow(3, 0, size))
        self.keys_values.size = longest

    def store(
        self,
        rows: Sequence[Row],
        sizes: Sequence[int],
        pools: Sequence[KVCachePool],
        keys: Sequence[Any],
        priorities: Sequence[float | None],
    ) -> None:
        longest = max(sizes)
        appended = self.keys_values.size - longest
        contents = self.keys_values.block.unbind(0)
        for content, size, pool, key, priority in zip(contents, sizes, pools, keys, priorities, strict=True):
            first, count = self.geometry.window(size + appended)
            shift = self.position_shift if first else None
            pool.save_tokens(key, content, longest - size + first, count, shift, priority)

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes
