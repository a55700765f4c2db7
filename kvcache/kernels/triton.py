"""Tokens moved by Triton: one launch for each gather and each scatter, and no scratch memory.

Importing this raises ``ImportError`` where Triton is not installed.
"""

# Triton has no types: it compiles its own language, not Python.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvcache.kernels.base import NULL_PAGE, Kernels, notify_observers

__all__ = ["TritonKernels"]

_LARGEST_BLOCK = 1024  # elements: 16 bytes of halves for each thread of Triton's usual four warps
_NULL_PAGE = tl.constexpr(NULL_PAGE)  # kernels can read no other globals


class TritonKernels(Kernels):
    """Triton's kernels, on CUDA. All tensors are contiguous; what goes to ``NULL_PAGE`` is not written at all."""

    def gather(
        self, pool: Tensor, index: Tensor, out: Tensor, shifts: Tensor | None = None, shift_index: Tensor | None = None
    ) -> None:
        width, sharing = pool.shape[1], 1
        if shifts is None or shift_index is None:
            shifts = shift_index = None
        elif shift_index.shape != index.shape:
            sharing = index.shape[1]
        _check(pool, index, out, shifts, shift_index)
        grid, block = _grid(index, width)
        with torch.cuda.device_of(pool):  # type: ignore[no-untyped-call]  # Triton launches on the current device
            _gather[grid](pool, index, out, shifts, shift_index, width, sharing, block)
        notify_observers(out, out)

    def scatter(self, pool: Tensor, index: Tensor, source: Tensor) -> None:
        _check(pool, index, source)
        width = pool.shape[1]
        grid, block = _grid(index, width)
        with torch.cuda.device_of(pool):  # type: ignore[no-untyped-call]  # Triton launches on the current device
            _scatter[grid](pool, index, source, width, block)
        notify_observers(pool, source)

    @property
    def nbytes(self) -> int:
        return 0


def _check(*tensors: Tensor | None) -> None:
    """Raise ValueError unless kernels can take the tensors' addresses."""
    if not all(each is None or each.is_contiguous() for each in tensors):
        raise ValueError("kernels take addresses of contiguous tensors, not strides")


def _grid(index: Tensor, width: int) -> tuple[tuple[int, int], int]:
    """Programs for all blocks of all tokens, and the elements of a block."""
    block = min(1 << (width - 1).bit_length(), _LARGEST_BLOCK)
    return (index.numel(), -(-width // block)), block


# A pool may have more than 2**31 elements, so offsets are int64. ``sharing`` consecutive tokens use one entry of
# ``shift_index``: B or 1. Triton would compile every kernel again for a B of 1 and for multiples of 16.
# A kernel takes pointers and numbers only: eight arguments cannot be fewer.


@triton.jit(do_not_specialize=["sharing"])
def _gather(pool, index, out, shifts, shift_index, width, sharing, block: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    row = tl.load(index + token)
    values = tl.load(pool + row * width + column, mask=inside)
    if shifts is not None:
        values = _shifted(values, shifts, tl.load(shift_index + token // sharing), column, width)
    tl.store(out + token * width + column, values, mask=inside)


@triton.jit
def _scatter(pool, index, source, width, block: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    row = tl.load(index + token)
    # Not "&": Triton's interpreter cannot combine a condition on the row with one on its columns.
    inside = column < tl.where(row != _NULL_PAGE, width, 0)
    values = tl.load(source + token * width + column, mask=inside)
    tl.store(pool + row * width + column, values, mask=inside)


@triton.jit
def _shifted(values, shifts, row, column, width):
    # Row 0 need not be read. Its zeros are added all the same: torch makes 0.0 of -0.0 by that.
    added = tl.load(shifts + row * width + column, mask=column < tl.where(row != 0, width, 0), other=0.0)
    if values.dtype.primitive_bitwidth < 32:  # torch adds halves in float32 and rounds once
        values = (values.to(tl.float32) + added.to(tl.float32)).to(values.dtype)
    else:
        values = values + added
    return values
