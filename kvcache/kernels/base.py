"""The interface of kernels: one fused gather from pools into a batch, one fused scatter back.

Memory is token-major: a row of ``[N, W]`` is one token of all layers, W = L x 2 x H x D elements. Two rows belong to no
entry: ``ZERO_PAGE`` is always zero, and padding is gathered from it; ``NULL_PAGE`` takes writes that are discarded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor
from torch.autograd.graph import increment_version

__all__ = ["NULL_PAGE", "ZERO_PAGE", "Kernels", "kernel_observers", "notify_observers"]

ZERO_PAGE, NULL_PAGE = 0, 1

# Called for each operation that bypasses torch's dispatcher, with the bytes that it writes.
kernel_observers: list[Callable[[int], None]] = []


class Kernels(ABC):
    """One way of moving tokens, for one memory. Tensors are contiguous and on its device; indices are int64."""

    @abstractmethod
    def gather(
        self, pool: Tensor, index: Tensor, out: Tensor, shifts: Tensor | None = None, shift_index: Tensor | None = None
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
        """``pool[index[i]] = source[i]``; the content of ``NULL_PAGE`` is undefined.

        Args:
            pool: ``[N, W]``.
            index: ``[n, B]``: which row of ``pool``; each but ``NULL_PAGE`` at most once.
            source: ``[n, B, W]``, contiguous.
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of scratch memory."""


def notify_observers(written: Tensor, tokens: Tensor) -> None:
    """Report ``tokens`` written past torch: to autograd, which checks a tensor's version, and to the observers."""
    increment_version(written)
    for observe in kernel_observers:
        observe(tokens.nbytes)
