"""Each slot is a block of its own, allocated on first use and then overwritten."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kvcache.keys_values import KeysValues
from kvcache.memory import memory, zeros
from kvcache.storage.base import EntrySpec, Storage, check_entry, check_matches

__all__ = ["PrivateStorage"]


class PrivateStorage(Storage):
    """Private copies: live tokens are copied in and out. Without a ``spec`` the first entry decides it for all."""

    def __init__(self, pool_size: int, spec: EntrySpec | None = None) -> None:
        self._blocks: list[Tensor | None] = [None] * pool_size  # each [L, 2, H, T_max, D]
        self._sizes = [0] * pool_size
        self._spec = spec
        self._allocated = 0
        self._bytes = 0

    def check(self, value: Any) -> None:
        check_entry(value)
        check_matches(self._spec, EntrySpec(value.entry_shape, value.dtype, value.device))

    def check_row(self, row: Tensor) -> None:
        # This runs for every row of every batch, so the cheap comparison comes first.
        spec = self._spec
        if spec is None or row.shape != spec.shape or row.dtype != spec.dtype or row.device != spec.device:
            check_matches(spec, EntrySpec.of(row))

    def write(self, slot: int, value: KeysValues) -> None:
        self.save_tokens(slot, value.block[0], 0, value.size, None)

    def read(self, slot: int) -> KeysValues:
        block, size = self._block(slot), self._sizes[slot]
        copy = zeros((1, *block.shape), block.device, block.dtype)
        copy[0, ..., :size, :].copy_(block[..., :size, :])
        return KeysValues.from_block(copy, size)

    def size(self, slot: int) -> int:
        return self._sizes[slot]

    def save_tokens(self, slot: int, row: Tensor, first: int, count: int, shift: Tensor | None) -> None:
        block = self._blocks[slot]
        if block is None:
            block = self._allocate(slot, row)
        if row.requires_grad:  # a slot carries no autograd graph
            row = row.detach()
        source, target = row.narrow(3, first, count), block.narrow(3, 0, count)
        if shift is None:
            target.copy_(source)
        else:
            torch.add(source, shift.detach(), out=target)
        self._sizes[slot] = count

    def load_tokens(self, slot: int, row: Tensor, first: int) -> None:
        block, size = self._block(slot), self._sizes[slot]
        if block.shape != row.shape:  # a copy would broadcast
            raise ValueError(f"an entry of {EntrySpec.of(block)} does not fit a batch of {EntrySpec.of(row)}")
        row.narrow(3, first, size).copy_(block.narrow(3, 0, size))

    def reset(self) -> None:
        blocks = [block for block in self._blocks if block is not None]
        self._sizes = [0] * len(self._blocks)
        self._allocated, self._bytes = len(blocks), sum(block.nbytes for block in blocks)

    def clear(self) -> None:
        """Does nothing: blocks are kept for reuse, and no slot is read before it is written again."""

    @property
    def slots_allocated(self) -> int:
        return self._allocated

    @property
    def bytes_reserved(self) -> int:
        return self._bytes

    def _block(self, slot: int) -> Tensor:
        block = self._blocks[slot]
        assert block is not None, f"slot {slot} is read before it was written"
        return block

    def _allocate(self, slot: int, row: Tensor) -> Tensor:
        if self._spec is None:
            self._spec = EntrySpec.of(row)
        block = memory(self._spec.shape, self._spec.device, self._spec.dtype)
        self._blocks[slot] = block
        self._allocated += 1
        self._bytes += block.nbytes
        return block
