"""Replays, commit by commit: one replay of each cell feeds all its numbers."""

from __future__ import annotations

from itertools import product
from typing import Any, ClassVar

from .bridge import ROOT
from .cells import Cell, Cells, Place, attempt, declare, lacking, together

# Never changed, only appended: a history whose sampling changed would jump. What a commit or a machine does not have is
# skipped, not left out.
TRACES = ["cartpole-lightzero-0.2.0-seed0", "synthetic-pong", "synthetic-visual-match", "synthetic-wide"]
BACKENDS = ["legacy", "legacy-0.2.0", "new:private", "new:slab", "new:paged", "new:paged-resident"]
DEVICES = ["cpu", "cuda"]
BASELINE = "legacy"

RECORDED_SEARCHES = 20
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
        path, searches = ROOT / "benchmarks" / "traces" / f"{name}.parquet", RECORDED_SEARCHES
    reader = TraceReader(path)
    return reader.header.geometry, [step for step in read_steps(reader.events()) if step.search < searches]


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


class Replays(Cells):
    """Every trace against every backend on every device; lower is better throughout."""

    params: ClassVar = [TRACES, BACKENDS, DEVICES]
    param_names: ClassVar = ["trace", "backend", "device"]

    def setup_cache(self) -> dict[Place, Cell]:
        return self.all_cells()

    setup_cache.timeout = 600  # type: ignore[attr-defined]

    def measure(self) -> dict[Place, Cell]:
        import tempfile

        cells: dict[Place, Cell] = {}
        traces, backends, devices = self.params
        with tempfile.TemporaryDirectory() as folder:
            for trace, device in product(traces, devices):
                for backend, cell in _measure(trace, backends, device, folder).items():
                    cells[trace, backend, device] = cell
        return cells

    def _rate(self, outcome: str) -> float:
        return 100 * self.cell["outcomes"]["total"][f"{outcome}_rate"]

    def _share_in_small_pool(self, outcome: str) -> float:
        return 100 * self.cell["small"].get(outcome, 0) / sum(self.cell["small"].values())

    def _p50(self, operation: str) -> float:
        return self.cell["latency_us"][operation]["p50"]

    def _count(self, name: str) -> float:
        return self.cell["counts_per_recurrent_step_median"][name]

    def track_step_time(self, cells, *cell):
        return self._p50("recurrent_step")

    def track_hash_time(self, cells, *cell):
        return self._p50("hash")

    def track_lookup_time(self, cells, *cell):
        return self._p50("lookup")

    def track_assemble_time(self, cells, *cell):
        return self._p50("assemble")

    def track_store_time(self, cells, *cell):
        return self._p50("store")

    def track_clear_time(self, cells, *cell):
        return self._p50("clear")

    def track_step_time_over_legacy(self, cells, *cell):
        # asv reads NaN as skipped, here and below.
        return 1 / self.cell["ratio"]["median"] if self.cell["ratio"] else float("nan")

    def track_miss_rate(self, cells, *cell):
        return self._rate("miss")

    def track_stale_hit_rate(self, cells, *cell):
        return self._rate("stale_hit")

    def track_context_mismatch_rate(self, cells, *cell):
        return self._rate("context_mismatch")

    def track_miss_rate_in_small_pool(self, cells, *cell):
        return self._share_in_small_pool("miss")

    def track_stale_hit_rate_in_small_pool(self, cells, *cell):
        return self._share_in_small_pool("stale hit")

    def track_context_mismatch_rate_in_small_pool(self, cells, *cell):
        return self._share_in_small_pool("context mismatch")

    def track_evictions(self, cells, *cell):
        return sum(self.cell["evictions"].values())

    def track_bytes_reserved(self, cells, *cell):
        return sum(self.cell["bytes_reserved"].values())

    def track_tensor_operations(self, cells, *cell):
        return self._count("tensor_ops")

    def track_bytes_copied(self, cells, *cell):
        return self._count("bytes_copied")

    def track_allocations(self, cells, *cell):
        return self._count("allocations")

    def track_synchronisations(self, cells, *cell):
        return self._count("synchronisations")

    def track_peak_memory(self, cells, *cell):
        return self.cell["peak_bytes"]


declare(
    Replays,
    {
        "track_step_time": "us", "track_hash_time": "us", "track_lookup_time": "us", "track_assemble_time": "us",
        "track_store_time": "us", "track_clear_time": "us", "track_step_time_over_legacy": "ratio",
        "track_miss_rate": "%", "track_stale_hit_rate": "%", "track_context_mismatch_rate": "%",
        "track_miss_rate_in_small_pool": "%", "track_stale_hit_rate_in_small_pool": "%",
        "track_context_mismatch_rate_in_small_pool": "%", "track_evictions": "evictions",
        "track_bytes_reserved": "bytes", "track_tensor_operations": "operations per step",
        "track_bytes_copied": "bytes per step", "track_allocations": "allocations per step",
        "track_synchronisations": "synchronisations per step", "track_peak_memory": "bytes",
    },
)  # fmt: skip
