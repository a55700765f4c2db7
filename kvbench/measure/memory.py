"""The most memory that a piece of code holds at once: by a CUDA device's allocator, or counted on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from kvbench.measure.counters import new_storages, tensors_in

__all__ = ["CudaMemory", "HostMemory", "watch_memory"]


class HostMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that torch's operations make and that are still alive: the same on any machine.

    The host has no allocator that could be asked: a process's own peak also holds libraries, and what was freed.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._held = 0  # at most; what has died is taken off only when it would make a new peak
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for address, storage in new_storages(tensors_in((args, kwargs)), tensors_in(result)).items():
            if address not in self._storages:
                # The reference keeps the address taken, so that no later storage is mistaken for this one.
                self._storages[address] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
                self._held += storage.nbytes()
        if self._held > self.peak:
            self._storages = {key: each for key, each in self._storages.items() if not each[0].expired()}  # type: ignore[no-untyped-call]
            self._held = sum(size for _, size in self._storages.values())
            self.peak = max(self.peak, self._held)
        return result


class CudaMemory:
    """Asks the caching allocator (``torch.cuda.max_memory_allocated``); resets its peak."""

    def __init__(self, device: torch.device) -> None:
        self.peak = 0
        self._device = device

    def __enter__(self) -> CudaMemory:
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *error: object) -> None:
        torch.cuda.synchronize(self._device)
        self.peak = torch.cuda.max_memory_allocated(self._device) - self._before


def watch_memory(device: torch.device | str) -> CudaMemory | HostMemory:
    """A context for ``device``: its ``peak`` is, afterwards, the most bytes held at once of those allocated in it."""
    device = torch.device(device)
    return CudaMemory(device) if device.type == "cuda" else HostMemory()
