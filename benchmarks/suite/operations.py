"""Single operations, commit by commit: every kind on every shape, and how a recurrent batch grows with each size."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from statistics import median
from typing import Any, ClassVar

from .bridge import storages
from .cells import Cell, Cells, Place, attempt, lacking, publish_counters, together, track

# Never changed, only appended: a history whose sampling changed would jump. What a commit or a machine does not have is
# skipped, not left out.
KINDS = ["hash", "lookup", "assemble_equal", "assemble_unequal", "retrieve", "store", "slide", "clear"]
GEOMETRIES = ["cartpole", "lunarlander", "pong", "visual-match", "multitask", "wide"]
BATCHES = [1, 8, 64]
BACKENDS = storages(["legacy", "new:private", "new:slab", "new:paged", "new:paged-resident"])
DEVICES = ["cpu", "cuda"]
POINTS = [
    "environments=1", "environments=2", "environments=4", "environments=8", "environments=16", "environments=32",
    "environments=64",
    "layers=1", "layers=2", "layers=4", "layers=8", "layers=16",
    "context=8", "context=16", "context=32", "context=64", "context=128",
    "slots=16", "slots=64", "slots=256", "slots=1024", "slots=4096",
]  # fmt: skip

BASELINE = "legacy"
RECURRENT_BATCH = ("retrieve", "store")
ROWS = 8

# How often an operation is called follows from what it is called on, never from how fast it was.
FEWEST_CALLS, MOST_CALLS = 10, 200
BYTES_OF_ALL_CALLS = 1 << 26
LARGEST_POOL = 1_500_000_000  # bytes


def _calls(kind: str, geometry: Any, rows: int, slots: int) -> int:
    """Calls of one operation: fewer of those that move much, or that are prepared by moving much."""
    if kind == "hash":
        moved = rows * geometry.embed_dim * 4
    else:
        moved = (slots if kind == "clear" else rows) * geometry.entry_bytes()
    return max(FEWEST_CALLS, min(MOST_CALLS, BYTES_OF_ALL_CALLS // moved))


def _measure(
    kind: str, geometry: Any, rows: int, slots: int | None, device: str, backends: list[str]
) -> dict[str, Cell]:
    """One kind of operation, for every backend; ``slots`` of the recurrent pool, None for two a row."""
    from kvbench.measure.stopwatch import make_stopwatch
    from kvbench.replay.operations import Operation, operation_config, prepare_operation, time_operations
    from kvcache import make_backend

    config = operation_config(geometry, rows, slots, device)
    slots = config.recur_pool_size
    assert slots is not None
    if slots * geometry.entry_bytes() > LARGEST_POOL:
        reason = f"skipped: {slots} slots of {geometry.entry_bytes()} bytes are more than {LARGEST_POOL} bytes"
        return dict.fromkeys(backends, reason)
    cells: dict[str, Cell] = {}
    operations: dict[str, Operation] = {}

    def counted(backend: str) -> dict[str, Any]:
        operation = operations[backend] = prepare_operation(kind, make_backend(backend, config))
        return asdict(operation.counts()) | {"bytes_reserved": sum(operation.backend.bytes_reserved.values())}

    def timed(names: list[str]) -> dict[str, list[int]]:
        chosen = {name: operations[name] for name in names}
        times = time_operations(chosen, make_stopwatch(device), _calls(kind, geometry, rows, slots))
        for operation in chosen.values():
            operation.check()
        return {name: times[name].host for name in names}

    for backend in backends:
        cells[backend] = lacking(backend, device) or attempt(backend, counted, backend)
    laps = together([backend for backend, cell in cells.items() if isinstance(cell, dict)], timed)
    for backend, host in laps.items():
        cell = cells[backend]
        if isinstance(host, Exception):
            cells[backend] = host
        elif isinstance(cell, dict):
            cell["time"] = median(host) / 1000
            cell["time_over_legacy"] = _over(host, laps.get(BASELINE))
    return cells


def _over(laps: list[int], baseline: list[int] | Exception | None) -> float:
    if not isinstance(baseline, list):
        return float("nan")  # asv reads NaN as skipped: there is no sound baseline
    return median(lap / before for lap, before in zip(laps, baseline, strict=True))


class Operations(Cells):
    """Every kind of operation on every shape; lower is better throughout."""

    params: ClassVar = [KINDS, GEOMETRIES, BATCHES, BACKENDS, DEVICES]
    param_names: ClassVar = ["operation", "geometry", "batch", "backend", "device"]

    def setup_cache(self) -> dict[Place, Cell]:
        return self.all_cells()

    setup_cache.timeout = 3600  # type: ignore[attr-defined]

    def measure(self) -> dict[Place, Cell]:
        from kvcache import GEOMETRIES as SHAPES

        cells: dict[Place, Cell] = {}
        kinds, geometries, batches, backends, devices = self.params
        for device, geometry, batch, kind in product(devices, geometries, batches, kinds):
            for backend, cell in _measure(kind, SHAPES[geometry], batch, None, device, backends).items():
                cells[kind, geometry, batch, backend, device] = cell
        return cells


# Four fifths of what its cells cost is timing. Of three processes the middle one scatters by 0.6 of what one does.
Operations.processes = 3
track(Operations, "time", "us", lambda cell: cell["time"])
track(Operations, "time_over_legacy", "ratio", lambda cell: cell["time_over_legacy"])
publish_counters(Operations, "call", lambda cell, name: cell[name])


class Growth(Cells):
    """What a recurrent batch costs without the model, one size at a time growing from its base; lower is better."""

    params: ClassVar = [POINTS, BACKENDS, DEVICES]
    param_names: ClassVar = ["point", "backend", "device"]

    def setup_cache(self) -> dict[Place, Cell]:
        return self.all_cells()

    setup_cache.timeout = 3600  # type: ignore[attr-defined]

    def measure(self) -> dict[Place, Cell]:
        cells: dict[Place, Cell] = {}
        points, backends, devices = self.params
        for device, point in product(devices, points):
            geometry, rows, slots = _shape(point)
            parts = [_measure(kind, geometry, rows, slots, device, backends) for kind in RECURRENT_BATCH]
            for backend in backends:
                cells[point, backend, device] = _sum([part[backend] for part in parts])
        return cells


track(Growth, "time", "us", lambda cell: cell["time"])
track(Growth, "bytes_reserved", "bytes", lambda cell: cell["bytes_reserved"])
publish_counters(Growth, "batch", lambda cell, name: cell[name], "tensor_ops")


def _shape(point: str) -> tuple[Any, int, int | None]:
    """Geometry, rows and recurrent slots (None: two a row) of a point such as ``layers=4``."""
    from kvcache import GEOMETRIES as SHAPES
    from kvcache import Geometry

    axis, _, text = point.partition("=")
    value = int(text)
    if axis == "environments":
        return SHAPES["pong"], value, None
    if axis == "layers":
        return replace(SHAPES["pong"], num_layers=value), ROWS, None
    if axis == "context":
        return Geometry(point, num_layers=4, num_heads=4, embed_dim=256, context_length=value), ROWS, None
    assert axis == "slots", f"there is no axis {axis!r}"
    return SHAPES["cartpole"], ROWS, value


def _sum(parts: list[Cell]) -> Cell:
    """The parts of a batch as one cell, or the first part's reason to be none."""
    numbers = [part for part in parts if isinstance(part, dict)]
    if len(numbers) < len(parts):
        return next(part for part in parts if not isinstance(part, dict))
    return {
        "time": sum(part["time"] for part in numbers),
        "tensor_ops": sum(part["tensor_ops"] for part in numbers),
        "bytes_reserved": max(part["bytes_reserved"] for part in numbers),
    }
