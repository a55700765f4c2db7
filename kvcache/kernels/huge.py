"""Memory that kernels move tokens in, in huge pages where the system has them: fewer addresses are to be translated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvcache.memory import memory

try:
    from kvcache.kernels._cpu_kernels import prefer_huge_pages
except ImportError:  # it could not be compiled

    def prefer_huge_pages(address: int, nbytes: int, /) -> None:
        """Do without."""


__all__ = ["large_memory"]


def large_memory(shape: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """As ``memory``; the system is asked for huge pages, if it is a CPU's memory and room for some."""
    tensor = memory(shape, device, dtype)
    if tensor.is_cpu:
        prefer_huge_pages(tensor.data_ptr(), tensor.nbytes)
    return tensor
