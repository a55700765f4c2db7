"""The backends page: times of operations, sizes of pools, and lookup outcomes in replays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kvbench.metrics import COUNTERS
from kvbench.replay.drive import OPERATIONS, STEP_OPERATIONS
from kvbench.report.panels import Cell, Panel, Table
from kvbench.report.plots import Band, Category, Plot, Series
from kvbench.report.replays import ReplayFile
from kvbench.report.text import file_name, number
from kvbench.results.replay import DEFAULT_CAPACITIES, OUTCOMES, STEP, BackendResult, Latency, ReplayResult

__all__ = [
    "OUTCOME_COLOURS", "ReplayOfFile", "distribution_panels", "memory_panels", "outcome_panels", "replay_name",
    "step_panels", "words", "work_panels",
]  # fmt: skip

ReplayOfFile = tuple[ReplayFile, ReplayResult]  # a replay, and the file that it is in

OUTCOME_COLOURS = {"hit": 2, "context_mismatch": 3, "stale_hit": 7, "miss": 6, "wrong_content": 1}
_HASHES_OF_A_STEP = 2  # of the parents' latents, and of the new ones
_WORK = {counter.name: counter.label for counter in COUNTERS if counter.published}


def _of(replay: ReplayResult) -> str:
    kind = "synthetic " if replay.trace.synthetic else ""
    return f"{kind}{replay.trace.file} on {replay.device}, slots: {replay.capacity.label}"


def _entitled(what: str, replay: ReplayResult) -> str:
    """A panel's title: the same figure of another replay stands beside it."""
    more = [] if replay.capacity.label in DEFAULT_CAPACITIES else [replay.capacity.label]
    return ", ".join(
        [f"{what}: {Path(replay.trace.file).stem}", *more, *([] if replay.device == "cpu" else [replay.device])]
    )


def replay_name(kind: str, file: ReplayFile, replay: ReplayResult, *more: str) -> str:
    """Of a panel's files. Neither a result file's name nor a trace's need be the only one of its kind."""
    parts = (file.path.stem, Path(replay.trace.file).stem, replay.device, replay.capacity.label)
    return file_name(kind, *parts, *more, beside=f"{file.path} {replay.trace.sha256}")


def step_panels(replays: Iterable[ReplayOfFile]) -> list[Panel]:
    """A recurrent step's time by operation."""
    return [_step_panel(file, replay) for file, replay in replays if replay.first.latency_us]


def distribution_panels(replays: Iterable[ReplayOfFile]) -> list[Panel]:
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
                f"{operation}: {number(each[operation])} us of {number(latency[STEP].p50)} us\n{backend.name}"
                for each, (backend, latency) in zip(parts, timed, strict=True)
            ],
        )
        for operation in STEP_OPERATIONS
    ]
    faster = f"times as fast as {replay.baseline}"
    headings = ("backend", "operation", "p50, us", "p95, us", "p99, us", "calls", faster, "p25", "p75")
    rows: list[list[Cell]] = []
    for backend, latency in timed:
        over = replay.baseline_over_backend.get(backend.name)
        faster_by = [None] * 3 if over is None else [over.median, over.p25, over.p75]
        for operation, values in latency.items():
            ratios = faster_by if operation == STEP else [None] * 3
            numbers = [values.p50, values.p95, values.p99, values.samples]
            rows.append([backend.name, operation.replace("_", " "), *numbers, *ratios])
    return Panel(
        replay_name("step", file, replay),
        _entitled("A recurrent step by operation", replay),
        Table(headings, rows),
        f"{_of(replay)}: {replay.trace.searches} searches, {replay.trace.recurrent_steps} steps. The median step, "
        "divided in proportion to its operations' medians; backends took turns step by step.",
        file.command,
        Plot("median of a recurrent step, us", categories=[Category(each.name) for each, _ in timed], bands=bands),
    )


def _parts(latency: dict[str, Latency]) -> dict[str, float]:
    medians = {
        name: latency[name].p50 * (_HASHES_OF_A_STEP if name == "hash" else 1) if name in latency else 0.0
        for name in STEP_OPERATIONS
    }
    share = latency[STEP].p50 / (sum(medians.values()) or 1)
    return {name: share * value for name, value in medians.items()}


def _distribution_panel(file: ReplayFile, replay: ReplayResult, operation: str) -> Panel:
    found = [
        (backend.name, backend.distributions[operation])
        for backend in replay.backends
        if operation in backend.distributions
    ]
    # The slowest call of all would press the others together.
    lines = [Series.of(name, laps[:-1], range(len(laps) - 1), _lap_hover(name)) for name, laps in found]
    rows = [[percentile, *values] for percentile, *values in zip(range(101), *(laps for _, laps in found), strict=True)]
    title = operation.replace("_", " ")
    return Panel(
        replay_name("latency", file, replay, operation),
        _entitled(f"Time of a {title}" if operation == STEP else f"Time of a call of {title}", replay),
        Table(("percentile", *(f"{name}, us" for name, _ in found)), rows),
        f"{_of(replay)}. Steeper is steadier, further left is faster. The slowest hundredth is in the table alone.",
        file.command,
        Plot("us", "share of calls that take no longer, %", lines, log_x=True),
    )


def _lap_hover(name: str) -> Callable[[float, float], str]:
    return lambda lap, share: f"{share:.0f} % of calls take\nat most {number(lap)} us\n{name}"


def memory_panels(replays: Iterable[ReplayOfFile]) -> list[Panel]:
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
                _entitled("Memory over a replay", replay),
                Table(("backend", *(f"{pool}, bytes" for pool in pools), "together, bytes", "peak, bytes"), last),
                f"{_of(replay)}. Bytes that pools and batches reserve, from the checked pass, which is not timed; the "
                "table has them at the end, the data at every sample.",
                file.command,
                Plot("inferences done", "MB reserved", lines, from_zero=True),
                Table(headings, rows),
            )
        )
    return panels


def _memory_line(name: str, steps: Sequence[float], sizes: Sequence[float]) -> Series:
    def hover(step: float, megabytes: float) -> str:
        return f"{1e6 * megabytes:,.0f} bytes after\n{step:,.0f} inferences\n{name}"

    return Series.of(name, steps, [size / 1e6 for size in sizes], hover)


def outcome_panels(replays: Iterable[ReplayOfFile]) -> list[Panel]:
    """Lookup outcomes, a bar for each backend at each capacity."""
    groups: dict[tuple[str, str, str], list[ReplayOfFile]] = {}
    for file, replay in replays:
        groups.setdefault((str(file.path), replay.trace.sha256, replay.device), []).append((file, replay))
    return [_outcome_panel(group[0][0], [replay for _, replay in group]) for group in groups.values()]


def _outcome_panel(file: ReplayFile, replays: Sequence[ReplayResult]) -> Panel:
    found = [(replay, backend) for replay in replays for backend in replay.backends]
    headings = (
        "slots", "backend", "lookups", *(words(each) for each in OUTCOMES),
        *(f"{words(each)}, %" for each in OUTCOMES),
        *(f"evictions, {pool}" for pool in found[0][1].evictions),
    )  # fmt: skip
    rows: list[list[Cell]] = [
        [
            replay.capacity.label, backend.name, backend.count("lookups"), *(backend.count(each) for each in OUTCOMES),
            *(backend.rate(each) for each in OUTCOMES), *backend.evictions.values(),
        ]
        for replay, backend in found
    ]  # fmt: skip
    bands = [
        Band(
            words(outcome),
            [backend.rate(outcome) or 0.0 for _, backend in found],
            [_hover(backend, outcome, replay.capacity.label) for replay, backend in found],
            OUTCOME_COLOURS[outcome],
        )
        for outcome in OUTCOMES
        if any(backend.count(outcome) for _, backend in found)
    ]
    trace, device = replays[0].trace.file, replays[0].device
    return Panel(
        file_name("outcomes", file.path.stem, trace, device, beside=f"{file.path} {replays[0].trace.sha256}"),
        f"Lookup outcomes: {Path(trace).stem}",
        Table(headings, rows),
        f"{'synthetic ' if replays[0].trace.synthetic else ''}{trace} on {device}. A hit is the context that the "
        "search meant; a mismatch has the right key and another history; a stale hit is another key's content, "
        "returned as if it were right.",
        file.command,
        Plot(
            "lookups, %",
            categories=[Category(f"{backend.name}, {replay.capacity.label}") for replay, backend in found],
            bands=bands,
        ),
    )


def words(outcome: str) -> str:
    """The name of an outcome, to be read."""
    return outcome.replace("_", " ")


def _hover(backend: BackendResult, outcome: str, capacity: str) -> str:
    if not backend.count(outcome):
        return ""
    rate = number(backend.rate(outcome))
    return f"{words(outcome)}: {rate} % ({backend.count(outcome):,.0f})\n{backend.name}, {capacity}"


def work_panels(replays: Iterable[ReplayOfFile]) -> list[Panel]:
    """Counted work of a median recurrent step."""
    panels = []
    for file, replay in replays:
        counted = [backend for backend in replay.backends if backend.counts_per_step]
        if not counted or replay.capacity.label not in DEFAULT_CAPACITIES:
            continue
        rows: list[list[Cell]] = [[each.name, *(each.counts_per_step.get(name) for name in _WORK)] for each in counted]
        widths = [each.counts_per_step.get("tensor_ops", 0.0) for each in counted]
        hovers = [
            f"{number(width)} tensor operations\n{each.name}" for width, each in zip(widths, counted, strict=True)
        ]
        panels.append(
            Panel(
                replay_name("work", file, replay),
                _entitled("Work of a recurrent step", replay),
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
