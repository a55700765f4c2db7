"""The interface of batches, and the types of their rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kvcache.batch.buffer import BatchBuffer
from kvcache.eviction import EntryInfo, SearchInfo
from kvcache.geometry import Geometry
from kvcache.keys_values import KeysValues
from kvcache.pool import KVCachePool
from kvcache.storage import EntrySpec

__all__ = ["Batch", "Destinations", "Found", "Row"]


class Found(NamedTuple):
    """A row that was looked up.

    Attributes:
        pool: where it was found.
        slot: the entry's.
        writes: the pool's number of writes at that time.
    """

    pool: KVCachePool
    slot: int
    writes: int

    @property
    def is_current(self) -> bool:
        """Whether the slot still holds the entry that was found."""
        return self.pool.writes == self.writes

    def read(self) -> KeysValues:
        """A copy of the entry; a reference with ``storage="reference"``."""
        contents: KeysValues = self.pool.storage.read(self.slot)
        return contents


# A row of a batch before it is assembled: found, supplied by the model, or empty.
Row = Found | KeysValues | None


class Destinations(NamedTuple):
    """Where the rows of a batch are stored.

    Attributes:
        pools: the pool of each row.
        keys: the key of each row. Of two rows with one key the last is kept.
        priorities: as in ``KVCachePool.set``.
        info: what the search knows of the rows; None where no pool's strategy uses it.
        parents: the keys that were looked up, as in ``EntryInfo``.
        envs: the environment of each row.
    """

    pools: Sequence[KVCachePool]
    keys: Sequence[Any]
    priorities: Sequence[float | None]
    info: SearchInfo | None = None
    parents: Sequence[Any] = ()
    envs: Sequence[int] = ()

    def entries(self, tokens: Sequence[int], new_tokens: Sequence[int]) -> Sequence[EntryInfo | None]:
        """What is known of each row's new entry, given its tokens; None where no pool's strategy uses it."""
        if self.info is None:
            return [None] * len(self.keys)
        return self.info.entries(self.keys, self.priorities, self.parents, self.envs, tokens, new_tokens)


class Batch(ABC):
    """The memory that batches are assembled in.

    Args:
        geometry: shapes; its number of environments is the size of the first batch.
        spec: of an entry of this geometry.

    Attributes:
        keys_values: the batch cache in use.
        position_shift: as in ``CacheBackend``.
    """

    keys_values: KeysValues

    def __init__(self, geometry: Geometry, spec: EntrySpec) -> None:
        self.geometry = geometry
        self.position_shift: Tensor | None = None
        self._buffer = BatchBuffer(spec, geometry.env_num)

    def begin(self, rows: int) -> None:
        """Make ``keys_values`` a batch cache of that many rows."""
        self._view = self._buffer.view(rows)
        self.keys_values = self._view.keys_values

    def renew(self) -> None:
        """Let ``begin`` make a batch cache in memory of its own: somebody may still write to the present one."""
        self._buffer.renew(self.geometry.env_num)

    def __getstate__(self) -> dict[str, Any]:
        """For copies, without the view: a copy makes one of its own memory."""
        return {name: value for name, value in self.__dict__.items() if name != "_view"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        before = self.keys_values
        self.begin(before.num_samples)
        self.keys_values.size = before.size

    @abstractmethod
    def assemble(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        """Put rows of those sizes into ``keys_values``. Every ``Found`` among them is current."""

    @abstractmethod
    def check(self, sizes: Sequence[int], pools: Sequence[KVCachePool]) -> None:
        """Raise ValueError if the batch cannot be stored as the model left it. Nothing is changed in the pools.

        Args:
            sizes: of the rows before the model appended anything.
            pools: where the rows are to be stored.
        """
        if not self.keys_values.sizes_agree:
            raise ValueError("the layers of the batch differ in size: the model did not append to all of them")

    @abstractmethod
    def store(self, rows: Sequence[Row], sizes: Sequence[int], to: Destinations) -> None:
        """Store each row as the model left it. Everything was checked; the caller marks the change.

        Args:
            rows: the assembled rows.
            sizes: of the rows before the model appended anything.
            to: the pool, key and priority of each row.
        """

    def start(self, size: int, longest: int) -> int:
        """Where in the batch a row of ``size`` tokens begins."""
        return longest - size

    def set_position_shift(self, shift: Tensor | None) -> bool:
        """Set the correction by which windows slide, as in ``CacheBackend.position_shift``.

        Returns:
            Whether it differs from the one before. Stored entries are then of other weights.
        """
        before, self.position_shift = self.position_shift, shift
        if shift is None or before is None:
            return shift is not before
        is_alike = (shift.dtype, shift.device) == (before.dtype, before.device)
        return not (is_alike and torch.equal(shift, before))

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of tensor memory that belongs to no pool."""

    @property
    def shared_bytes(self) -> int:
        """Bytes of all memory that pools share."""
        return 0
