"""Searches by how full contexts are, commit by commit: steps with their share of the clear, and the forward."""

from __future__ import annotations

from itertools import product
from statistics import median
from typing import Any, ClassVar

from .bridge import METRICS, storages
from .cells import Cell, Cells, Place, attempt, lacking, together, track, track_counters

# Never changed, only appended: a history whose sampling changed would jump. What a commit or a machine does not have is
# skipped, not left out.
FILLS = ["start", "middle", "full", "sliding", "unequal"]
GEOMETRIES = ["cartpole", "lunarlander", "pong", "visual-match", "multitask", "wide"]
BACKENDS = storages(["legacy", "new:private", "new:slab", "new:paged", "new:paged-resident"])
DEVICES = ["cpu", "cuda"]
BASELINE = "legacy"

SIMULATIONS = 12
SEARCHES = 3  # the first of which allocates, and does not count
COUNTED_SEARCHES = 2  # of the pass that checks contents: likewise
INIT_SLOTS = 2  # only the last root is looked up


def _steps(geometry: Any, fill: str, searches: int, folder: str) -> list[Any]:
    from pathlib import Path

    from kvbench.record.fills import FilledSearch
    from kvbench.record.synthetic import write_synthetic_trace
    from kvbench.trace.reader import TraceReader
    from kvbench.trace.steps import read_steps

    path = Path(folder) / f"{geometry.name}-{fill}-{searches}.parquet"
    list(write_synthetic_trace(path, FilledSearch(geometry, searches, seed=0, fill=fill)))
    return list(read_steps(TraceReader(path).events()))


def _counted(backend: str, config: Any, steps: list[Any]) -> dict[str, Any]:
    """Counters of the last search, a clear among them. Raises WrongContentError for a fault."""
    from dataclasses import asdict

    from kvbench.measure.counters import Counts
    from kvbench.replay.operations import WrongContentError
    from kvbench.replay.passes import Replay

    found = Replay(steps, config, [backend]).verify(backend)
    if found.faults:
        raise WrongContentError(found.faults[0])
    search = asdict(sum(found.step_counts[-SIMULATIONS:], Counts()))
    clears = asdict(found.counts["clear"])
    return {
        **{name: count + clears[name] / COUNTED_SEARCHES for name, count in search.items()},
        "bytes_reserved": sum(found.bytes_reserved.values()),
    }


def _timed(names: list[str], config: Any, steps: list[Any], attends: bool) -> dict[str, Any]:
    """Of each backend, all in turns: nanoseconds of each step, or of each forward and strided bytes of each batch."""
    from kvbench.measure.stopwatch import make_stopwatch
    from kvbench.replay.content import Contents
    from kvbench.replay.drive import FillerContent, Latents
    from kvbench.replay.forward import AttendingContent
    from kvbench.replay.lockstep import take_turns
    from kvcache import make_backend

    stopwatch, contents = make_stopwatch(config.device), Contents(config.geometry)
    drivers: dict[str, Any] = {}
    for name in names:
        backend = make_backend(name, config)
        backend.position_shift = contents.position_shift(config.device, config.dtype)
        drivers[name] = AttendingContent(backend, stopwatch) if attends else FillerContent(backend)
    clocks = take_turns(steps, drivers, Latents(config.geometry.embed_dim, config.device), stopwatch)
    if attends:
        return {name: (each.laps[SIMULATIONS:], max(each.strided)) for name, each in drivers.items()}
    return {name: (each.steps[SIMULATIONS:], max(each.longest)) for name, each in clocks.items()}


def _measure(geometry: Any, fill: str, backends: list[str], device: str, folder: str) -> dict[str, Cell]:
    """All numbers of one geometry and fill on one device, for every backend."""
    from dataclasses import replace

    from kvcache import CacheConfig

    cells: dict[str, Cell] = {}
    for backend in backends:
        reason = lacking(backend, device)
        if reason:
            cells[backend] = reason
    if len(cells) == len(backends):
        return cells
    shape = replace(geometry, num_simulations=SIMULATIONS)
    config = CacheConfig(shape, init_pool_size=INIT_SLOTS, device=device)
    counted, timed = (_steps(shape, fill, searches, folder) for searches in (COUNTED_SEARCHES, SEARCHES))
    for backend in backends:
        cells[backend] = cells.get(backend) or attempt(backend, _counted, backend, config, counted)
    for attends in (False, True):
        sound = [backend for backend, cell in cells.items() if isinstance(cell, dict)]
        found = together(sound, lambda names, attends=attends: _timed(names, config, timed, attends))  # type: ignore[misc]
        for backend, each in found.items():
            cell = cells[backend]
            if isinstance(each, Exception):
                cells[backend] = each
            elif isinstance(cell, dict):
                cells[backend] = cell | _numbers(each, found.get(BASELINE), attends)
    return cells


def _numbers(found: Any, baseline: Any, attends: bool) -> dict[str, float]:
    laps, most = found
    over = float("nan")  # asv reads NaN as skipped: there is no sound baseline
    if not (baseline is None or isinstance(baseline, Exception)):
        over = median(lap / before for lap, before in zip(laps, baseline[0], strict=True))
    if attends:
        return {"forward_over_legacy": over, "strided_bytes": most}
    return {"time": median(laps) / 1000, "time_over_legacy": over, "longest": most}


class Fills(Cells):
    """Every fill of every geometry against every backend; lower is better throughout."""

    params: ClassVar = [FILLS, GEOMETRIES, BACKENDS, DEVICES]
    param_names: ClassVar = ["fill", "geometry", "backend", "device"]

    def setup_cache(self) -> dict[Place, Cell]:
        return self.all_cells()

    setup_cache.timeout = 600  # type: ignore[attr-defined]

    def measure(self) -> dict[Place, Cell]:
        import tempfile

        from kvcache import GEOMETRIES as SHAPES

        cells: dict[Place, Cell] = {}
        fills, geometries, backends, devices = self.params
        with tempfile.TemporaryDirectory() as folder:
            for device, geometry, fill in product(devices, geometries, fills):
                for backend, cell in _measure(SHAPES[geometry], fill, backends, device, folder).items():
                    cells[fill, geometry, backend, device] = cell
        return cells


track(Fills, "step_time", "us", lambda cell: cell["time"])
track(Fills, "step_time_over_legacy", "ratio", lambda cell: cell["time_over_legacy"])
for each in METRICS.FORWARD:
    track(Fills, each.slug, each.unit, lambda cell, name=each.name: cell[name])
track(Fills, "bytes_reserved", "bytes", lambda cell: cell["bytes_reserved"])
track_counters(Fills, "search", lambda cell, name: cell[name])
