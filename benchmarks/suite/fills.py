"""Searches by how full contexts are, commit by commit: steps with their share of the clear, and the forward."""

from __future__ import annotations

from itertools import product
from statistics import median
from typing import Any, ClassVar

from .bridge import METRICS, storages
from .cells import Cell, Cells, Place, attempt, lacking, publish_counters, together, track

# Never changed, only appended: a history whose sampling changed would jump. What a commit or a machine does not have is
# skipped, not left out.
FILLS = ["start", "middle", "full", "sliding", "unequal"]
GEOMETRIES = ["cartpole", "lunarlander", "pong", "visual-match", "multitask", "wide"]
BACKENDS = storages(["legacy", "new:private", "new:slab", "new:paged", "new:paged-resident"])
DEVICES = ["cpu", "cuda"]
BASELINE = "legacy"

SIMULATIONS = 25
SEARCHES = 2  # the first of which allocates, and does not count
INIT_SLOTS = 2  # only the last root is looked up


def _steps(geometry: Any, fill: str, folder: str) -> list[Any]:
    from pathlib import Path

    from kvbench.record.fills import FilledSearch
    from kvbench.record.synthetic import write_synthetic_trace
    from kvbench.trace.reader import TraceReader
    from kvbench.trace.steps import read_steps

    path = Path(folder) / f"{geometry.name}-{fill}.parquet"
    list(write_synthetic_trace(path, FilledSearch(geometry, SEARCHES, seed=0, fill=fill)))
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
    search = sum(found.step_counts[-SIMULATIONS:], Counts())
    return {**asdict(search), "bytes_reserved": sum(found.bytes_reserved.values())}


def _timed(names: list[str], config: Any, steps: list[Any]) -> dict[str, Any]:
    """Of each backend, all in turns: nanoseconds of each step and each forward, the longest context, strided bytes."""
    from kvbench.replay.forward import attend_in_turns

    clocks, contents = attend_in_turns(steps, config, names)
    return {
        name: {
            "steps": clocks[name].steps[SIMULATIONS:],
            "forwards": each.laps[SIMULATIONS:],
            "longest": max(clocks[name].longest),
            "strided_bytes": max(each.strided),
        }
        for name, each in contents.items()
    }


def _measure(geometry: Any, fill: str, backends: list[str], device: str, folder: str) -> dict[str, Cell]:
    """All numbers of one geometry and fill on one device, for every backend."""
    from dataclasses import replace

    from kvcache import CacheConfig

    reasons = {backend: lacking(backend, device) for backend in backends}
    cells: dict[str, Cell] = {backend: reason for backend, reason in reasons.items() if reason}
    if len(cells) == len(backends):
        return cells
    shape = replace(geometry, num_simulations=SIMULATIONS)
    config = CacheConfig(shape, init_pool_size=INIT_SLOTS, device=device)
    steps = _steps(shape, fill, folder)
    counted = {each: attempt(each, _counted, each, config, steps) for each in backends if each not in cells}
    sound = [backend for backend, found in counted.items() if not isinstance(found, Exception)]
    timed = together(sound, lambda names: _timed(names, config, steps))
    for backend, counts in counted.items():
        found = timed.get(backend, counts)
        failed = isinstance(found, Exception)
        cells[backend] = found if failed else counts | _numbers(found, timed.get(BASELINE))
    return cells


def _numbers(found: dict[str, Any], baseline: Any) -> dict[str, float]:
    over = dict.fromkeys(("steps", "forwards"), float("nan"))  # asv reads NaN as skipped: there is no sound baseline
    if isinstance(baseline, dict):
        over = {
            name: median(lap / before for lap, before in zip(found[name], baseline[name], strict=True)) for name in over
        }
    return {
        "time": median(found["steps"]) / 1000,
        "time_over_legacy": over["steps"],
        "forward_over_legacy": over["forwards"],
        "longest": found["longest"],
        "strided_bytes": found["strided_bytes"],
    }


class Fills(Cells):
    """Every fill of every geometry against every backend; lower is better throughout."""

    params: ClassVar = [FILLS, GEOMETRIES, BACKENDS, DEVICES]
    param_names: ClassVar = ["fill", "geometry", "backend", "device"]

    def setup_cache(self) -> dict[Place, Cell]:
        return self.all_cells()

    setup_cache.timeout = 3600  # type: ignore[attr-defined]

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
publish_counters(Fills, "search", lambda cell, name: cell[name])
