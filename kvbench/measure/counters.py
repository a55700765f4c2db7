"""Deterministic costs: what a piece of code asks of torch, counted as it is dispatched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from operator import add, attrgetter
from typing import Any, NamedTuple, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kvcache import kernel_observers

__all__ = ["Counts", "DispatchMode", "OperationCounter", "PlainCounter", "is_view", "new_storages", "tensors_in"]

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
        return Counts(*map(add, _values(self), _values(other)))

    def share(self, place: int, of: int) -> Counts:
        """One of so many parts, all together the whole; they differ by 1 at most."""
        return Counts(*(count * (place + 1) // of - count * place // of for count in _values(self)))


_values = attrgetter(*(each.name for each in fields(Counts)))


class _Operation(NamedTuple):
    """What an operation's schema and name say about its costs."""

    is_view: bool
    writes_inputs: bool
    synchronises: bool
    moves: bool  # elements
    written: int | None  # the argument that a partial write moves
    func: Any  # kept, so that no other operation gets its address


_known_operations: dict[int, _Operation] = {}  # by address: hashing an operation takes longer


def _operation(func: Any) -> _Operation:
    known = _known_operations.get(id(func))
    if known is None:
        name = func.overloadpacket.__name__
        known = _known_operations[id(func)] = _Operation(
            func.is_view,
            func._schema.is_mutable,
            name in _SYNCHRONISING,
            name not in _ALLOCATING_ONLY,
            _PARTIAL_WRITES.get(name),
            func,
        )
    return known


def is_view(func: Any) -> bool:
    """Whether an operation's schema says that its results are views of what it was given."""
    return _operation(func).is_view


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode around code that calls nothing compiled by ``torch.compile``."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No. Otherwise torch imports its compiler, which takes two seconds, and each operation takes longer."""
        return False


class PlainCounter(DispatchMode):
    """An ``OperationCounter`` around code that calls nothing compiled by ``torch.compile``: faster."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counts()

    def __enter__(self) -> Self:
        entered: Self = super().__enter__()  # type: ignore[no-untyped-call]
        kernel_observers.append(self._count_kernel)
        return entered

    def __exit__(self, *error: Any) -> None:
        kernel_observers.remove(self._count_kernel)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _count_kernel(self, nbytes: int) -> None:
        self.counts.tensor_ops += 1
        self.counts.bytes_copied += nbytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs) if kwargs else func(*args)
        about = _operation(func)
        if about.is_view:
            return result
        outputs = [result] if isinstance(result, torch.Tensor) else tensors_in(result)
        inputs = tensors_in((args, kwargs)) if kwargs else tensors_in(args)
        fresh = new_storages(inputs, outputs)
        if outputs and not fresh and not about.writes_inputs:
            return result  # a view in effect: reshape, contiguous or to() that had nothing to do
        counts = self.counts
        counts.allocations += len(fresh)
        counts.tensor_ops += 1
        for storage in fresh.values():
            counts.bytes_allocated += storage.nbytes()
        if about.written is not None:
            counts.bytes_copied += args[about.written].nbytes
        elif about.moves:
            for each in outputs:
                counts.bytes_copied += each.nbytes
        if about.synchronises or (_any_on(outputs, cpu=True) and _any_on(inputs, cpu=False)):
            counts.synchronisations += 1
        return result


def _any_on(tensors: Iterable[torch.Tensor], cpu: bool) -> bool:
    """Whether any of them is on a CPU, or else on a device."""
    for each in tensors:  # noqa: SIM110 - several times as fast as a generator
        if each.is_cpu is cpu:
            return True
    return False


class OperationCounter(PlainCounter):  # type: ignore[no-untyped-call]
    """Counts every operation dispatched while the mode is active, and the library's own kernels, of any thread.

    A view is an operation whose schema says that its result aliases its input without writing to it, or one whose
    results all share their storage with an input. An in-place ``copy_`` is one operation and no allocation.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)


def tensors_in(values: Any) -> list[torch.Tensor]:
    """The tensors among an operation's arguments or results, alone or in lists."""
    if isinstance(values, torch.Tensor):
        return [values]
    found: list[torch.Tensor] = []
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, (tuple, list)):
        return found
    for each in values:
        if isinstance(each, torch.Tensor):
            found.append(each)
        elif isinstance(each, (tuple, list, dict)) and each:
            found += tensors_in(each)
    return found


def new_storages(inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> dict[int, torch.UntypedStorage]:
    """The storages of an operation's results that none of its arguments has, by their address."""
    if len(outputs) == 1 and inputs and outputs[0] is inputs[0]:  # it was written in place
        return {}
    if len(outputs) == 1:
        storage = outputs[0].untyped_storage()
        address = storage._cdata
        for each in inputs:
            if each.untyped_storage()._cdata == address:
                return {}
        return {address: storage}
    known = {each.untyped_storage()._cdata for each in inputs}
    storages = [each.untyped_storage() for each in outputs]
    return {storage._cdata: storage for storage in storages if storage._cdata not in known}
