"""The backends page: what operations take and pools weigh, what lookups come to by capacity, and how cost grows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kvcache.geometry import TOKENS_PER_STEP, Geometry
from kvcache.report.history import History
from kvcache.report.panels import Cell, Panel, Table
from kvcache.report.plots import Band, Category, Plot, Series
from kvcache.report.pytest_benchmarks import STATISTICS, BenchmarkFile, BenchmarkResult
from kvcache.report.replays import (
    DEFAULT_CAPACITIES,
    OUTCOMES,
    STEP,
    BackendResult,
    ReplayFile,
    ReplayResult,
)
from kvcache.report.text import file_name, number
from kvcache.trace.bounds import Future
from kvcache.trace.drive import OPERATIONS, STEP_OPERATIONS

__all__ = [
    "Known",
    "OUTCOME_COLOURS",
    "benchmark_panels",
    "capacity_panels",
    "distribution_panels",
    "growth_panels",
    "memory_panels",
    "outcome_panels",
    "replay_name",
    "step_panels",
    "work_panels",
]

Known = tuple[ReplayFile, ReplayResult]  # a replay, and the file that it is in

OUTCOME_COLOURS = {"hit": 2, "context_mismatch": 3, "stale_hit": 7, "miss": 6, "wrong_content": 1}
_BOUND_COLOUR = 6
_DRAWN = {"hit": "line", "stale_hit": "dashed"}
_HASHES_OF_A_STEP = 2  # of the parents' latents, and of the new ones
_GROWTH = "operations.Growth."
_AXES = {
    "context": "context length, tokens",
    "environments": "batch size, environments",
    "layers": "layers",
    "slots": "slots of the recurrent pool",
}
_WORK = {"tensor_ops": "tensor operations", "allocations": "allocations", "synchronisations": "synchronisations",
         "bytes_copied": "bytes copied"}  # fmt: skip


def _of(replay: ReplayResult) -> str:
    return f"{replay.trace} on {replay.device}, slots: {replay.capacity}"


def replay_name(kind: str, file: ReplayFile, replay: ReplayResult, *more: str) -> str:
    """Of a panel's files. Neither a result file's name nor a trace's need be the only one of its kind."""
    told = (file.path.stem, Path(replay.trace).stem, replay.device, replay.capacity)
    return file_name(kind, *told, *more, beside=f"{file.path} {replay.sha256}")


def step_panels(replays: Iterable[Known]) -> list[Panel]:
    """A recurrent step's time by operation."""
    return [_step_panel(file, replay) for file, replay in replays if replay.first.latency_us]


def distribution_panels(replays: Iterable[Known]) -> list[Panel]:
    """How the times of steps and of each operation are distributed."""
    return [
        _distribution_panel(file, replay, operation)
        for file, replay in replays
        for operation in (STEP, *OPERATIONS)
        if any(operation in backend.distributions for backend in replay.backends)
    ]


def _step_panel(file: ReplayFile, replay: ReplayResult) -> Panel:
    timed = [(backend, backend.latency_us) for backend in replay.backends if backend.latency_us]
    parts = [_parts(latency) for _, latency in timed]
    bands = [
        Band(
            operation,
            [each[operation] for each in parts],
            [
                f"{operation}: {number(each[operation])} us of {number(latency[STEP]['p50'])} us\n{backend.name}"
                for each, (backend, latency) in zip(parts, timed, strict=True)
            ],
        )
        for operation in STEP_OPERATIONS
    ]
    headings = (
        "backend",
        "operation",
        "p50, us",
        "p95, us",
        "p99, us",
        "calls",
        "times as fast as legacy",
        "p25",
        "p75",
    )
    rows: list[list[Cell]] = []
    for backend, latency in timed:
        over = backend.over_baseline or {}
        for operation, values in latency.items():
            ratios = [over.get(each) for each in ("median", "p25", "p75")] if operation == STEP else [None] * 3
            numbers = [values[each] for each in ("p50", "p95", "p99", "samples")]
            rows.append([backend.name, operation.replace("_", " "), *numbers, *ratios])
    headings = (*headings[:6], f"times as fast as {replay.baseline}", *headings[7:])
    return Panel(
        replay_name("step", file, replay),
        "A recurrent step by operation",
        Table(headings, rows),
        f"{_of(replay)}: {replay.searches} searches, {replay.recurrent_steps} steps. The median step, divided in "
        "proportion to its operations' medians; backends took turns step by step.",
        file.command,
        Plot("median of a recurrent step, us", categories=[Category(each.name) for each, _ in timed], bands=bands),
    )


def _parts(latency: dict[str, dict[str, float]]) -> dict[str, float]:
    medians = {
        name: latency[name]["p50"] * (_HASHES_OF_A_STEP if name == "hash" else 1) if name in latency else 0.0
        for name in STEP_OPERATIONS
    }
    share = latency[STEP]["p50"] / (sum(medians.values()) or 1)
    return {name: share * value for name, value in medians.items()}


def _distribution_panel(file: ReplayFile, replay: ReplayResult, operation: str) -> Panel:
    found = [
        (backend.name, backend.distributions[operation])
        for backend in replay.backends
        if operation in backend.distributions
    ]
    # The slowest call of all would press the others together.
    lines = [Series.of(name, laps[:-1], range(len(laps) - 1), _lap_hover(name)) for name, laps in found]
    rows = [
        [percentile, *values] for percentile, *values in zip(range(101), *(laps for _, laps in found), strict=False)
    ]
    title = operation.replace("_", " ")
    return Panel(
        replay_name("latency", file, replay, operation),
        f"How long one {title} takes" if operation == STEP else f"How long a call of {title} takes",
        Table(("percentile", *(f"{name}, us" for name, _ in found)), rows),
        f"{_of(replay)}. Steeper is steadier, further left is faster. The slowest hundredth is in the table alone.",
        file.command,
        Plot("us", "share of calls that take no longer, %", lines, log_x=True),
    )


def _lap_hover(name: str) -> Callable[[float, float], str]:
    return lambda lap, share: f"{share:.0f} % of calls take\nat most {number(lap)} us\n{name}"


def memory_panels(replays: Iterable[Known]) -> list[Panel]:
    """What pools and batches reserve while a replay goes on."""
    panels = []
    for file, replay in replays:
        known = [(backend, backend.timeline) for backend in replay.backends if backend.timeline]
        if not known:
            continue
        lines = []
        rows: list[list[Cell]] = []
        pools = list(known[0][1].bytes_reserved)
        for backend, timeline in known:
            together = [sum(sizes) for sizes in zip(*timeline.bytes_reserved.values(), strict=True)]
            lines.append(_memory_line(backend.name, timeline.steps, together))
            for place, step in enumerate(timeline.steps):
                rows.append(
                    [backend.name, step, together[place], *(timeline.bytes_reserved[pool][place] for pool in pools)]
                )
        headings = ("backend", "inferences done", "bytes together", *(f"bytes, {pool}" for pool in pools))
        last: list[list[Cell]] = [
            [
                backend.name, *(backend.bytes_reserved.get(pool) for pool in pools),
                sum(backend.bytes_reserved.values()), backend.peak_bytes,
            ]
            for backend, _ in known
        ]  # fmt: skip
        panels.append(
            Panel(
                replay_name("memory", file, replay),
                "Memory over a replay",
                Table(("backend", *(f"{pool}, bytes" for pool in pools), "together, bytes", "peak, bytes"), last),
                f"{_of(replay)}. Bytes that pools and batches reserve, from the checked pass, which is not timed; the "
                "table has them at the end, the data at every sample.",
                file.command,
                Plot("inferences done", "MB reserved", lines, from_zero=True),
                Table(headings, rows),
            )
        )
    return panels


def _memory_line(name: str, steps: list[float], sizes: list[float]) -> Series:
    def hover(step: float, megabytes: float) -> str:
        return f"{1e6 * megabytes:,.0f} bytes after\n{step:,.0f} inferences\n{name}"

    return Series.of(name, steps, [size / 1e6 for size in sizes], hover)


def outcome_panels(replays: Iterable[Known]) -> list[Panel]:
    """What lookups came to, a bar for each backend at each capacity."""
    groups: dict[tuple[str, str, str], list[Known]] = {}
    for file, replay in replays:
        groups.setdefault((str(file.path), replay.sha256, replay.device), []).append((file, replay))
    return [_outcome_panel(group[0][0], [replay for _, replay in group]) for group in groups.values()]


def _outcome_panel(file: ReplayFile, replays: Sequence[ReplayResult]) -> Panel:
    found = [(replay, backend) for replay in replays for backend in replay.backends]
    headings = (
        "slots", "backend", "lookups", *(_words(each) for each in OUTCOMES),
        *(f"{_words(each)}, %" for each in OUTCOMES),
        *(f"evictions, {pool}" for pool in found[0][1].evictions),
    )  # fmt: skip
    rows: list[list[Cell]] = [
        [
            replay.capacity, backend.name, backend.outcomes["lookups"], *(backend.outcomes[each] for each in OUTCOMES),
            *(backend.rate(each) for each in OUTCOMES), *backend.evictions.values(),
        ]
        for replay, backend in found
    ]  # fmt: skip
    bands = [
        Band(
            _words(outcome),
            [backend.rate(outcome) or 0.0 for _, backend in found],
            [_hover(backend, outcome, replay.capacity) for replay, backend in found],
            OUTCOME_COLOURS[outcome],
        )
        for outcome in OUTCOMES
        if any(backend.outcomes[outcome] for _, backend in found)
    ]
    trace, device = replays[0].trace, replays[0].device
    return Panel(
        file_name("outcomes", file.path.stem, trace, device, beside=f"{file.path} {replays[0].sha256}"),
        "What lookups came to",
        Table(headings, rows),
        f"{trace} on {device}. A hit is the context that the search meant; a mismatch has the right key and another "
        "history; a stale hit is another key's content, returned as if it were right.",
        file.command,
        Plot(
            "lookups, %",
            categories=[Category(f"{backend.name}, {replay.capacity}") for replay, backend in found],
            bands=bands,
        ),
    )


def _words(outcome: str) -> str:
    return outcome.replace("_", " ")


def _hover(backend: BackendResult, outcome: str, capacity: str) -> str:
    if not backend.outcomes[outcome]:
        return ""
    rate = number(backend.rate(outcome))
    return f"{_words(outcome)}: {rate} % ({backend.outcomes[outcome]:,.0f})\n{backend.name}, {capacity}"


def work_panels(replays: Iterable[Known]) -> list[Panel]:
    """Counted work of a median recurrent step."""
    panels = []
    for file, replay in replays:
        counted = [backend for backend in replay.backends if backend.counts_per_step]
        if not counted or replay.capacity not in DEFAULT_CAPACITIES:
            continue
        rows: list[list[Cell]] = [[each.name, *(each.counts_per_step.get(name) for name in _WORK)] for each in counted]
        widths = [each.counts_per_step.get("tensor_ops", 0.0) for each in counted]
        hovers = [
            f"{number(width)} tensor operations\n{each.name}" for width, each in zip(widths, counted, strict=True)
        ]
        panels.append(
            Panel(
                replay_name("work", file, replay),
                "Work of a recurrent step",
                Table(("backend", *_WORK.values()), rows),
                f"{_of(replay)}. Counted, the same on any machine; median of the steps.",
                file.command,
                Plot(
                    "tensor operations",
                    categories=[Category(each.name) for each in counted],
                    bands=[Band("tensor operations", widths, hovers)],
                ),
                open=True,
            )
        )  # fmt: skip
    return panels


def capacity_panels(files: Iterable[ReplayFile], requests: dict[str, Future]) -> list[Panel]:
    """Hits and stale hits against the recurrent pool's size, in entries and in bytes.

    Args:
        files: with replays at several capacities.
        requests: by the SHA-256 of a trace and the number of its searches, for bounds.
    """
    panels = []
    for file in files:
        for place in dict.fromkeys((replay.sha256, replay.device) for replay in file.replays):
            replays = [each for each in file.replays if (each.sha256, each.device) == place]
            asked = requests.get(bounds_key(replays[0].sha256, replays[0].searches))
            entries = sorted((each for each in replays if each.slots), key=lambda each: each.slots or 0)
            sizes = sorted((each for each in replays if each.slot_bytes), key=lambda each: each.slot_bytes or 0)
            if len(entries) > 1:
                panels.append(_capacity_panel(file, entries, asked, in_bytes=False))
            if len(sizes) > 1:
                panels.append(_capacity_panel(file, sizes, asked, in_bytes=True))
    return panels


def bounds_key(sha256: str, searches: int) -> str:
    """What tells the requests of a replay: which trace, and how much of it."""
    return f"{sha256}/{searches}"


def _capacity_panel(file: ReplayFile, replays: Sequence[ReplayResult], asked: Future | None, in_bytes: bool) -> Panel:
    sizes = [(each.slot_bytes if in_bytes else each.slots) or 0 for each in replays]
    unit = "bytes" if in_bytes else "entries"
    names = [backend.name for backend in replays[0].backends]
    columns: list[tuple[str, list[float | None], str, int]] = []
    undrawn: list[tuple[str, list[float | None]]] = []
    for place, name in enumerate(names):
        found = [next((each for each in replay.backends if each.name == name), None) for replay in replays]
        for outcome in OUTCOMES:
            rates = [None if each is None else each.rate(outcome) for each in found]
            if outcome in _DRAWN:
                columns.append((f"{name}, {_words(outcome)}s", rates, _DRAWN[outcome], place))
            else:
                undrawn.append((f"{name}, {_words(outcome)}", rates))
    note = "No trace was given (--trace): no bounds. "
    if asked is not None:
        columns += _bounds(asked, sizes, replays[0].geometry, in_bytes)
        note = (
            "Belady's rule knows the future: no pool of its size finds more. It and the unbounded pool count lookups "
            "that find their own key, whatever its history, and take init pools to be without bounds. "
        )
        if in_bytes:
            note += "Shared pages may beat full entries, but not entries that weigh only the tokens they add. "
    lines = [
        Series(
            label, sizes, [float("nan") if value is None else value for value in values],
            [f"{number(value)} %\n{label}\n{number(size)} {unit}" for value, size in zip(values, sizes, strict=True)],
            style, colour,
        )
        for label, values, style, colour in columns
    ]  # fmt: skip
    told = [*((label, rates) for label, rates, *_ in columns), *undrawn]
    rows: list[list[Cell]] = [[size, *rates] for size, *rates in zip(sizes, *(rates for _, rates in told), strict=True)]
    replay = replays[0]
    return Panel(
        replay_name("capacity", file, replay, unit),
        f"Hit rate against capacity in {unit}",
        Table((f"recurrent pool, {unit}", *(f"{label}, %" for label, _ in told)), rows),
        f"{replay.trace} on {replay.device}, {replay.searches} searches. {note}"
        "Stale hits (dashed) are no hits, and stand beside them. Hide a line to see the one under it.",
        file.command,
        Plot(f"recurrent pool, {unit}", "lookups, %", lines, log_x=True, from_zero=True),
    )


def _bounds(
    asked: Future, sizes: Sequence[int], geometry: Geometry, in_bytes: bool
) -> list[tuple[str, list[float | None], str, int]]:
    def belady(entries: int) -> list[float | None]:
        return [_share(asked, asked.found_by_belady(size // entries)) for size in sizes]

    if not in_bytes:
        found = [("Belady", belady(1), "line", _BOUND_COLOUR)]
    else:
        whole = geometry.entry_bytes()
        own = whole // geometry.context_length * TOKENS_PER_STEP
        found = [
            ("Belady, full entries", belady(whole), "line", _BOUND_COLOUR),
            ("Belady, added tokens alone", belady(own), "line", 4),
        ]
    unbounded = _share(asked, asked.found)
    return [*found, ("unbounded", [unbounded] * len(sizes), "dashed", 5)]


def _share(asked: Future, found: int) -> float | None:
    """% of lookups; None without any."""
    return 100 * found / asked.lookups if asked.lookups else None


def growth_panels(history: History) -> list[Panel]:
    """What a recurrent batch costs against each size, at the last commit that asv measured."""
    panels = []
    for machine in history.commits:
        for metric, unit in (("time", "us"), ("tensor_operations", "operations"), ("bytes_reserved", "bytes")):
            commit, values = history.latest(machine, f"{_GROWTH}track_{metric}")
            points: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
            for params, value in values.items():
                cell = dict(part.partition("=")[::2] for part in params.split(", "))
                axis, _, size = cell.get("point", "").partition("=")
                if axis in _AXES and size.isdecimal():
                    by_backend = points.setdefault((axis, cell.get("device", "")), {})
                    by_backend.setdefault(cell.get("backend", ""), {})[int(size)] = value
            for (axis, device), by_backend in points.items():
                panels.append(_growth_panel(machine, commit, metric, unit, axis, device, by_backend))
    order = list(_AXES)
    return sorted(panels, key=lambda panel: order.index(panel.name.split("-")[1]))


def _growth_panel(
    machine: str, commit: str, metric: str, unit: str, axis: str, device: str, by_backend: dict[str, dict[int, float]]
) -> Panel:
    sizes = sorted({size for values in by_backend.values() for size in values})
    lines = [
        Series(
            backend, sorted(values), [values[size] for size in sorted(values)],
            [f"{number(values[size])} {unit}\n{backend}\n{axis} {size}" for size in sorted(values)],
        )
        for backend, values in by_backend.items()
    ]  # fmt: skip
    rows: list[list[Cell]] = [[size, *(values.get(size) for values in by_backend.values())] for size in sizes]
    title = metric.replace("_", " ").capitalize()
    return Panel(
        file_name("growth", axis, machine, device, metric),
        f"{title} against {_AXES[axis].partition(',')[0]}",
        Table((_AXES[axis], *(f"{backend}, {unit}" for backend in by_backend)), rows),
        f"A recurrent batch (lookup, assemble, store) without the model, {device} of {machine}, commit {commit[:8]}.",
        f"tox -e asv -- {commit[:8]}^!",
        Plot(_AXES[axis], unit, lines, log_x=True, log_y=all(value > 0 for line in lines for value in line.y)),
    )


def benchmark_panels(file: BenchmarkFile) -> list[Panel]:
    """The spread of each timed benchmark of pytest-benchmark, slowest first: a panel for each operation."""
    groups: dict[str, list[tuple[str, BenchmarkResult]]] = {}
    for each in sorted(file.benchmarks, key=lambda each: -each.microseconds["median"]):
        operation, label = _operation(each.name)
        groups.setdefault(operation, []).append((label, each))
    return [_benchmark_panel(file, operation, groups[operation]) for operation in sorted(groups)]


def _operation(name: str) -> tuple[str, str]:
    """Operation, and what it was measured of: of ``test_operation[backend-geometry-operation]``, as pytest has it."""
    head, opened, inside = name.partition("test_operation[")
    of, _, operation = inside.removesuffix("]").rpartition("-")
    return (operation, of) if opened and of and not head else ("", name.removeprefix("test_"))


def _benchmark_panel(file: BenchmarkFile, operation: str, found: Sequence[tuple[str, BenchmarkResult]]) -> Panel:
    categories = [Category(label, tuple(each.microseconds[name] for name in STATISTICS)) for label, each in found]
    rows: list[list[Cell]] = [
        [each.name, *(each.microseconds[name] for name in STATISTICS), each.rounds] for _, each in found
    ]
    return Panel(
        file_name("benchmark", file.path.stem, operation, beside=str(file.path)),
        f"{operation.replace('_', ' ').capitalize() or 'Single operations'}: {file.name}",
        Table(("benchmark", *(f"{name}, us" for name in STATISTICS), "rounds"), rows),
        f"{file.created}, {file.machine}, commit {file.commit[:8] or 'unknown'}. From the fastest round to the "
        "slowest, quartiles thick, the median marked.",
        "pytest benchmarks/gates --benchmark-json",
        Plot("us", categories=categories, log_x=all(each.microseconds["min"] > 0 for _, each in found)),
    )
