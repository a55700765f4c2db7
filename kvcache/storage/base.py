"""The interface between a pool and the memory of its slots."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvcache.keys_values import KeysValues

__all__ = ["EntrySpec", "Storage", "check_entry", "check_matches"]


@dataclass(frozen=True)
class EntrySpec:
    """Shape ``(L, 2, H, T_max, D)``, element type and device of all entries of a pool."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, row: Tensor) -> EntrySpec:
        """The spec of an entry made of a row ``[L, 2, H, T, D]``."""
        return cls(tuple(row.shape), row.dtype, row.device)

    def __str__(self) -> str:
        return f"[L, 2, H, T, D] = {list(self.shape)}, {self.dtype} on {self.device}"


def check_entry(value: Any) -> None:
    """Raise TypeError or ValueError unless ``value`` can be copied: KeysValues of one row, all layers of one kind."""
    if not isinstance(value, KeysValues):
        raise TypeError(
            f"this storage copies KeysValues and cannot copy {type(value).__name__}; "
            "storage='reference' keeps any object as it is"
        )
    if value.num_samples != 1:
        raise ValueError(f"an entry is one row, got KeysValues of {value.num_samples}: store row by row")
    if not value.sizes_agree:
        raise ValueError("the layers of this entry differ in size: a token has a key and a value in every layer")
    if not value.holds_block:
        kinds = {(tuple(each.shape), each.dtype, each.device) for each in value.layer_tensors()}
        if len(kinds) > 1:
            raise ValueError(f"the layers of this entry differ in shape, dtype or device: {sorted(map(str, kinds))}")


def check_matches(spec: EntrySpec | None, given: EntrySpec) -> None:
    """Raise ValueError if a pool with entries of ``spec`` (None: not decided yet) cannot hold one of ``given``."""
    if spec is not None and given != spec:
        raise ValueError(f"this pool holds entries of {spec}; got {given}")


class Storage(ABC):
    """Contents by slot number. The pool decides which slot belongs to which key.

    ``write`` and ``read`` move whole values, for callers of the pool. ``save_tokens`` and ``load_tokens`` move live
    tokens between a slot and a row of the batch, for the manager.

    Attributes:
        is_limited: whether ``lacks_room`` may ever be true.
        first: number of slot 0's entry in memory that several storages share; 0 where nothing is shared.
    """

    is_limited = False
    first = 0

    @abstractmethod
    def __init__(self, pool_size: int, spec: EntrySpec | None = None) -> None:
        """``pool_size`` free slots; ``spec`` is that of all entries, None if it is not known yet."""

    def check(self, value: Any) -> None:  # noqa: B027 - not all storages check
        """Raise TypeError or ValueError if ``value`` cannot be stored. Called before anything is evicted for it."""

    def check_row(self, row: Tensor) -> None:  # noqa: B027
        """As ``check``, for tokens of ``row`` ``[L, 2, H, T, D]``."""

    @abstractmethod
    def write(self, slot: int, value: Any) -> None:
        """Store ``value`` in ``slot``."""

    @abstractmethod
    def read(self, slot: int) -> Any:
        """The value in ``slot``."""

    @abstractmethod
    def size(self, slot: int) -> int:
        """Live tokens in ``slot``."""

    @abstractmethod
    def save_tokens(self, slot: int, row: Tensor, first: int, count: int, shift: Tensor | None) -> None:
        """Store tokens ``[first, first + count)`` of ``row`` in ``slot``.

        Args:
            slot: to be written.
            row: one row of the batch, ``[L, 2, H, T, D]``; only read.
            first: the first token.
            count: number of tokens.
            shift: the positional correction of a window that slid, ``[L, 2, H, count, D]``: added to what is stored.
        """

    @abstractmethod
    def load_tokens(self, slot: int, row: Tensor, first: int) -> None:
        """Copy the live tokens of ``slot`` into ``row`` ``[L, 2, H, T, D]``, to position ``first`` and up."""

    def lacks_room(self, tokens: int) -> bool:
        """Whether that many new tokens exceed the storage's limit. The pool then evicts entries."""
        return False

    def release(self, slot: int) -> None:  # noqa: B027 - most storages keep a slot's memory
        """Free ``slot``."""

    @abstractmethod
    def clear(self) -> None:
        """Free all slots. Memory is kept for reuse."""

    def reset(self) -> None:
        """Free all slots, whatever state an interrupted change has left."""
        self.clear()

    @property
    @abstractmethod
    def slots_allocated(self) -> int:
        """Allocations of memory for a slot."""

    @property
    @abstractmethod
    def bytes_reserved(self) -> int:
        """Bytes of tensor memory that the storage holds, used or not."""
