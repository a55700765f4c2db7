"""Replays, commit by commit: one replay of each cell feeds all its numbers."""

from __future__ import annotations

from itertools import product
from typing import Any, ClassVar

from .bridge import METRICS, ROOT, storages
from .cells import Cell, Cells, Place, attempt, lacking, publish_counters, together, track

# Never changed, only appended: a history whose sampling changed would jump. What a commit or a machine does not have is
# skipped, not left out.
TRACES = ["cartpole-lightzero-0.2.0-seed0", "synthetic-pong", "synthetic-visual-match", "synthetic-wide"]
# Recorded later than the first, and measured apart: a history whose traces changed would jump.
RECORDINGS = [
    "cartpole-early-lightzero-0.2.0-seed0", "cartpole-lightzero-0.2.0-seed1", "lunarlander-lightzero-0.2.0-seed0",
    "minigrid-lightzero-0.2.0-seed0", "pong-lightzero-0.2.0-seed0",
]  # fmt: skip
BACKENDS = storages(["legacy", "legacy-0.2.0", "new:private", "new:slab", "new:paged", "new:paged-resident"])
DEVICES = ["cpu", "cuda"]
BASELINE = "legacy"

RECORDED_SEARCHES = 20
SEARCHES_OF_RECORDINGS = 2
SIMULATIONS_OF_RECORDINGS = 25
SYNTHETIC_SEARCHES = 2
SYNTHETIC_SIMULATIONS = 25
SMALL_RECURRENT_POOL = 50
REPETITIONS = 3


def _steps(name: str, folder: str) -> tuple[Any, list[Any]]:
    """The geometry and the steps of a trace: a committed one, or one made here."""
    from dataclasses import replace
    from pathlib import Path

    from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
    from kvbench.trace.reader import TraceReader
    from kvbench.trace.steps import read_steps
    from kvcache import GEOMETRIES

    if name.startswith("synthetic-"):
        geometry = replace(GEOMETRIES[name.removeprefix("synthetic-")], num_simulations=SYNTHETIC_SIMULATIONS)
        path, searches = Path(folder) / f"{name}.parquet", SYNTHETIC_SEARCHES
        list(write_synthetic_trace(path, SyntheticSearch(geometry, searches, seed=0)))
    else:
        path = ROOT / "benchmarks" / "traces" / f"{name}.parquet"
        searches = SEARCHES_OF_RECORDINGS if name in RECORDINGS else RECORDED_SEARCHES
    reader = TraceReader(path)
    steps = [step for step in read_steps(reader.events()) if step.search < searches]
    if name in RECORDINGS:
        steps = [step for step in steps if step.simulation < SIMULATIONS_OF_RECORDINGS]
    return reader.header.geometry, steps


def _verified(backend: str, steps: list[Any], config: Any) -> Any:
    """What the checked pass of one backend found out. Raises WrongContentError for a fault."""
    from kvbench.replay.operations import WrongContentError
    from kvbench.replay.passes import Replay

    verification = Replay(steps, config, [backend]).verify(backend)
    if verification.faults:
        raise WrongContentError(f"{verification.faults[0]} (recurrent slots: {config.recur_pool_size or 'default'})")
    return verification


def _measure(trace: str, backends: list[str], device: str, folder: str) -> dict[str, Cell]:
    """All numbers of one trace on one device, for every backend."""
    from dataclasses import replace

    from kvbench.replay.passes import BackendReport, Replay
    from kvbench.replay.summary import ratio, summarise
    from kvcache import CacheConfig

    reasons = {backend: lacking(backend, device) for backend in backends}
    cells: dict[str, Cell] = {backend: reason for backend, reason in reasons.items() if reason}
    if len(cells) == len(backends):
        return cells
    geometry, steps = _steps(trace, folder)
    config = CacheConfig(geometry, device=device)
    small = replace(config, recur_pool_size=SMALL_RECURRENT_POOL)

    def verified(backend: str) -> tuple[Any, Any]:
        return _verified(backend, steps, config), _verified(backend, steps, small)

    def timed(names: list[str]) -> dict[str, BackendReport]:
        replay = Replay(steps, config, names)
        replay.time(REPETITIONS)
        return replay.reports

    found = {backend: attempt(backend, verified, backend) for backend in backends if backend not in cells}
    reports = together([backend for backend, each in found.items() if not isinstance(each, Exception)], timed)
    baseline = reports.get(BASELINE)
    for backend, each in found.items():
        report = reports.get(backend, each)
        if isinstance(report, Exception):
            cells[backend] = report
            continue
        report.verification, in_small_pool = each
        cells[backend] = summarise(report) | {
            "ratio": ratio(baseline, report) if isinstance(baseline, BackendReport) else None,
            "small": {outcome.value: count for outcome, count in in_small_pool.outcomes.total.items()},
        }
    return cells


def _measure_all(traces: list[str], backends: list[str], devices: list[str]) -> dict[Place, Cell]:
    import tempfile

    cells: dict[Place, Cell] = {}
    with tempfile.TemporaryDirectory() as folder:
        for trace, device in product(traces, devices):
            for backend, cell in _measure(trace, backends, device, folder).items():
                cells[trace, backend, device] = cell
    return cells


class Replays(Cells):
    """Every trace against every backend on every device; lower is better throughout."""

    params: ClassVar = [TRACES, BACKENDS, DEVICES]
    param_names: ClassVar = ["trace", "backend", "device"]

    def setup_cache(self) -> dict[Place, Cell]:
        return self.all_cells()

    setup_cache.timeout = 3600  # type: ignore[attr-defined]

    def measure(self) -> dict[Place, Cell]:
        return _measure_all(*self.params)


class Recordings(Cells):
    """The first searches of every other recorded trace, in the same numbers: their contexts are short."""

    params: ClassVar = [RECORDINGS, BACKENDS, DEVICES]
    param_names: ClassVar = ["trace", "backend", "device"]

    def setup_cache(self) -> dict[Place, Cell]:
        return self.all_cells()

    setup_cache.timeout = 3600  # type: ignore[attr-defined]

    def measure(self) -> dict[Place, Cell]:
        return _measure_all(*self.params)


def _rate(cell, outcome):
    return 100 * cell["outcomes"]["total"][f"{outcome}_rate"]


def _share_in_small_pool(cell, outcome):
    return 100 * cell["small"].get(outcome, 0) / sum(cell["small"].values())


def _over_legacy(cell):
    # asv reads NaN as skipped.
    return 1 / cell["ratio"]["median"] if cell["ratio"] else float("nan")


def _track_all(benchmark: type[Cells]) -> None:
    for each in METRICS.LATENCIES:
        track(benchmark, each.slug, each.unit, lambda cell, name=each.name: cell["latency_us"][name]["p50"])
    track(benchmark, "step_time_over_legacy", "ratio", _over_legacy)
    for each in METRICS.OUTCOMES:
        if each.published:
            track(benchmark, f"{each.slug}_rate", "%", lambda cell, name=each.name: _rate(cell, name))
            track(
                benchmark, f"{each.slug}_rate_in_small_pool", "%",
                lambda cell, name=each.label: _share_in_small_pool(cell, name),
            )  # fmt: skip
    track(benchmark, "evictions", "evictions", lambda cell: sum(cell["evictions"].values()))
    track(benchmark, "bytes_reserved", "bytes", lambda cell: sum(cell["bytes_reserved"].values()))
    track(benchmark, "peak_memory", "bytes", lambda cell: cell["peak_bytes"])
    publish_counters(benchmark, "step", lambda cell, name: cell["counts_per_recurrent_step_median"][name])


_track_all(Replays)
_track_all(Recordings)
