"""Claims about a pool by itself; printed by ``claims.py``."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable

import cachetools

from kvbench.measure.counters import OperationCounter
from kvcache import EvictionStrategy, KeysValues, KVCachePool

__all__ = ["allocations", "bookkeeping", "bookkeeping_ratios"]


def bookkeeping() -> None:
    """A get and a set without tensors, against ``cachetools.LRUCache``, in alternating order."""
    for strategy in EvictionStrategy:
        pairs = bookkeeping_ratios(strategy)
        print(
            f"get + set, {strategy.name}: {statistics.median(pairs):.2f} times cachetools.LRUCache "
            f"({min(pairs):.2f} to {max(pairs):.2f} in {len(pairs)} pairs)"
        )


def bookkeeping_ratios(strategy: EvictionStrategy, pairs: int = 15, slots: int = 400) -> list[float]:
    """Time of our pool over time of ``cachetools.LRUCache`` for the same gets and sets, one ratio a pair."""
    source = random.Random(0)
    keys = [source.randrange(2 * slots) for _ in range(20_000)]
    value = object()

    def lap(get: Callable[..., object], put: Callable[..., object]) -> int:
        start = time.perf_counter_ns()
        for key in keys:
            get(key)
            put(key, value)
        return time.perf_counter_ns() - start

    ratios = []
    gc.collect()
    gc.disable()
    try:
        for number in range(pairs):
            ours, theirs = KVCachePool(slots, strategy, storage="reference"), cachetools.LRUCache(slots)
            laps = {}
            order = [("ours", ours.get, ours.set), ("theirs", theirs.get, theirs.__setitem__)]
            for name, get, put in order if number % 2 else reversed(order):
                laps[name] = lap(get, put)
            ratios.append(laps["ours"] / laps["theirs"])
    finally:
        gc.enable()
    return ratios


def allocations() -> None:
    """50 inserts, ten times over, with a clear in between."""
    pool = KVCachePool(400)
    entry = KeysValues(1, 8, 8, 768, 2)
    after_first = 0
    for round_number in range(10):
        with OperationCounter() as counter:
            for key in range(50):
                pool.set(key + 50 * round_number, entry)
            pool.clear()
        if round_number:
            after_first += counter.counts.allocations
    print(
        f"50 inserts x 10 clears: {pool.slots_allocated} slots allocated, {after_first} tensors after the first round"
    )
