"""Short replays: a round is all steps of a trace, on a clock that runs only while the backend works."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path

import pytest
from suite.bridge import storages
from suite.clock import BackendClock

# Written out, as in test_gate_operations.py.
TRACES = ["cartpole-lightzero-0.2.0-seed0", "synthetic-pong", "synthetic-visual-match"]
# Their outcomes and counters are watched; timing them too would leave the gate less time for the others.
RECORDINGS = [
    "cartpole-early-lightzero-0.2.0-seed0", "cartpole-lightzero-0.2.0-seed1", "lunarlander-lightzero-0.2.0-seed0",
    "minigrid-lightzero-0.2.0-seed0", "pong-lightzero-0.2.0-seed0",
]  # fmt: skip
BACKENDS = storages(["legacy", "new:private", "new:slab", "new:paged", "new:paged-resident", "new:paged-exact"])
NOT_TIMED = ["legacy"]  # what it returns must not drift, since everything is measured against it; it is slow, too

COMMITTED = Path(__file__).parents[1] / "traces"
SEARCHES = {"cartpole-lightzero-0.2.0-seed0": 2, "synthetic-pong": 2, "synthetic-visual-match": 1}
SEARCHES |= dict.fromkeys(RECORDINGS, 1)
SIMULATIONS = {"synthetic-pong": 25, "synthetic-visual-match": 12}
SIMULATIONS |= dict.fromkeys(RECORDINGS, 12)
SMALL_RECURRENT_POOL = 50
ROUNDS = 5


CLOCK = BackendClock()


@pytest.fixture(scope="session")
def traces(tmp_path_factory):
    """The geometry and steps of each trace, read once."""
    from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
    from kvbench.trace.reader import TraceReader
    from kvbench.trace.steps import read_steps
    from kvcache import GEOMETRIES

    known = {}

    def read(name):
        if name not in known:
            path = COMMITTED / f"{name}.parquet"
            if name.startswith("synthetic-"):
                geometry = replace(GEOMETRIES[name.removeprefix("synthetic-")], num_simulations=SIMULATIONS[name])
                path = tmp_path_factory.mktemp("traces") / f"{name}.parquet"
                list(write_synthetic_trace(path, SyntheticSearch(geometry, SEARCHES[name], seed=0)))
            reader = TraceReader(path)
            steps = takewhile(lambda step: step.search < SEARCHES[name], read_steps(reader.events()))
            most = SIMULATIONS.get(name, reader.header.geometry.num_simulations)
            known[name] = reader.header.geometry, [step for step in steps if step.simulation < most]
        return known[name]

    return read


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("trace", [*TRACES, *RECORDINGS])
@pytest.mark.parametrize("backend", BACKENDS)
def test_replay(benchmark, trace, backend, traces, wants_metrics, wants_times):
    from kvbench.replay.content import Contents
    from kvbench.replay.drive import FillerContent, Latents, run_step
    from kvcache import BACKENDS as AVAILABLE
    from kvcache import CacheConfig, make_backend

    if backend not in AVAILABLE:
        pytest.skip(f"this commit has no backend {backend!r}")
    wants_times = wants_times and backend not in NOT_TIMED and trace not in RECORDINGS
    if not wants_times and not wants_metrics:
        pytest.skip(f"{backend} is not timed on {trace}")
    geometry, steps = traces(trace)
    config = CacheConfig(geometry)
    contents, latents = Contents(geometry), Latents(geometry.embed_dim, "cpu")
    if wants_metrics:
        small = replace(config, recur_pool_size=SMALL_RECURRENT_POOL)
        benchmark.extra_info["metrics"] = {
            **_metrics(make_backend(backend, config), steps, contents, latents),
            **_outcomes(make_backend(backend, small), steps, contents, latents, "_in_small_pool"),
        }

    def prepared():
        backend_under_test = make_backend(backend, config)
        backend_under_test.position_shift = contents.position_shift("cpu", config.dtype)
        content = FillerContent(backend_under_test)
        for step, given in zip(steps, inputs, strict=True):  # slots get allocated
            run_step(backend_under_test, step, given, content, _just_call)
        backend_under_test.clear_all()
        return (backend_under_test, content), {}

    def replayed(backend_under_test, content):
        for step, given in zip(steps, inputs, strict=True):
            run_step(backend_under_test, step, given, content, CLOCK.meter)

    inputs = [latents.inputs(step) for step in steps]
    benchmark.extra_info["timed"] = wants_times
    benchmark.pedantic(replayed, setup=prepared, rounds=ROUNDS if wants_times else 1)


def _metrics(backend, steps, contents, latents):
    """Everything deterministic of one replay; a fault in what the backend returns fails the benchmark."""
    from kvbench.measure.counters import Counts

    verification, outcomes = _verify(backend, steps, contents, latents, "")
    return {
        **outcomes,
        "bytes_reserved": sum(verification.bytes_reserved.values()),
        **asdict(sum(verification.counts.values(), Counts())),
    }


def _outcomes(backend, steps, contents, latents, suffix):
    return _verify(backend, steps, contents, latents, suffix)[1]


def _verify(backend, steps, contents, latents, suffix):
    from kvbench.replay.outcomes import Outcome
    from kvbench.replay.passes import verify_replay

    backend.position_shift = contents.position_shift("cpu", backend.config.dtype)
    verification = verify_replay(backend, steps, contents, latents)
    if verification.faults:
        pytest.fail(f"{backend.name} returned wrong content: {verification.faults[0]}", pytrace=False)
    total = verification.outcomes.total
    names = {outcome: outcome.value.replace(" ", "_") for outcome in Outcome}
    return verification, {
        **{f"{name}{suffix}": total[outcome] for outcome, name in names.items()},
        f"evictions{suffix}": sum(verification.evictions.values()),
    }


def _just_call(operation, call, *arguments):
    return call(*arguments)
