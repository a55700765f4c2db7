"""Tokens moved by compiled code on a CPU: one pass over what is moved, and no scratch memory where it is small.

Importing this raises ``ImportError`` where it could not be compiled.
"""

from __future__ import annotations

import torch
from torch import Tensor

import kvcache._cpu_kernels as compiled
from kvcache.kernels import TorchKernels, watches

__all__ = ["CpuKernels"]

# torch shares what is larger among its threads, and its dispatcher takes no part of the time worth mentioning there.
_LARGEST = 1 << 22  # bytes


class CpuKernels(TorchKernels):
    """Compiled ones, where they are faster than torch's: where little is moved, and to correct float32 on the way."""

    def gather(
        self,
        pool: Tensor,
        index: Tensor,
        out: Tensor,
        shifts: Tensor | None = None,
        shift_index: Tensor | None = None,
    ) -> None:
        if out.nbytes > _LARGEST:
            super().gather(pool, index, out, shifts, shift_index)
            return
        _check(pool, index, out)
        rows, width = pool.shape
        if shifts is None or shift_index is None:
            compiled.gather(
                pool.data_ptr(), rows, index.data_ptr(), index.numel(), out.data_ptr(), width * pool.itemsize
            )
        elif pool.dtype == torch.float32:
            assert shifts.is_contiguous(), _ADDRESSES
            assert shift_index.is_contiguous(), _ADDRESSES
            sharing = 1 if shift_index.shape == index.shape else index.shape[1]
            compiled.gather_shifted(
                pool.data_ptr(), rows, index.data_ptr(), index.numel(), out.data_ptr(), width,
                shifts.data_ptr(), shifts.shape[0], shift_index.data_ptr(), sharing,
            )  # fmt: skip
        else:
            super().gather(pool, index, out, shifts, shift_index)
            return
        for watch in watches:
            watch(out.nbytes)

    def scatter(self, pool: Tensor, index: Tensor, source: Tensor) -> None:
        if source.nbytes > _LARGEST:
            super().scatter(pool, index, source)
            return
        _check(pool, index, source)
        rows, width = pool.shape
        compiled.scatter(
            pool.data_ptr(), rows, index.data_ptr(), index.numel(), source.data_ptr(), width * pool.itemsize
        )
        for watch in watches:
            watch(source.nbytes)


_ADDRESSES = "kernels are handed addresses, not strides"


def _check(pool: Tensor, index: Tensor, tokens: Tensor) -> None:
    assert pool.is_contiguous(), _ADDRESSES
    assert index.is_contiguous(), _ADDRESSES
    assert tokens.is_contiguous(), _ADDRESSES
    assert pool.dtype == tokens.dtype, f"a pool of {pool.dtype} and tokens of {tokens.dtype}"
    assert index.numel() * pool.shape[1] == tokens.numel(), f"{index.shape} rows of {pool.shape}: {tokens.shape}"
