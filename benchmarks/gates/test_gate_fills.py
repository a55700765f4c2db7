"""Searches by how full contexts are: deterministic counters of all, times where the fill decides the cost."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product

import pytest
from suite.bridge import storages
from suite.clock import BackendClock

# Written out, as in test_gate_operations.py.
FILLS = ["start", "middle", "full", "sliding", "unequal"]
GEOMETRIES = ["cartpole", "lunarlander", "pong", "visual-match", "multitask", "wide"]
BACKENDS = storages(["new:private", "new:slab", "new:paged", "new:paged-resident", "new:paged-exact"])
# With 8 context tokens a step costs about the same at every fill, and test_gate_operations.py times full windows. Long
# contexts are where fills differ: windows that slide cost most, and rows of unequal length are padded. The two long
# geometries share all code, so that one is timed; and so do resident and exact batches but for what is counted.
TIMED = {*product(["sliding", "unequal"], ["visual-match"], ["new:slab", "new:paged"])}

# Counting takes time, too: few rows and simulations ask for every path, since contexts are as long as with more.
COUNTED_ROWS, COUNTED_SIMULATIONS = 2, 4
ROWS, SIMULATIONS = 8, 12
INIT_SLOTS = 2
ROUNDS = 5
CLOCK = BackendClock()


@pytest.fixture(scope="session")
def steps_of(tmp_path_factory):
    """The geometry and steps of each fill, made once."""
    from kvbench.record.fills import FilledSearch
    from kvbench.record.synthetic import write_synthetic_trace
    from kvbench.trace.reader import TraceReader
    from kvbench.trace.steps import read_steps
    from kvcache import GEOMETRIES as SHAPES

    known = {}

    def made(name, fill, rows, simulations):
        place = name, fill, rows, simulations
        if place not in known:
            geometry = replace(SHAPES[name], env_num=rows, num_simulations=simulations)
            path = tmp_path_factory.mktemp("fills") / "trace.parquet"
            list(write_synthetic_trace(path, FilledSearch(geometry, 1, seed=0, fill=fill)))
            known[place] = geometry, list(read_steps(TraceReader(path).events()))
        return known[place]

    return made


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_fill(benchmark, backend, geometry, fill, steps_of, wants_metrics, wants_times):
    from kvcache import BACKENDS as AVAILABLE

    if backend not in AVAILABLE:
        pytest.skip(f"this commit has no backend {backend!r}")
    wants_times = wants_times and (fill, geometry, backend) in TIMED
    if not wants_times and not wants_metrics:
        pytest.skip(f"{backend} is not timed on {geometry}, {fill}")
    if wants_metrics:
        counted = steps_of(geometry, fill, COUNTED_ROWS, COUNTED_SIMULATIONS)
        benchmark.extra_info["metrics"] = _metrics(backend, *counted)
    benchmark.extra_info["timed"] = wants_times
    search = _nothing
    if wants_times:
        search = _prepared(backend, *steps_of(geometry, fill, ROWS, SIMULATIONS))
        search()  # slots get allocated
    benchmark.pedantic(search, rounds=ROUNDS if wants_times else 1)


def _nothing():
    """Nothing is timed."""


def _prepared(backend, geometry, steps):
    """A search of contexts that are as full as the trace says, and its clear; it can be called any number of times."""
    from kvbench.replay.content import Contents
    from kvbench.replay.drive import FillerContent, Latents, run_step
    from kvcache import CacheConfig, make_backend

    config = CacheConfig(geometry, init_pool_size=INIT_SLOTS)
    latents = Latents(geometry.embed_dim, "cpu")
    content = FillerContent(make_backend(backend, config))
    content.backend.position_shift = Contents(geometry).position_shift("cpu", config.dtype)
    recurrent = [each.is_recurrent for each in steps]
    first, last = recurrent.index(True), len(steps) - recurrent[::-1].index(True)
    for step in steps[:first]:
        run_step(content.backend, step, latents.inputs(step), content, _just_call)
    search = [(step, latents.inputs(step)) for step in steps[first:last]]

    def searched():
        for step, given in search:
            run_step(content.backend, step, given, content, CLOCK.meter)
        CLOCK.meter("clear", content.backend.clear_recur_cache)

    return searched


def _metrics(backend, geometry, steps):
    """Everything deterministic of one search; a fault in what the backend returns fails the benchmark."""
    from kvbench.measure.counters import Counts
    from kvbench.replay.content import Contents
    from kvbench.replay.drive import Latents
    from kvbench.replay.forward import strided_bytes
    from kvbench.replay.passes import verify_replay
    from kvcache import CacheConfig, make_backend

    config, contents = CacheConfig(geometry, init_pool_size=INIT_SLOTS), Contents(geometry)
    made = make_backend(backend, config)
    made.position_shift = contents.position_shift("cpu", config.dtype)
    found = verify_replay(made, steps, contents, Latents(geometry.embed_dim, "cpu"))
    if found.faults:
        pytest.fail(f"{backend} returned wrong content: {found.faults[0]}", pytrace=False)
    return {
        **asdict(sum(found.counts.values(), Counts())),
        "bytes_reserved": sum(found.bytes_reserved.values()),
        "strided_bytes": strided_bytes(made.keys_values_wm),
    }


def _just_call(operation, call, *arguments):
    return call(*arguments)
