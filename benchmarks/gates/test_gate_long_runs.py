"""Backends in long use and with large pools: what leaks, what gets slower, and the one wrong row in 10,000 lookups.

Nothing here is timed against the base. What can be counted is; the rest holds of each library by itself, or fails.
"""

from __future__ import annotations

import gc
from itertools import product

import pytest
from suite.bridge import storages

# Written out, as in test_gate_operations.py.
BACKENDS = storages(["new:private", "new:slab", "new:paged", "new:paged-resident", "new:paged-exact"])
STRATEGIES = ["fifo", "lru", "priority"]
EVICTING = ["new:slab", "new:paged"]  # the others have the pool of one of them


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    """Garbage is collected before each measurement: looking through all that torch is made of would take 0.1 s."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("backend", BACKENDS)
def test_long_run(benchmark, backend, runs_long):
    from kvbench.replay.endurance import long_run_counts

    _count(benchmark, backend, long_run_counts)


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory(benchmark, backend, runs_long):
    from kvbench.replay.endurance import memory_counts

    _count(benchmark, backend, memory_counts)


@pytest.mark.parametrize(("backend", "strategy"), [*product(EVICTING, STRATEGIES)])
def test_eviction(benchmark, backend, strategy, runs_long):
    from kvbench.replay.endurance import eviction_counts

    _count(benchmark, backend, eviction_counts, strategy)


def _count(benchmark, backend, count, *arguments):
    from kvbench.replay.operations import WrongContentError
    from kvcache import BACKENDS as AVAILABLE

    if backend not in AVAILABLE:
        pytest.skip(f"this commit has no backend {backend!r}")
    try:
        benchmark.extra_info["metrics"] = count(AVAILABLE[backend], *arguments)
    except WrongContentError as error:
        pytest.fail(str(error), pytrace=False)
    benchmark.extra_info["timed"] = False
    benchmark.pedantic(_nothing, rounds=1)


def _nothing():
    """Nothing is timed."""
