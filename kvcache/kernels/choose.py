"""The kernels that suit a device."""

from __future__ import annotations

import torch

from kvcache.kernels.base import Kernels
from kvcache.kernels.torch import TorchKernels

__all__ = ["make_kernels"]


def make_kernels(device: torch.device | str) -> Kernels:
    """The kernels that suit ``device``: Triton's on CUDA, compiled ones on a CPU; torch's where those are missing."""
    kind = torch.device(device).type
    try:
        if kind == "cuda":
            from kvcache.kernels.triton import TritonKernels

            return TritonKernels()
        if kind == "cpu":
            from kvcache.kernels.cpu import CpuKernels

            return CpuKernels()
    except ImportError:
        pass
    return TorchKernels()
