"""Batches: how rows found in pools get into the batch cache, and how the batch's rows get back into pools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kvcache.geometry import Geometry
from kvcache.keys_values import KeysValues
from kvcache.pool import KVCachePool

__all__ = ["Batch", "Found", "Row"]


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
    def is_current(self) -> bool:
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

    def set_position_shift(self, shift: Tensor | None) -> bool:
        """From now on windows slide by this correction, as in ``CacheBackend.position_shift``.

        Returns:
            Whether it is another one than before: entries that were stored until then are of other weights.

        Raises:
            ValueError: it is of another shape than ``[L, 2, H, context_length - 3, D]``.
        """
        geometry = self.geometry
        wanted = geometry.num_layers, 2, geometry.num_heads, geometry.slid_size, geometry.head_dim
        if shift is not None and tuple(shift.shape) != wanted:
            raise ValueError(
                f"a position shift of this geometry is [L, 2, H, T - 3, D] = {list(wanted)}, got {list(shift.shape)}"
            )
        before, self.position_shift = self.position_shift, shift
        if shift is None or before is None:
            return shift is not before
        is_alike = (shift.dtype, shift.device) == (before.dtype, before.device)
        return not (is_alike and torch.equal(shift, before))

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of tensor memory that is no pool's."""

    @property
    def shared_bytes(self) -> int:
        """Bytes of the memory that pools share, all of it."""
        return 0
