"""Deterministic costs: what a piece of code asks of torch, counted as it is dispatched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kvcache import kernel_observers

__all__ = ["Counts", "OperationCounter", "new_storages", "tensors_in"]

# Operations that only make or describe tensors: no element is moved.
_ALLOCATING_ONLY = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})
_SYNCHRONISING = frozenset({"_local_scalar_dense", "item", "equal", "nonzero", "masked_select", "is_nonzero"})
# Operations that write a part of a larger tensor: the bytes they move are those of this argument.
_PARTIAL_WRITES = {"index_copy_": 3, "index_put_": 2, "index_add_": 3, "scatter_": 3}


@dataclass(slots=True)
class Counts:
    """What was dispatched, and what the library's own kernels did: those on a CPU are fewer where they are compiled.

    Attributes:
        tensor_ops: operations that are not views: they read, write or allocate.
        bytes_copied: bytes written to tensors by copies, concatenations, paddings, gathers and the like.
        allocations: new storages.
        bytes_allocated: their bytes.
        synchronisations: operations at which the host waits for a device: transfers to the host and values read.
            On CPU tensors only the latter exist.
    """

    tensor_ops: int = 0
    bytes_copied: int = 0
    allocations: int = 0
    bytes_allocated: int = 0
    synchronisations: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operation dispatched while the mode is active, and the library's own kernels, of any thread.

    A view is an operation whose schema says that its result aliases its input without writing to it, or one whose
    results all share their storage with an input. An in-place ``copy_`` is one operation and no allocation.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counts()

    def __enter__(self) -> OperationCounter:
        entered: OperationCounter = super().__enter__()  # type: ignore[no-untyped-call]
        kernel_observers.append(self._count_kernel)
        return entered

    def __exit__(self, *error: Any) -> None:
        kernel_observers.remove(self._count_kernel)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _count_kernel(self, nbytes: int) -> None:
        self.counts.tensor_ops += 1
        self.counts.bytes_copied += nbytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view:
            return result
        inputs, outputs = tensors_in((args, kwargs)), tensors_in(result)
        fresh = new_storages(inputs, outputs)
        if outputs and not fresh and not func._schema.is_mutable:
            return result  # a view in effect: reshape, contiguous or to() that had nothing to do
        name = func.overloadpacket.__name__
        counts = self.counts
        counts.tensor_ops += 1
        counts.allocations += len(fresh)
        counts.bytes_allocated += sum(storage.nbytes() for storage in fresh.values())
        if name in _PARTIAL_WRITES:
            counts.bytes_copied += args[_PARTIAL_WRITES[name]].nbytes
        elif name not in _ALLOCATING_ONLY:
            counts.bytes_copied += sum(each.nbytes for each in outputs)
        to_host = any(each.is_cpu for each in outputs) and not all(each.is_cpu for each in inputs)
        counts.synchronisations += to_host or name in _SYNCHRONISING
        return result


def tensors_in(values: Any) -> list[torch.Tensor]:
    """The tensors among an operation's arguments or results, alone or in lists."""
    return [each for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


def new_storages(inputs: Iterable[torch.Tensor], outputs: Iterable[torch.Tensor]) -> dict[int, torch.UntypedStorage]:
    """The storages of an operation's results that none of its arguments has, by their address."""
    known = {each.untyped_storage()._cdata for each in inputs}
    storages = (each.untyped_storage() for each in outputs)
    return {storage._cdata: storage for storage in storages if storage._cdata not in known}
