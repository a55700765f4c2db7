"""How tokens get from pools into a batch and back: one fused gather, one fused scatter.

Memory is token-major: a row of ``[N, W]`` is one token of all layers, W = L x 2 x H x D elements. Two of its rows are
nobody's: ``ZERO`` is zero for ever and is what padding is gathered from, ``TRASH`` takes what need not be kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from kvcache.keys_values import memory

__all__ = ["TRASH", "ZERO", "Kernels", "TorchKernels", "copy_rows", "make_kernels", "tell", "watches"]

ZERO, TRASH = 0, 1

# Told of each operation that goes past torch's dispatcher, with the bytes that it writes: so that it is counted.
watches: list[Callable[[int], None]] = []

_WIDEST = torch.complex128  # the largest element that torch can be told to move


class Kernels(ABC):
    """One way of moving tokens, for one memory. Tensors are contiguous and on its device; indices are int64."""

    @abstractmethod
    def gather(
        self,
        pool: Tensor,
        index: Tensor,
        out: Tensor,
        shifts: Tensor | None = None,
        shift_index: Tensor | None = None,
    ) -> None:
        """``out[i] = pool[index[i]] + shifts[shift_index[i]]``.

        Args:
            pool: ``[N, W]``.
            index: ``[n, B]``: which row of ``pool``.
            out: ``[n, B, W]``, contiguous.
            shifts: ``[M, W]`` of any dtype, its row 0 zero (and added like any other); None adds nothing.
            shift_index: ``[n, B]``, or ``[n, 1]`` where it is the same for all of B.
        """

    @abstractmethod
    def scatter(self, pool: Tensor, index: Tensor, source: Tensor) -> None:
        """``pool[index[i]] = source[i]``; what becomes of ``TRASH`` does not matter.

        Args:
            pool: ``[N, W]``.
            index: ``[n, B]``: which row of ``pool``; each but ``TRASH`` at most once.
            source: ``[n, B, W]``, contiguous.
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of scratch memory."""


class TorchKernels(Kernels):
    """torch's own operations, on any device."""

    def __init__(self) -> None:
        self._scratch: Tensor | None = None

    def gather(
        self,
        pool: Tensor,
        index: Tensor,
        out: Tensor,
        shifts: Tensor | None = None,
        shift_index: Tensor | None = None,
    ) -> None:
        torch.index_select(pool, 0, index.view(-1), out=out.view(-1, pool.shape[1]))
        if shifts is not None and shift_index is not None:
            out.add_(self._selected(shifts, shift_index))

    def scatter(self, pool: Tensor, index: Tensor, source: Tensor) -> None:
        copy_rows(pool, index.view(-1), source.view(-1, pool.shape[1]))

    def _selected(self, shifts: Tensor, shift_index: Tensor) -> Tensor:
        """``[n, B, W]`` or ``[n, 1, W]``."""
        selected = self._memory((*shift_index.shape, shifts.shape[1]), shifts)
        torch.index_select(shifts, 0, shift_index.view(-1), out=selected.view(-1, shifts.shape[1]))
        return selected

    def _memory(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory that the next call may use again."""
        rows, width = shape[0] * shape[1], shape[2]
        scratch = self._scratch
        if scratch is None or scratch.dtype != like.dtype or scratch.shape[1] != width or len(scratch) < rows:
            scratch = self._scratch = memory((rows, width), like.device, like.dtype)
        return scratch[:rows].view(shape)

    @property
    def nbytes(self) -> int:
        return 0 if self._scratch is None else self._scratch.nbytes


def copy_rows(target: Tensor, index: Tensor, source: Tensor) -> None:
    """``target[index[i]] = source[i]`` for rows ``[W]``; ``source`` is contiguous."""
    # index_copy_ moves element by element: of the widest ones it takes a quarter to a third of the time that it takes
    # of float32 ones, on a CPU (torch 2.13).
    if target.shape[1] * target.itemsize % _WIDEST.itemsize == 0:
        target, source = target.view(_WIDEST), source.view(_WIDEST)
    target.index_copy_(0, index, source)


def tell(written: Tensor, tokens: Tensor) -> None:
    """Tokens were written past torch: tell it, which finds out what changed under a gradient, and who counts."""
    increment_version(written)
    for watch in watches:
        watch(tokens.nbytes)


def make_kernels(device: torch.device | str) -> Kernels:
    """The kernels that suit ``device``: Triton's on CUDA, compiled ones on a CPU; torch's where those are missing."""
    kind = torch.device(device).type
    try:
        if kind == "cuda":
            from kvcache.triton_kernels import TritonKernels

            return TritonKernels()
        if kind == "cpu":
            from kvcache.cpu_kernels import CpuKernels

            return CpuKernels()
    except ImportError:
        pass
    return TorchKernels()
