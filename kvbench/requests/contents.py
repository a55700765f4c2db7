"""What a pool holds for a key: it follows from the key alone, so that whatever a lookup returns can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from kvcache import STORAGES, KeysValues, Storage

__all__ = ["OBJECTS", "Contents", "Entry", "SizedStorage", "contents_for"]

OBJECTS = "reference"  # the storage that keeps any object; the others copy tensors


class Entry(NamedTuple):
    """What is stored for a key, and how large it is said to be."""

    content: Any
    size: int


class Contents(Protocol):
    """Contents of one kind."""

    def of(self, keys: np.ndarray) -> Sequence[Any]:
        """The content of each of some keys, ``[n]``."""

    def match(self, found: Any, wanted: Any) -> bool:
        """Whether a lookup returned what is the key's content."""


class NumberContents:
    """The complement of the key: a number that is no key of its own pool, as a rule."""

    def of(self, keys: np.ndarray) -> Sequence[Any]:
        numbers: list[int] = (~keys).tolist()
        return numbers

    def match(self, found: Any, wanted: Any) -> bool:
        return bool(found == wanted)


class TokenContents:
    """A context of one token whose K and V have the key's eight bytes, as float32."""

    def of(self, keys: np.ndarray) -> Sequence[Any]:
        octets = keys.astype("<u8").view(np.uint8).astype(np.float32)
        blocks = torch.from_numpy(octets).view(-1, 1, 1, 2, 1, 1, 4)  # [n, B, L, 2, H, T, D]
        return [KeysValues.from_block(block, 1) for block in blocks]

    def match(self, found: Any, wanted: Any) -> bool:
        return torch.equal(found.block, wanted.block)


def contents_for(storage: str) -> Contents:
    """Those that a storage of that name can hold."""
    return NumberContents() if storage == OBJECTS else TokenContents()


class SizedStorage(Storage):
    """A storage of that name for ``Entry``s, which counts their sizes and may hold ``limit`` of them in all.

    Attributes:
        inner: where the contents are.
        held: the sizes of all entries together.
        most_held: the largest that ever was.
    """

    def __init__(self, name: str, pool_size: int, limit: int | None = None) -> None:
        self.inner = STORAGES[name](pool_size)
        self.held = self.most_held = 0
        self.is_limited = limit is not None
        self._limit = limit
        self._sizes = [0] * pool_size
        self._asked = 0  # size of the entry that is stored next: a pool knows the sizes of contexts alone

    def check(self, value: Entry) -> None:
        self.inner.check(value.content)
        self._asked = value.size

    def write(self, slot: int, value: Entry) -> None:
        self.inner.write(slot, value.content)
        self.held += value.size - self._sizes[slot]
        self.most_held = max(self.most_held, self.held)
        self._sizes[slot] = value.size

    def read(self, slot: int) -> Any:
        return self.inner.read(slot)

    def size(self, slot: int) -> int:
        return self._sizes[slot]

    def save_tokens(self, slot: int, row: Any, first: int, count: int, shift: Any) -> None:
        raise NotImplementedError("requests are stored as entries, not as rows of a batch")

    def load_tokens(self, slot: int, row: Any, first: int) -> None:
        raise NotImplementedError("requests are read as entries, not as rows of a batch")

    def lacks_room(self, tokens: int) -> bool:
        return self._limit is not None and self.held + self._asked > self._limit

    def release(self, slot: int) -> None:
        self.inner.release(slot)
        self.held -= self._sizes[slot]
        self._sizes[slot] = 0

    def clear(self) -> None:
        self.inner.clear()
        self._sizes = [0] * len(self._sizes)
        self.held = 0

    @property
    def slots_allocated(self) -> int:
        return self.inner.slots_allocated

    @property
    def bytes_reserved(self) -> int:
        return self.inner.bytes_reserved
