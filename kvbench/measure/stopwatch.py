"""Timing one call at a time, on the host and on a device."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

__all__ = ["CudaStopwatch", "HostStopwatch", "Lap", "Stopwatch", "make_stopwatch", "no_collection", "split_laps"]

# Host nanoseconds until the work was done, and a way to learn the device's nanoseconds once it is.
Lap = tuple[int, Callable[[], float] | None]


def split_laps(laps: Sequence[Lap]) -> tuple[list[int], list[float]]:
    """Nanoseconds of the host, and of the device, of which there are none without its clock."""
    return [host for host, _ in laps], [read() for _, read in laps if read is not None]


class Stopwatch(Protocol):
    def time(self, call: Callable[..., Any], *args: Any) -> tuple[Any, Lap]:
        """Call and time it: its result and its lap."""


class HostStopwatch:
    """For work that is done when the call returns; ``timer`` is monotonic, in nanoseconds."""

    def __init__(self, timer: Callable[[], int] = time.perf_counter_ns) -> None:
        self._timer = timer

    def time(self, call: Callable[..., Any], *args: Any) -> tuple[Any, Lap]:
        timer = self._timer
        start = timer()
        result = call(*args)
        return result, (timer() - start, None)


class CudaStopwatch:
    """For work that a CUDA stream does: the host's time until it is done, and the device's between two events.

    Each call is synchronised on its own: a step's time is the sum of its operations', none of them overlapping. The
    host's time includes recording one event.

    Args:
        timer: nanoseconds, monotonic.
        synchronize: waits for the device.
        event: makes an event of the current stream, which tells milliseconds between two.
    """

    def __init__(
        self,
        timer: Callable[[], int] = time.perf_counter_ns,
        synchronize: Callable[[], None] = torch.cuda.synchronize,
        event: Callable[[], Any] = lambda: torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
    ) -> None:
        self._timer = timer
        self._synchronize = synchronize
        self._event = event

    def time(self, call: Callable[..., Any], *args: Any) -> tuple[Any, Lap]:
        began, ended = self._event(), self._event()
        ended.record()  # an event is made on its first record: not while the clock runs
        self._synchronize()
        began.record()
        start = self._timer()
        result = call(*args)
        ended.record()
        self._synchronize()
        elapsed = self._timer() - start
        return result, (elapsed, lambda: began.elapsed_time(ended) * 1e6)


def make_stopwatch(device: torch.device | str) -> Stopwatch:
    """The stopwatch for a device."""
    return CudaStopwatch() if torch.device(device).type == "cuda" else HostStopwatch()


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect garbage before the block, and none in it."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
