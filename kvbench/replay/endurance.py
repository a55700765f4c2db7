"""What shows only when a backend is used for long, or with a large pool: damage, leaks, calls that get slower."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import torch

from kvbench.measure.counters import Counts, PlainCounter
from kvbench.measure.host import BytecodeMeter, ScratchMeter, array_bytes, heap_bytes, held_bytes, traced_memory
from kvbench.measure.memory import HostMemory
from kvbench.measure.stopwatch import no_collection
from kvbench.metrics import SMALL_POOL as SMALL_POOL_SUFFIX
from kvbench.replay.fixture import WrongContentError
from kvbench.replay.stream import PERIOD, Stream, just_call, stream_config
from kvcache import CacheBackend, CacheConfig

__all__ = [
    "LARGE_POOL", "LONG_RUN", "SMALL_POOL", "TRIALS", "Laps", "Make", "eviction_counts", "find_aged", "grown_by",
    "long_run_counts", "memory_counts", "within",
]  # fmt: skip

Make = Callable[[CacheConfig], CacheBackend]

SMALL_POOL, LARGE_POOL = 64, 4096  # slots
LONG_RUN = 18 * PERIOD  # lookups, and two periods before: what is wrong once in 10,000 is seen
WARM = 1024  # lookups, after which a backend has all the memory that it needs
COUNTED = 128  # lookups

# Times are judged here only where the same code shows no such ratio on a busy machine (benchmarks/gates/README.md).
MOST_AGED = 1.5  # a lookup, assembly or store of the last quarter over one of the first
MOST_UNEVEN = 1.6  # every n-th call over the others
MOST_GROWN = 3.0  # a store in the large pool over one in the small pool
FEWEST_LAPS = 80  # whose typical one is steady
TRIALS = 3  # a fault in time is one in each of them
_OF_POOLS = ("lookup", "assemble", "store")  # the operations that a pool's size could slow
_PERIODS = range(2, 17)  # calls after which a slow one comes again
_TYPICAL = 25  # percentile: a neighbour on the machine slows the calls above it


def memory_counts(make: Make) -> dict[str, float]:
    """What one backend in use holds, in bytes, by the names of ``kvbench.metrics``: the same in every process.

    Raises WrongContentError: a row was not what it should be.
    """
    return {**_tensor_memory(make), **_host_memory(make), **_heap_memory(make)}


def _tensor_memory(make: Make) -> dict[str, float]:
    memory = HostMemory()
    meter = within(memory)
    stream = Stream(meter("make", make, stream_config(SMALL_POOL)), meter)
    stream.run(WARM)
    before = memory.held
    stream.run(COUNTED)
    stream.require_sound()
    return {
        "peak_bytes": memory.peak,
        "unreserved_bytes": memory.held - sum(stream.backend.bytes_reserved.values()),
        "tensor_bytes_grown": grown_by(memory.held - before),
    }


def _host_memory(make: Make) -> dict[str, float]:
    with traced_memory():
        stream = Stream(make(stream_config(SMALL_POOL)))
        stream.run(WARM)
        before = held_bytes()
        stream.run(COUNTED)
        grown, arrays = held_bytes() - before, array_bytes()
        stream.meter = scratch = ScratchMeter()
        stream.run(COUNTED)
    stream.require_sound()
    return {"array_bytes": arrays, "host_bytes_grown": grown_by(grown), "host_scratch_bytes": scratch.most}


def _heap_memory(make: Make) -> dict[str, float]:
    stream = Stream(make(stream_config(SMALL_POOL)))
    stream.run(WARM)
    before = heap_bytes()
    stream.run(COUNTED)
    after = heap_bytes()
    return {} if before is None or after is None else {"heap_bytes_grown": grown_by(after - before)}


def grown_by(amount: float, calls: int = COUNTED) -> int:
    """By how much each lookup makes it grow, in whole units: what Python keeps for later is less."""
    return max(0, int(amount / calls))


def within(context: AbstractContextManager[Any]) -> Callable[..., Any]:
    """A meter that makes each call inside a context."""

    def meter(operation: str, call: Callable[..., Any], *arguments: Any) -> Any:
        with context:
            return call(*arguments)

    return meter


def _counts(stream: Stream) -> Counts:
    counter = PlainCounter()
    stream.meter = within(counter)
    stream.run(COUNTED)
    return counter.counts


def _bytecodes(stream: Stream) -> int:
    stream.meter = meter = BytecodeMeter()
    stream.run(COUNTED)
    return meter.bytecodes


def long_run_counts(make: Make, lookups: int = LONG_RUN) -> dict[str, float]:
    """What calls ask of torch and of Python, and how much more of Python after so many lookups, a multiple of PERIOD.

    Raises WrongContentError: a row was not what it should be, or calls get slower.
    """
    fault, numbers, first = None, dict[str, float](), dict[str, float]()
    for _ in range(TRIALS):
        stream = Stream(make(stream_config(SMALL_POOL)))
        counts = _counts(stream)
        stream.meter = just_call
        stream.run(PERIOD - COUNTED)
        before = _bytecodes(stream)
        stream.meter = just_call
        stream.run(PERIOD - COUNTED)
        stream.meter = clock = Laps()
        with no_collection():
            stream.run(lookups)
        after = _bytecodes(stream)
        stream.require_sound()
        numbers = asdict(counts) | {"bytecodes": before, "bytecodes_grown": grown_by(after - before)}
        # What grows may outlive a backend: all trials are compared with the beginning of the first.
        first = first or clock.quarter(0)
        fault = find_aged(first, clock.quarter(3)) or _uneven(clock.laps)
        if fault is None:
            return numbers
    raise WrongContentError(f"{stream.backend.name}: {fault}")


class Laps:
    """Nanoseconds of each call, by operation; and of work that has nothing to do with a cache, beside each assembly."""

    def __init__(self) -> None:
        self.laps: dict[str, list[int]] = {}
        self._control: list[int] = []
        self._one, self._other = torch.zeros(64), torch.ones(64)

    def __call__(self, operation: str, call: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter_ns()
        result = call(*arguments)
        end = time.perf_counter_ns()
        self.laps.setdefault(operation, []).append(end - start)
        if operation == "assemble":
            self._one.copy_(self._other)
            self._one.narrow(0, 0, 8).add_(1)
            self._control.append(time.perf_counter_ns() - end)
        return result

    def quarter(self, number: int) -> dict[str, float]:
        """Typical laps of a quarter's calls, over the control's of that time."""
        control = _typical(_quarter(self._control, number))
        return {operation: _typical(_quarter(laps, number)) / control for operation, laps in self.laps.items()}


def _quarter(laps: list[int], number: int) -> list[int]:
    return laps[number * len(laps) // 4 : (number + 1) * len(laps) // 4]


def find_aged(first: Mapping[str, float], last: Mapping[str, float]) -> str | None:
    """Whether an operation's calls get slower."""
    for operation, before in first.items():
        if last[operation] > MOST_AGED * before:
            times = f"{last[operation] / before:.2f} times"
            return f"{operation} gets slower: the last quarter of the calls takes {times} as long as the first"
    return None


def _uneven(laps: Mapping[str, list[int]]) -> str | None:
    """Whether every n-th call of an operation is slower than the others."""
    for (operation, all_laps), period in product(laps.items(), _PERIODS):
        if len(all_laps) < FEWEST_LAPS * period:
            continue
        by_place = [_typical(all_laps[first::period]) for first in range(period)]
        uneven = max(by_place) / min(by_place)
        if uneven > MOST_UNEVEN:
            longer = f"it takes {uneven:.2f} times as long as the fastest"
            return f"of every {period} calls of {operation} one is slow: {longer}"
    return None


def eviction_counts(make: Make, strategy: str) -> dict[str, float]:
    """What one strategy costs in a large pool, and (``_in_small_pool``) in a small one.

    Raises WrongContentError: a row was not what it should be, or a call takes longer where the pool has more slots.
    """
    slots = {"": LARGE_POOL, SMALL_POOL_SUFFIX: SMALL_POOL}
    streams = {name: Stream(make(stream_config(each, eviction_strategy=strategy))) for name, each in slots.items()}
    fault = _growth_fault(*streams.values())
    numbers: dict[str, float] = {}
    for name, stream in streams.items():
        pool = stream.backend.recur_pool.stats
        before = pool.hits, pool.misses, pool.evictions
        found = asdict(_counts(stream)) | {"bytecodes": _bytecodes(stream)}
        after = pool.hits, pool.misses, pool.evictions
        outcomes = zip(("hit", "miss", "evictions"), after, before, strict=True)
        found |= {outcome: last - first for outcome, last, first in outcomes}
        numbers |= {f"{metric}{name}": number for metric, number in found.items()}
        stream.require_sound()
    if fault is not None:
        raise WrongContentError(f"{stream.backend.name}, {strategy}: {fault}")
    return numbers


def _growth_fault(large: Stream, small: Stream) -> str | None:
    """Whether a call takes longer in the large pool; both are timed call by call in turns."""
    fault = None
    for _ in range(TRIALS):
        large.meter, small.meter = of_large, of_small = Laps(), Laps()
        with no_collection():
            for _ in range(2 * COUNTED):
                large.run(1)
                small.run(1)
        grown = {name: _typical(of_large.laps[name]) / _typical(of_small.laps[name]) for name in _OF_POOLS}
        worst = max(grown, key=grown.__getitem__)
        if grown[worst] <= MOST_GROWN:
            return None
        fault = f"{worst} takes {grown[worst]:.1f} times as long with {LARGE_POOL} slots as with {SMALL_POOL}"
    return fault


def _typical(laps: list[int]) -> float:
    return float(np.percentile(laps, _TYPICAL))
