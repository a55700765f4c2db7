"""Tokens moved by torch's own operations, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from kvcache.kernels.base import Correction, Kernels
from kvcache.memory import memory

__all__ = ["TorchKernels"]

_WIDEST = torch.complex128  # the largest element that torch can copy


class TorchKernels(Kernels):
    """torch's own operations, on any device."""

    def __init__(self) -> None:
        self._scratch: list[Tensor] = []

    def gather(
        self, pool: Tensor, index: Tensor, batch: Tensor, first: int = 0, correction: Correction | None = None
    ) -> None:
        tokens = self._tokens(pool, index, correction)
        kinds, _, heads, _, head_dim = batch.shape
        tokens = tokens.view(*index.shape, kinds, heads, head_dim)
        batch.narrow(3, first, len(index)).copy_(tokens.permute(2, 1, 3, 0, 4))

    def move(
        self, pool: Tensor, index: Tensor, batch: Tensor, places: Tensor, correction: Correction | None = None
    ) -> None:
        tokens = self._tokens(pool, index, correction)
        kinds, rows, heads, _, head_dim = batch.shape
        by_place = batch.permute(3, 1, 0, 2, 4)  # [T, B, C, H, D]
        by_place[places // rows, places % rows] = tokens.view(len(index), kinds, heads, head_dim)

    def scatter(self, pool: Tensor, index: Tensor, batch: Tensor, first: int = 0) -> None:
        tokens = batch.narrow(3, first, len(index)).permute(3, 1, 0, 2, 4)
        source = self._memory(0, index.numel(), pool)
        source.view(tokens.shape).copy_(tokens)
        # index_copy_ moves element by element. On a CPU the widest elements take a quarter to a third of the time of
        # float32 ones (torch 2.13).
        if pool.shape[1] * pool.itemsize % _WIDEST.itemsize == 0:
            pool, source = pool.view(_WIDEST), source.view(_WIDEST)
        pool.index_copy_(0, index.view(-1), source)

    def _tokens(self, pool: Tensor, index: Tensor, correction: Correction | None) -> Tensor:
        """The rows of a pool for ``index``, corrected, ``[n, W]`` one after the other, in scratch memory."""
        tokens = self._memory(0, index.numel(), pool)
        torch.index_select(pool, 0, index.view(-1), out=tokens)
        if correction is not None:
            shifts = correction.rows
            selected = self._memory(1, correction.by.numel(), shifts)
            torch.index_select(shifts, 0, correction.by.view(-1), out=selected)
            width = pool.shape[1]
            tokens.view(*index.shape, width).add_(selected.view(*correction.by.shape, width))
        return tokens

    def _memory(self, number: int, rows: int, source: Tensor) -> Tensor:
        """Scratch memory for that many rows of ``source``, used again by the next call."""
        while len(self._scratch) <= number:
            self._scratch.append(source[:0])
        scratch, width = self._scratch[number], source.shape[1]
        if scratch.dtype != source.dtype or scratch.shape[1] != width or len(scratch) < rows:
            scratch = self._scratch[number] = memory((rows, width), source.device, source.dtype)
        return scratch[:rows]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self._scratch)
