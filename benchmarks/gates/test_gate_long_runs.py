"""Backends in long use and with large pools: what leaks, what gets slower, and the one wrong row in 10,000 lookups.

Nothing here is timed against the base. What can be counted is; the rest holds of each library by itself, or fails.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from suite.bridge import storages

# Written out, as in test_gate_operations.py.
BACKENDS = storages(["new:private", "new:slab", "new:paged", "new:paged-resident", "new:paged-exact"])
STRATEGIES = ["fifo", "lru", "priority"]  # of which all keep the newer half of a stream: the others choose
SEARCHES = 64  # that are repeated
EVICTING = ["new:slab", "new:paged"]  # the others have the pool of one of them


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    from kvbench.measure.host import frozen_garbage

    with frozen_garbage():
        yield


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


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    """The geometry and the steps of some short searches; episodes end among them."""
    from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
    from kvbench.replay.stream import GEOMETRY
    from kvbench.trace.reader import TraceReader
    from kvbench.trace.steps import read_steps

    geometry = replace(GEOMETRY, env_num=2, num_simulations=1)
    path = tmp_path_factory.mktemp("searches") / "trace.parquet"
    search = SyntheticSearch(geometry, SEARCHES, seed=0, episode_length=20, clear_ended=True)
    list(write_synthetic_trace(path, search))
    return geometry, list(read_steps(TraceReader(path).events()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_searches(benchmark, backend, searches, runs_long):
    from kvbench.replay.many_searches import search_counts

    _count(benchmark, backend, search_counts, *searches)


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
