"""Claims about a pool by itself; printed by ``claims.py``."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cachetools
import torch

from kvbench.measure.counters import OperationCounter
from kvcache import GEOMETRIES, CacheConfig, EvictionStrategy, KeysValues, KVCachePool, Scope, make_backend

try:
    from lru import LRU
except ImportError:  # a peer in C; it is printed where it is installed
    LRU = None

__all__ = ["allocations", "bookkeeping", "bookkeeping_ratios", "clear_shares", "clear_times", "clearing"]

POOLS = (16, 400, 4096, 65536)
OPERATIONS = 20_000  # gets and sets of a lap
RANDOM = "random priorities"

Calls = tuple[Callable[..., object], Callable[..., object]]  # get and set

CLEARED = ("legacy", "new:private", "new:slab", "new:paged", "new:paged-resident")
SIMULATIONS = 50


def bookkeeping() -> None:
    """A get and a set without tensors, against ``cachetools.LRUCache``, in alternating order; lru-dict beside it."""
    for slots in POOLS:
        for what in (*EvictionStrategy, RANDOM):
            name = what if isinstance(what, str) else what.name
            print(f"{slots} slots, get + set, {name}: {_described(bookkeeping_ratios(what, slots=slots))}")
        if LRU is not None:
            print(f"{slots} slots, get + set, lru-dict: {_described(_ratios(_lru_dict, slots, 15, None))}")


def _described(pairs: list[float]) -> str:
    low, middle, high = statistics.quantiles(pairs, n=4)
    return f"{middle:.2f} times cachetools.LRUCache (quartiles {low:.2f} to {high:.2f} of {len(pairs)} pairs)"


def bookkeeping_ratios(what: EvictionStrategy | str, pairs: int = 15, slots: int = 400) -> list[float]:
    """Time of our pool over time of ``cachetools.LRUCache`` for the same gets and sets, one ratio a pair.

    Both are full, and half of the keys are not there. ``RANDOM`` gives each set a priority of its own.
    """
    strategy = EvictionStrategy.PRIORITY if isinstance(what, str) else what
    numbers = random.Random(1)
    priorities = [numbers.random() for _ in range(OPERATIONS)] if what == RANDOM else None

    def make(slots: int) -> Calls:
        pool = KVCachePool(slots, strategy, storage="reference")
        return pool.get, pool.set

    return _ratios(make, slots, pairs, priorities)


def _ratios(make: Callable[[int], Calls], slots: int, pairs: int, priorities: list[float] | None) -> list[float]:
    source = random.Random(0)
    keys = [source.randrange(2 * slots) for _ in range(OPERATIONS)]
    ratios = []
    with _no_collection():
        for number in range(pairs):
            laps = {}
            order = [(make, priorities), (_cachetools, None)]
            for each, given in order if number % 2 else reversed(order):
                laps[each] = _lap(each(slots), keys, slots, given)
            ratios.append(laps[make] / laps[_cachetools])
    return ratios


def _lap(calls: Calls, keys: list[int], slots: int, priorities: list[float] | None) -> int:
    """Nanoseconds of gets and sets of a full pool."""
    (get, put), value = calls, object()
    for key in range(slots):
        put(key, value)
    if priorities is None:
        start = time.perf_counter_ns()
        for key in keys:
            get(key)
            put(key, value)
        return time.perf_counter_ns() - start
    start = time.perf_counter_ns()
    for key, priority in zip(keys, priorities, strict=True):
        get(key)
        put(key, value, priority)
    return time.perf_counter_ns() - start


def _cachetools(slots: int) -> Calls:
    cache = cachetools.LRUCache(slots)
    return cache.get, cache.__setitem__


def _lru_dict(slots: int) -> Calls:
    cache = LRU(slots)
    return cache.get, cache.__setitem__


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def clearing() -> None:
    """A clear of the recurrent pool, empty and after a search of visual-match, by number of environments.

    Paged storage frees the pages of a cleared search when others are needed, which is in the stores of the next search.
    """
    for environments in (1, 8, 64):
        for simulations in (0, SIMULATIONS):
            times = clear_times(environments, simulations)
            print(
                f"{environments} environments, {environments * simulations} entries, us to clear: "
                + ", ".join(f"{name} {statistics.median(laps):.1f}" for name, laps in times.items())
            )
        shares = clear_shares(environments, SIMULATIONS)
        print(
            f"{environments} environments, % of a search, to clear and to free later: "
            + ", ".join(f"{name} {clear:.2f} and {later:.2f}" for name, (clear, later) in shares.items())
        )


def clear_shares(environments: int, simulations: int, laps: int = 5) -> dict[str, tuple[float, float]]:
    """In % of a search's calls of the cache: its clear, and what that leaves to be freed later; of each the least lap.

    To ask for the bytes in use frees all that was cleared. Asked again, it only counts.
    """
    caches = _cleared_caches(environments)
    found: dict[str, list[list[int]]] = {name: [] for name in caches}
    with _no_collection():
        for lap in range(laps):
            for name, cache in caches.items() if lap % 2 else reversed(caches.items()):
                search = _nanoseconds(lambda each=cache: _search(each, simulations))
                _count_bytes(cache)
                clear = _nanoseconds(cache.clear_recur_cache)
                freed, counted = _count_bytes(cache), _count_bytes(cache)
                found[name].append([search, clear, max(freed - counted, 0)])
    least = {name: [min(each) for each in zip(*rows, strict=True)] for name, rows in found.items()}
    return {name: (100 * clear / search, 100 * later / search) for name, (search, clear, later) in least.items()}


def _count_bytes(cache: Any) -> int:
    return _nanoseconds(lambda: cache.recur_pool.bytes_reserved)


def _nanoseconds(call: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start


def _cleared_caches(environments: int) -> dict[str, Any]:
    geometry = replace(
        GEOMETRIES["visual-match"], num_layers=1, num_heads=2, embed_dim=16, env_num=environments, num_simulations=50
    )
    config = CacheConfig(geometry, init_pool_size=4)
    return {name: make_backend(name, config) for name in CLEARED}


def clear_times(environments: int, simulations: int, laps: int = 5) -> dict[str, list[float]]:
    """Microseconds of ``clear_recur_cache`` after a search with that many simulations, backend by backend in turns.

    Tokens are small: a clear moves none. Contexts are as long as visual-match's, and share their pages as in a tree.
    """
    caches = _cleared_caches(environments)
    times: dict[str, list[float]] = {name: [] for name in caches}
    with _no_collection():
        for lap in range(laps):
            for name, cache in caches.items() if lap % 2 else reversed(caches.items()):
                _search(cache, simulations)
                times[name].append(_nanoseconds(cache.clear_recur_cache) / 1000)
    return times


def _search(cache: Any, simulations: int) -> None:
    """A root, and simulations that go on from it or from the last one."""
    geometry = cache.config.geometry
    root = _step(cache, [None] * geometry.env_num, geometry.slid_size - 2 * SIMULATIONS // 5, Scope.ROOT, 0)
    keys = root
    for number in range(simulations):
        keys = _step(cache, keys if number % 5 else root, 2, Scope.NODE, number + 1)


def _step(cache: Any, parents: list[Any], tokens: int, scope: Scope, number: int) -> list[Any]:
    geometry = cache.config.geometry
    environments = list(range(geometry.env_num))
    cache.lookup(environments, parents, scope)
    cache.assemble()
    new = torch.zeros(geometry.env_num, geometry.num_heads, tokens, geometry.head_dim)
    for layer in cache.keys_values_wm:
        layer.update(new, new)
    keys = [number * geometry.env_num + env for env in environments]
    cache.store(environments, keys, scope)
    return keys


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
