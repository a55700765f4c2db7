"""How tokens get from pools into a batch and back."""

from kvcache.kernels.base import NULL_PAGE, ZERO_PAGE, Correction, Kernels, kernel_observers, notify_observers
from kvcache.kernels.choose import make_kernels
from kvcache.kernels.huge import large_memory
from kvcache.kernels.torch import TorchKernels

__all__ = [
    "NULL_PAGE",
    "ZERO_PAGE",
    "Correction",
    "Kernels",
    "TorchKernels",
    "kernel_observers",
    "large_memory",
    "make_kernels",
    "notify_observers",
]
