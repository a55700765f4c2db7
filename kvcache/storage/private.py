"""A slot is a block of its own, allocated on first use and written over afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kvcache.keys_values import KeysValues
from kvcache.storage.base import Storage

__all__ = ["PrivateStorage"]


class PrivateStorage(Storage):
    """Private copies: what was stored is copied in, what is read is copied out, live tokens only."""

    def __init__(self, pool_size: int) -> None:
        self._blocks: list[Tensor | None] = [None] * pool_size  # each [L, 2, H, T_max, D]
        self._sizes = [0] * pool_size
        self._like: Tensor | None = None  # the first block: what all others must look like
        self._allocated = 0

    def check(self, value: Any) -> None:
        if not isinstance(value, KeysValues):
            raise TypeError(
                f"this storage copies KeysValues and cannot copy {type(value).__name__}; "
                "storage='reference' keeps any object as it is"
            )
        if value.num_samples != 1:
            raise ValueError(f"an entry is one row, got KeysValues of {value.num_samples}: store row by row")
        if self._like is not None:
            self._check_alike(value.entry_shape, value.dtype, value.device)

    def write(self, slot: int, value: KeysValues) -> None:
        self.save_tokens(slot, value.block[0], 0, value.size, None)

    def read(self, slot: int) -> KeysValues:
        block, size = self._block(slot), self._sizes[slot]
        copy = torch.zeros((1, *block.shape), dtype=block.dtype, device=block.device)
        copy[0, ..., :size, :].copy_(block[..., :size, :])
        return KeysValues.from_block(copy, size)

    def size(self, slot: int) -> int:
        return self._sizes[slot]

    def save_tokens(self, slot: int, row: Tensor, first: int, count: int, shift: Tensor | None) -> None:
        block = self._blocks[slot]
        if block is None:
            block = self._allocate(slot, row)
        if row.requires_grad:  # a copy into a slot must not tie it to a graph
            row = row.detach()
        source, target = row.narrow(3, first, count), block.narrow(3, 0, count)
        if shift is None:
            target.copy_(source)
        else:
            torch.add(source, shift, out=target)
        self._sizes[slot] = count

    def load_tokens(self, slot: int, row: Tensor, first: int) -> None:
        size = self._sizes[slot]
        row.narrow(3, first, size).copy_(self._block(slot).narrow(3, 0, size))

    def clear(self) -> None:
        """Nothing to do: blocks are kept for reuse, and no slot is read before it is written again."""

    @property
    def slots_allocated(self) -> int:
        return self._allocated

    @property
    def bytes_reserved(self) -> int:
        return self._allocated * self._like.nbytes if self._like is not None else 0

    def _block(self, slot: int) -> Tensor:
        block = self._blocks[slot]
        assert block is not None, f"slot {slot} is read before it was written"
        return block

    def _check_alike(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        assert self._like is not None
        wanted = (tuple(self._like.shape), self._like.dtype, self._like.device)
        if (tuple(shape), dtype, device) != wanted:
            raise ValueError(
                f"this pool holds entries of [L, 2, H, T, D] = {wanted[0]}, {wanted[1]} on {wanted[2]}; "
                f"got {tuple(shape)}, {dtype} on {device}"
            )

    def _allocate(self, slot: int, row: Tensor) -> Tensor:
        if self._like is not None:
            self._check_alike(row.shape, row.dtype, row.device)
        block = torch.empty(row.shape, dtype=row.dtype, device=row.device)
        if self._like is None:
            self._like = block
        self._blocks[slot] = block
        self._allocated += 1
        return block
