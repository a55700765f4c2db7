"""The most memory that a piece of code holds at once: by a CUDA device's allocator, or counted on the host."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from kvbench.measure.counters import DispatchMode, is_view, new_storages, tensors_in

__all__ = ["CudaMemory", "HostMemory", "watch_memory"]


class HostMemory(DispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that torch's operations make and that are still alive: the same on any machine.

    ``held`` are bytes that are alive now, ``peak`` the most that were.

    The host has no allocator that could be asked: a process's own peak also holds libraries, and what was freed.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.held = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}  # that are alive, by their address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs) if kwargs else func(*args)
        if is_view(func) or (args and result is args[0]):  # no storage is new
            return result
        outputs = [result] if isinstance(result, torch.Tensor) else tensors_in(result)
        for each in outputs:
            if each.untyped_storage()._cdata not in self._storages:
                self._note(new_storages(tensors_in((args, kwargs)), outputs))
                break
        return result

    def _note(self, storages: dict[int, torch.UntypedStorage]) -> None:
        for address, storage in storages.items():
            if address not in self._storages:
                self._hold(address, storage, storage.nbytes())
        self.peak = max(self.peak, self.held)

    def _hold(self, address: int, storage: torch.UntypedStorage, nbytes: int) -> None:
        def died(_: object) -> None:
            del self._storages[address]
            self.held -= nbytes

        self._storages[address] = weakref.ref(storage, died)
        self.held += nbytes


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
