"""Tokens moved by Triton: one launch for each gather and each scatter, and no scratch memory.

Importing this raises ``ImportError`` where Triton is not installed.
"""

# Triton has no types: it compiles its own language, not Python.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvcache.kernels.base import NULL_PAGE, Correction, Kernels, notify_observers

__all__ = ["TritonKernels"]

_LARGEST_BLOCK = 1024  # elements: 16 bytes of halves for each thread of Triton's usual four warps
_NULL_PAGE = tl.constexpr(NULL_PAGE)  # kernels can read no other globals


class TritonKernels(Kernels):
    """Triton's kernels, on CUDA. All tensors are contiguous; what goes to ``NULL_PAGE`` is not written at all."""

    def gather(
        self, pool: Tensor, index: Tensor, batch: Tensor, first: int = 0, correction: Correction | None = None
    ) -> None:
        _launch_gather(pool, index, batch, (None, first), correction)

    def move(
        self, pool: Tensor, index: Tensor, batch: Tensor, places: Tensor, correction: Correction | None = None
    ) -> None:
        _launch_gather(pool, index, batch, (places, 0), correction)

    def scatter(self, pool: Tensor, index: Tensor, batch: Tensor, first: int = 0) -> None:
        _check(pool, index, batch)
        width = pool.shape[1]
        grid, block = _grid(index, width)
        with torch.cuda.device_of(pool):  # Triton launches on the current device
            _scatter[grid](pool, index, batch, first, width, *_sizes(batch), block)
        notify_observers(pool, index.numel() * width * pool.itemsize)

    @property
    def nbytes(self) -> int:
        return 0


def _launch_gather(pool, index, batch, where, correction):
    """``where`` is places or None, and the first token."""
    shifts, shift_index = (None, None) if correction is None else correction
    places, first = where
    _check(pool, index, batch, shifts, shift_index, places)
    width = pool.shape[1]
    sharing = index.shape[1] if shift_index is not None and shift_index.shape != index.shape else 1
    grid, block = _grid(index, width)
    with torch.cuda.device_of(pool):  # Triton launches on the current device
        _gather[grid](pool, index, batch, places, first, shifts, shift_index, sharing, width, *_sizes(batch), block)
    notify_observers(batch, index.numel() * width * pool.itemsize)


def _check(*tensors: Tensor | None) -> None:
    """Raise ValueError unless kernels can take the tensors' addresses."""
    if not all(each is None or each.is_contiguous() for each in tensors):
        raise ValueError("kernels take addresses of contiguous tensors, not strides")


def _sizes(batch):
    """B, H, T, D of a batch ``[C, B, H, T, D]``."""
    return batch.shape[1:]


def _grid(index: Tensor, width: int) -> tuple[tuple[int, int], int]:
    """Programs for all blocks of all tokens, and the elements of a block."""
    block = min(1 << (width - 1).bit_length(), _LARGEST_BLOCK)
    return (index.numel(), -(-width // block)), block


# A pool may have more than 2**31 elements, so offsets are int64. ``sharing`` consecutive tokens use one entry of
# ``shift_index``: B or 1. Triton would compile every kernel again for a number of 1 and for multiples of 16, so those
# that change from call to call are not specialised; heads and head_dim are constants of a model.
# A kernel takes pointers and numbers only: its arguments cannot be fewer.


@triton.jit(do_not_specialize=["first", "sharing", "rows", "tokens"])
def _gather(
    pool, index, batch, places, first, shifts, shift_index, sharing, width, rows, heads: tl.constexpr, tokens,
    head_dim: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    row = tl.load(index + token)
    values = tl.load(pool + row * width + column, mask=inside)
    if shifts is not None:
        values = _shifted(values, shifts, tl.load(shift_index + token // sharing), column, width)
    place = first * rows + token
    if places is not None:
        place = tl.load(places + token)
    tl.store(batch + _offset(place, column, rows, heads, tokens, head_dim), values, mask=inside)


@triton.jit(do_not_specialize=["first", "rows", "tokens"])
def _scatter(
    pool, index, batch, first, width, rows, heads: tl.constexpr, tokens, head_dim: tl.constexpr, block: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    row = tl.load(index + token)
    # Not "&": Triton's interpreter cannot combine a condition on the row with one on its columns.
    inside = column < tl.where(row != _NULL_PAGE, width, 0)
    values = tl.load(batch + _offset(first * rows + token, column, rows, heads, tokens, head_dim), mask=inside)
    tl.store(pool + row * width + column, values, mask=inside)


@triton.jit
def _offset(place, column, rows, heads, tokens, head_dim):
    """Where a token's element is in a batch ``[C, B, H, T, D]``; ``column`` counts its elements ``[C, H, D]``."""
    head = column // head_dim
    kind_and_row = (head // heads) * rows + place % rows
    return ((kind_and_row * heads + head % heads) * tokens + place // rows) * head_dim + column % head_dim


@triton.jit
def _shifted(values, shifts, row, column, width):
    # Row 0 need not be read. Its zeros are added all the same: torch makes 0.0 of -0.0 by that.
    added = tl.load(shifts + row * width + column, mask=column < tl.where(row != 0, width, 0), other=0.0)
    if values.dtype.primitive_bitwidth < 32:  # torch adds halves in float32 and rounds once
        values = (values.to(tl.float32) + added.to(tl.float32)).to(values.dtype)
    else:
        values = values + added
    return values
