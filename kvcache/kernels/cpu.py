"""Tokens moved by compiled code on a CPU: in one pass, and without scratch memory.

Importing this raises ``ImportError`` where the code was not compiled.
"""

from __future__ import annotations

import torch
from torch import Tensor

import kvcache.kernels._cpu_kernels as compiled
from kvcache.kernels.base import notify_observers
from kvcache.kernels.torch import TorchKernels

__all__ = ["CpuKernels"]

# torch moves larger tensors with several threads, and the time in its dispatcher does not matter there.
_LARGEST = 1 << 22  # bytes


class CpuKernels(TorchKernels):
    """Compiled kernels where they are faster than torch's: for small tensors, and to correct float32 on the way."""

    def gather(
        self, pool: Tensor, index: Tensor, out: Tensor, shifts: Tensor | None = None, shift_index: Tensor | None = None
    ) -> None:
        rows, width = pool.shape
        if out.nbytes > _LARGEST:
            super().gather(pool, index, out, shifts, shift_index)
        elif shifts is None or shift_index is None:
            _check(pool, index, out)
            compiled.gather(
                pool.data_ptr(), rows, index.data_ptr(), index.numel(), out.data_ptr(), width * pool.itemsize
            )
            notify_observers(out, out)
        elif pool.dtype == shifts.dtype == torch.float32:
            _check(pool, index, out)
            _check(shifts, shift_index)
            if shift_index.shape not in (index.shape, (len(index), 1)) or shifts.shape[1] != width:
                raise ValueError(f"{list(shifts.shape)}, by {list(shift_index.shape)}, correct no {list(out.shape)}")
            sharing = 1 if shift_index.shape == index.shape else index.shape[1]
            compiled.gather_shifted(
                pool.data_ptr(), rows, index.data_ptr(), index.numel(), out.data_ptr(), width,
                shifts.data_ptr(), shifts.shape[0], shift_index.data_ptr(), sharing,
            )  # fmt: skip
            notify_observers(out, out)
        else:
            super().gather(pool, index, out, shifts, shift_index)

    def scatter(self, pool: Tensor, index: Tensor, source: Tensor) -> None:
        if source.nbytes > _LARGEST:
            super().scatter(pool, index, source)
            return
        _check(pool, index, source)
        rows, width = pool.shape
        compiled.scatter(
            pool.data_ptr(), rows, index.data_ptr(), index.numel(), source.data_ptr(), width * pool.itemsize
        )
        notify_observers(pool, source)


def _check(pool: Tensor, index: Tensor, tokens: Tensor | None = None) -> None:
    """Raise ValueError unless the tensors are what compiled code takes their addresses for."""
    for each in (pool, index, tokens):
        if each is not None and not (each.is_cpu and each.is_contiguous()):
            raise ValueError("compiled kernels take addresses of contiguous tensors on the CPU")
    if index.dtype != torch.int64:
        raise ValueError(f"row numbers are int64, got {index.dtype}")
    if tokens is not None and (pool.dtype != tokens.dtype or tokens.shape != (*index.shape, pool.shape[1])):
        raise ValueError(
            f"{list(index.shape)} rows of {pool.dtype} {list(pool.shape)} are no {tokens.dtype} {list(tokens.shape)}"
        )
