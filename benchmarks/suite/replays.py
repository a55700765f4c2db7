"""Replays, commit by commit: one replay of each cell feeds all its numbers."""

from __future__ import annotations

from typing import Any, ClassVar

from .checkout import ROOT, put_harness_in_place

# Never changed, only appended: a history whose sampling changed would jump. What a commit or a machine does not have is
# skipped, not left out.
TRACES = ["cartpole-lightzero-0.2.0-seed0", "synthetic-pong", "synthetic-visual-match", "synthetic-wide"]
BACKENDS = ["legacy", "legacy-0.2.0", "new:private"]
DEVICES = ["cpu", "cuda"]
BASELINE = "legacy"

RECORDED_SEARCHES = 20
SYNTHETIC_SEARCHES = 2
SYNTHETIC_SIMULATIONS = 25
SMALL_RECURRENT_POOL = 50
REPETITIONS = 3

Cell = tuple[str, str, str]


def _steps(name: str, folder: str) -> tuple[Any, list[Any]]:
    """The geometry and the steps of a trace: a committed one, or one made here."""
    from dataclasses import replace
    from pathlib import Path

    from kvcache.geometry import GEOMETRIES
    from kvcache.trace.reader import TraceReader
    from kvcache.trace.steps import read_steps
    from kvcache.trace.synthetic import SyntheticSearch, write_synthetic_trace

    if name.startswith("synthetic-"):
        geometry = replace(GEOMETRIES[name.removeprefix("synthetic-")], num_simulations=SYNTHETIC_SIMULATIONS)
        path, searches = Path(folder) / f"{name}.parquet", SYNTHETIC_SEARCHES
        list(write_synthetic_trace(path, SyntheticSearch(geometry, searches, seed=0)))
    else:
        path, searches = ROOT / "benchmarks" / "traces" / f"{name}.parquet", RECORDED_SEARCHES
    reader = TraceReader(path)
    return reader.header.geometry, [step for step in read_steps(reader.events()) if step.search < searches]


def _measure(trace: str, device: str, folder: str) -> dict[Cell, Any]:
    """All numbers of one trace on one device, for every backend that this commit has; a text is why there is none."""
    import torch

    from kvcache.backend import CacheConfig
    from kvcache.registry import BACKENDS as AVAILABLE
    from kvcache.trace.replay import Replay
    from kvcache.trace.summary import ratio, summarise

    cells: dict[Cell, Any] = {}
    if device == "cuda" and not torch.cuda.is_available():
        return {(trace, backend, device): "skipped: no CUDA device" for backend in BACKENDS}
    geometry, steps = _steps(trace, folder)
    here = [name for name in BACKENDS if name in AVAILABLE]
    replay = Replay(steps, CacheConfig(geometry, device=device), here)
    reports = replay.run(REPETITIONS)
    small = Replay(steps, CacheConfig(geometry, recur_pool_size=SMALL_RECURRENT_POOL, device=device), here)
    for backend in BACKENDS:
        if backend not in here:
            cells[trace, backend, device] = f"skipped: this commit has no backend {backend!r}"
            continue
        numbers = summarise(reports[backend])
        faults = numbers["outcomes"]["faults"]
        if faults:
            # A cache that returns wrong content is no fast cache: none of its numbers stands.
            cells[trace, backend, device] = RuntimeError(f"{backend} returned wrong content: {faults[0]}")
            continue
        numbers["ratio"] = ratio(reports[BASELINE], reports[backend])
        numbers["small"] = small.verify(backend).outcomes.total
        cells[trace, backend, device] = numbers
    return cells


class Replays:
    """Every trace against every backend on every device; lower is better throughout."""

    params: ClassVar = [TRACES, BACKENDS, DEVICES]
    param_names: ClassVar = ["trace", "backend", "device"]
    timeout = 600

    def setup_cache(self) -> dict[Cell, Any]:
        import tempfile

        missing = put_harness_in_place()
        if missing:
            return {(trace, backend, device): missing for trace in TRACES for backend in BACKENDS for device in DEVICES}
        import torch

        torch.set_num_threads(1)
        cells: dict[Cell, Any] = {}
        with tempfile.TemporaryDirectory() as folder:
            for trace in TRACES:
                for device in DEVICES:
                    cells |= _measure(trace, device, folder)
        return _plain(cells)

    setup_cache.timeout = 600  # type: ignore[attr-defined]

    def setup(self, cells: dict[Cell, Any], trace: str, backend: str, device: str) -> None:
        cell = cells[trace, backend, device]
        if isinstance(cell, str):
            raise NotImplementedError(cell)
        if isinstance(cell, Exception):
            raise cell
        self.cell = cell

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
        return 1 / self.cell["ratio"]["median"]

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

    def track_peak_device_memory(self, cells, *cell):
        peak = self.cell["peak_device_bytes"]
        return float("nan") if peak is None else peak  # asv reads NaN as skipped: a CPU has no allocator to ask


UNITS = {
    "track_step_time": "us", "track_hash_time": "us", "track_lookup_time": "us", "track_assemble_time": "us",
    "track_store_time": "us", "track_clear_time": "us", "track_step_time_over_legacy": "ratio",
    "track_miss_rate": "%", "track_stale_hit_rate": "%", "track_context_mismatch_rate": "%",
    "track_miss_rate_in_small_pool": "%", "track_stale_hit_rate_in_small_pool": "%", "track_evictions": "evictions",
    "track_bytes_reserved": "bytes", "track_tensor_operations": "operations per step",
    "track_bytes_copied": "bytes per step", "track_allocations": "allocations per step",
    "track_synchronisations": "synchronisations per step", "track_peak_device_memory": "bytes",
}  # fmt: skip

for _name, _unit in UNITS.items():
    _method = getattr(Replays, _name)
    _method.unit = _unit
    # Explicit, so that an edit of the text does not throw the history away; raised when what it means changes.
    _method.version = "1"


def _plain(cells: dict[Cell, Any]) -> dict[Cell, Any]:
    """Without this commit's classes: asv hands the cache to other processes by pickle."""
    for cell in cells.values():
        if isinstance(cell, dict):
            cell["small"] = {outcome.value: count for outcome, count in cell["small"].items()}
    return cells
