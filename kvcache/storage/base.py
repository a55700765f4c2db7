"""What a pool asks of the place where its contents live."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["EntryLike", "Storage"]


@dataclass(frozen=True)
class EntryLike:
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
    def of(cls, row: Tensor) -> EntryLike:
        """What an entry made of a row ``[L, 2, H, T, D]`` is like."""
        return cls(tuple(row.shape), row.dtype, row.device)

    def __str__(self) -> str:
        return f"[L, 2, H, T, D] = {list(self.shape)}, {self.dtype} on {self.device}"


class Storage(ABC):
    """Contents by slot number. Which slot belongs to which key is the pool's business.

    ``write`` and ``read`` move whole values, for callers of the pool. ``save_tokens`` and ``load_tokens`` move live
    tokens between a slot and a row of the batch, for the manager.
    """

    @abstractmethod
    def __init__(self, pool_size: int, like: EntryLike | None = None) -> None:
        """Room for ``pool_size`` slots, none of them in use; ``like`` says what entries look like, if that is known."""

    def check(self, value: Any) -> None:  # noqa: B027 - most storages take anything
        """Raise TypeError or ValueError if ``value`` cannot be stored: asked before anything is evicted for it."""

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
