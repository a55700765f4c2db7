"""How tokens get from pools into a batch and back."""

from kvcache.kernels.base import NULL_PAGE, ZERO_PAGE, Kernels, kernel_observers, notify_observers
from kvcache.kernels.choose import make_kernels
from kvcache.kernels.torch import TorchKernels, copy_rows

__all__ = [
    "NULL_PAGE",
    "ZERO_PAGE",
    "Kernels",
    "TorchKernels",
    "copy_rows",
    "kernel_observers",
    "make_kernels",
    "notify_observers",
]
