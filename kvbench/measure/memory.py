"""The most memory that a piece of code holds at once: by a CUDA device's allocator, or counted on the host."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from kvbench.measure.counters import tensors_in

__all__ = ["CudaMemory", "HostMemory", "MemoryWatch", "watch_memory"]


class MemoryWatch(Protocol):
    """A context whose ``peak`` is, afterwards, the most bytes that were held at once of what was allocated in it."""

    peak: int

    def __enter__(self) -> MemoryWatch: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


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
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        known = {each.untyped_storage()._cdata for each in tensors_in((*args, *kwargs.values()))}
        for each in tensors_in((result,)):
            storage = each.untyped_storage()
            if storage._cdata not in known and storage._cdata not in self._storages:
                # The reference keeps the address taken, so that no later storage is mistaken for this one.
                self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.cuda.synchronize(self._device)
        self.peak = torch.cuda.max_memory_allocated(self._device) - self._before


def watch_memory(device: torch.device | str) -> MemoryWatch:
    """The watch that suits ``device``."""
    device = torch.device(device)
    return CudaMemory(device) if device.type == "cuda" else HostMemory()
