"""Each slot holds the stored object itself. This was the first design, kept for comparison."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kvcache.keys_values import KeysValues
from kvcache.storage.base import EntrySpec, Storage

__all__ = ["ReferenceStorage"]


class ReferenceStorage(Storage):
    """No copies: the caller and the cache share one object, and a write by one changes it for both.

    Any object can be stored. Tokens saved from a batch row are copied into a new object, because the next batch
    overwrites the row.
    """

    def __init__(self, pool_size: int, spec: EntrySpec | None = None) -> None:
        self._values: list[Any] = [None] * pool_size
        self._allocated = 0

    def write(self, slot: int, value: Any) -> None:
        self._values[slot] = value

    def read(self, slot: int) -> Any:
        return self._values[slot]

    def size(self, slot: int) -> int:
        return int(self._values[slot].size)

    def save_tokens(self, slot: int, row: Tensor, first: int, count: int, shift: Tensor | None) -> None:
        tokens = row.narrow(3, first, count)
        entry = row.new_zeros((1, *row.shape))
        entry[0].narrow(3, 0, count).copy_(tokens if shift is None else tokens + shift)
        self._values[slot] = KeysValues.from_block(entry, count)
        self._allocated += 1

    def load_tokens(self, slot: int, row: Tensor, first: int) -> None:
        value: KeysValues = self._values[slot]
        row.narrow(3, first, value.size).copy_(value.block[0].narrow(3, 0, value.size))

    def clear(self) -> None:
        self._values = [None] * len(self._values)

    @property
    def slots_allocated(self) -> int:
        return self._allocated

    @property
    def bytes_reserved(self) -> int:
        return sum(value.block.nbytes for value in self._values if isinstance(value, KeysValues))
