"""The interface of kernels: one fused gather from pools into a batch, one fused scatter back.

A pool is token-major: a row of ``[N, W]`` is one token of all layers, W = L x 2 x H x D elements. A batch is
head-major, ``[C, B, H, T, D]`` with C = L x 2: each layer's keys and values are contiguous, for attention.

Two rows of a pool belong to no entry: ``ZERO_PAGE`` is always zero, and padding is gathered from it; ``NULL_PAGE``
takes writes that are discarded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.autograd.graph import increment_version

__all__ = ["NULL_PAGE", "ZERO_PAGE", "Correction", "Kernels", "kernel_observers", "notify_observers"]

ZERO_PAGE, NULL_PAGE = 0, 1

# Called for each operation that bypasses torch's dispatcher, with the bytes that it writes.
kernel_observers: list[Callable[[int], None]] = []


class Correction(NamedTuple):
    """What is added to tokens on their way.

    Attributes:
        rows: ``[M, W]`` of any dtype, its row 0 zero (and added like any other).
        by: which of them: of the shape of the tokens' own index, or ``[n, 1]`` where it is the same for all of B.
    """

    rows: Tensor
    by: Tensor


class Kernels(ABC):
    """One way of moving tokens, for one memory. Tensors are contiguous and on its device; indices are int64."""

    @abstractmethod
    def gather(
        self, pool: Tensor, index: Tensor, batch: Tensor, first: int = 0, correction: Correction | None = None
    ) -> None:
        """Write consecutive tokens of all rows: token ``first + i`` of row ``b`` becomes ``pool[index[i, b]]``.

        Args:
            pool: ``[N, W]``.
            index: ``[n, B]``: which row of ``pool``.
            batch: ``[C, B, H, T, D]``.
            first: the first token that is written.
            correction: is added.
        """

    @abstractmethod
    def move(
        self, pool: Tensor, index: Tensor, batch: Tensor, places: Tensor, correction: Correction | None = None
    ) -> None:
        """Write single tokens of a batch; the others stay.

        Args:
            pool: ``[N, W]``.
            index: ``[n]``: which row of ``pool``.
            batch: ``[C, B, H, T, D]``.
            places: ``[n]``, each once: token ``t`` of row ``b`` is at ``t x B + b``.
            correction: is added; its ``by`` is ``[n]``.
        """

    @abstractmethod
    def scatter(self, pool: Tensor, index: Tensor, batch: Tensor, first: int = 0) -> None:
        """``pool[index[i, b]]`` becomes token ``first + i`` of row ``b``; the content of ``NULL_PAGE`` is undefined.

        Args:
            pool: ``[N, W]``.
            index: ``[n, B]``: which row of ``pool``; each but ``NULL_PAGE`` at most once.
            batch: ``[C, B, H, T, D]``.
            first: the first token that is read.
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of scratch memory."""


def notify_observers(written: Tensor, nbytes: int) -> None:
    """Report a write past torch: to autograd, which checks a tensor's version, and its bytes to the observers."""
    increment_version(written)
    for observe in kernel_observers:
        observe(nbytes)
