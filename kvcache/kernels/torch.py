"""Tokens moved by torch's own operations, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from kvcache.kernels.base import Kernels
from kvcache.memory import memory

__all__ = ["TorchKernels", "copy_rows"]

_WIDEST = torch.complex128  # the largest element that torch can copy


class TorchKernels(Kernels):
    """torch's own operations, on any device."""

    def __init__(self) -> None:
        self._scratch: Tensor | None = None

    def gather(
        self, pool: Tensor, index: Tensor, out: Tensor, shifts: Tensor | None = None, shift_index: Tensor | None = None
    ) -> None:
        torch.index_select(pool, 0, index.view(-1), out=out.view(-1, pool.shape[1]))
        if shifts is not None and shift_index is not None:
            selected = self._memory(shift_index.numel(), shifts)
            torch.index_select(shifts, 0, shift_index.view(-1), out=selected)
            out.add_(selected.view(*shift_index.shape, pool.shape[1]))

    def scatter(self, pool: Tensor, index: Tensor, source: Tensor) -> None:
        copy_rows(pool, index.view(-1), source.view(-1, pool.shape[1]))

    def _memory(self, rows: int, source: Tensor) -> Tensor:
        """Scratch memory for that many rows of ``source``, used again by the next call."""
        scratch, width = self._scratch, source.shape[1]
        if scratch is None or scratch.dtype != source.dtype or scratch.shape[1] != width or len(scratch) < rows:
            scratch = self._scratch = memory((rows, width), source.device, source.dtype)
        return scratch[:rows]

    @property
    def nbytes(self) -> int:
        return 0 if self._scratch is None else self._scratch.nbytes


def copy_rows(target: Tensor, index: Tensor, source: Tensor) -> None:
    """``target[index[i]] = source[i]`` for rows ``[W]``; ``source`` is contiguous."""
    # index_copy_ moves element by element. On a CPU the widest elements take a quarter to a third of the time of
    # float32 ones (torch 2.13).
    if target.shape[1] * target.itemsize % _WIDEST.itemsize == 0:
        target, source = target.view(_WIDEST), source.view(_WIDEST)
    target.index_copy_(0, index, source)
