"""What calls ask of the host, the same on any machine: bytecodes of Python, and memory that is no tensor's.

Each class is a meter: ``meter(operation, call, *arguments)`` makes a call and returns its result.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

__all__ = [
    "BytecodeMeter",
    "ScratchMeter",
    "array_bytes",
    "frozen_garbage",
    "heap_bytes",
    "held_bytes",
    "traced_memory",
]

LARGE_BLOCK = 2048  # bytes: whether a small object is there depends on what Python keeps for later
_OF_NUMPY: int = np.lib.tracemalloc_domain
_HARNESS = str(Path(__file__).parents[1] / "*")
_LIBC = ctypes.CDLL(None)


class _Mallinfo(ctypes.Structure):
    """What glibc's ``mallinfo2`` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


class BytecodeMeter:
    """Counts the bytecodes that calls execute. What runs in C is not among them.

    Attributes:
        bytecodes: of all calls.
    """

    def __init__(self) -> None:
        self.bytecodes = 0

    def __call__(self, operation: str, call: Callable[..., Any], *arguments: Any) -> Any:
        before = sys.gettrace()
        sys.settrace(self._begin)
        try:
            return call(*arguments)
        finally:
            sys.settrace(before)

    def _begin(self, frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._count

    def _count(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.bytecodes += event == "opcode"
        return self._count


class ScratchMeter:
    """Inside ``traced_memory``, finds the most memory that a call needed beside what it found.

    Attributes:
        most: bytes.
    """

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, operation: str, call: Callable[..., Any], *arguments: Any) -> Any:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        result = call(*arguments)
        self.most = max(self.most, tracemalloc.get_traced_memory()[1] - before)
        return result


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """Collections in the block leave out what is there already: all that torch is made of takes 0.1 s."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def traced_memory() -> Iterator[None]:
    """Trace what Python and NumPy allocate in the block. No garbage is collected in it but by ``held_bytes``."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    _blocks()  # the first one imports and compiles what all of them need
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        if enabled:
            gc.enable()


def held_bytes() -> int:
    """Bytes of all that was allocated inside ``traced_memory`` by others than the harness, and is still there."""
    return sum(size for size, _ in _blocks())


def array_bytes() -> int:
    """As ``held_bytes``, of NumPy's arrays and large objects of Python only. They are the same in all processes."""
    return sum(size for size, domain in _blocks() if domain == _OF_NUMPY or size >= LARGE_BLOCK)


def _blocks() -> list[tuple[int, int]]:
    """Sizes and domains of what is held."""
    gc.collect()
    traced = tracemalloc.is_tracing()
    if not traced:
        tracemalloc.start()
    others = [tracemalloc.Filter(False, pattern) for pattern in (_HARNESS, tracemalloc.__file__)]
    found = [(trace.size, trace.domain) for trace in tracemalloc.take_snapshot().filter_traces(others).traces]
    if not traced:
        tracemalloc.stop()
    return found


def heap_bytes() -> int | None:
    """Bytes that malloc has given away, also to C code that no other meter sees; None where the C library cannot say.

    Small objects of Python are not among them.
    """
    if not hasattr(_LIBC, "mallinfo2"):
        return None
    gc.collect()
    _LIBC.mallinfo2.restype = _Mallinfo
    found = _LIBC.mallinfo2()
    return int(found.uordblks + found.hblkhd)
