"""What a pool asks of the place where its contents live."""

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
    """What every entry of a pool has in common.

    Attributes:
        shape: ``(L, 2, H, T_max, D)``.
        dtype: of the elements.
        device: where entries live.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, row: Tensor) -> EntrySpec:
        """What an entry made of a row ``[L, 2, H, T, D]`` is like."""
        return cls(tuple(row.shape), row.dtype, row.device)

    def __str__(self) -> str:
        return f"[L, 2, H, T, D] = {list(self.shape)}, {self.dtype} on {self.device}"


def check_entry(value: Any) -> None:
    """Raise TypeError or ValueError unless ``value`` can be copied: KeysValues of one row, all layers alike."""
    if not isinstance(value, KeysValues):
        raise TypeError(
            f"this storage copies KeysValues and cannot copy {type(value).__name__}; "
            "storage='reference' keeps any object as it is"
        )
    if value.num_samples != 1:
        raise ValueError(f"an entry is one row, got KeysValues of {value.num_samples}: store row by row")
    if not value.holds_block:
        kinds = {(tuple(each.shape), each.dtype, each.device) for each in value.layer_tensors()}
        if len(kinds) > 1:
            raise ValueError(f"the layers of this entry differ in shape, dtype or device: {sorted(map(str, kinds))}")


def check_matches(spec: EntrySpec | None, given: EntrySpec) -> None:
    """Raise ValueError if a pool whose entries are ``spec`` (None: not decided yet) cannot hold one like ``given``."""
    if spec is not None and given != spec:
        raise ValueError(f"this pool holds entries of {spec}; got {given}")


class Storage(ABC):
    """Contents by slot number. Which slot belongs to which key is the pool's business.

    ``write`` and ``read`` move whole values, for callers of the pool. ``save_tokens`` and ``load_tokens`` move live
    tokens between a slot and a row of the batch, for the manager.

    Attributes:
        is_limited: whether ``lacks_room`` may ever say so.
        first: number of slot 0's entry in memory that several storages share; 0 where nothing is shared.
    """

    is_limited = False
    first = 0

    @abstractmethod
    def __init__(self, pool_size: int, spec: EntrySpec | None = None) -> None:
        """Room for ``pool_size`` slots, none of them in use; ``spec`` is of all entries, if that is known."""

    def check(self, value: Any) -> None:  # noqa: B027 - most storages take anything
        """Raise TypeError or ValueError if ``value`` cannot be stored: asked before anything is evicted for it."""

    def decide(self, spec: EntrySpec) -> None:  # noqa: B027 - most storages decide at their first entry
        """All entries are like this, where that was not known yet."""

    def check_row(self, row: Tensor) -> None:  # noqa: B027
        """Raise ValueError if tokens of ``row`` ``[L, 2, H, T, D]`` cannot be stored, before anything is evicted."""

    @abstractmethod
    def write(self, slot: int, value: Any) -> None:
        """Make ``slot`` hold ``value``."""

    @abstractmethod
    def read(self, slot: int) -> Any:
        """What ``slot`` holds."""

    @abstractmethod
    def size(self, slot: int) -> int:
        """Live tokens in ``slot``."""

    @abstractmethod
    def save_tokens(self, slot: int, row: Tensor, first: int, count: int, shift: Tensor | None) -> None:
        """Make ``slot`` hold tokens ``[first, first + count)`` of ``row``.

        Args:
            row: one row of the batch, ``[L, 2, H, T, D]``; only read.
            shift: added to the tokens as they are stored, ``[L, 2, H, count, D]``: the positional correction of a
                window that slid.
        """

    @abstractmethod
    def load_tokens(self, slot: int, row: Tensor, first: int) -> None:
        """Copy the live tokens of ``slot`` into ``row`` ``[L, 2, H, T, D]``, from position ``first`` on."""

    def lacks_room(self, tokens: int) -> bool:
        """Whether that many new tokens would be more than the storage may hold: a pool evicts entries then."""
        return False

    def release(self, slot: int) -> None:  # noqa: B027 - most storages keep a slot's memory for its next owner
        """``slot`` is not in use any more."""

    @abstractmethod
    def clear(self) -> None:
        """No slot is in use any more. Memory that can serve again is kept."""

    @property
    @abstractmethod
    def slots_allocated(self) -> int:
        """How many times memory for a slot has been allocated."""

    @property
    @abstractmethod
    def bytes_reserved(self) -> int:
        """Bytes of tensor memory that the storage holds on to, used or not."""
