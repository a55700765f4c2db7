"""The backends page: times of operations, sizes of pools, and lookup outcomes in replays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kvbench.metrics import COUNTERS
from kvbench.replay.drive import OPERATIONS, STEP_OPERATIONS
from kvbench.report.input_files import Replay
from kvbench.report.panels import Cell, Panel, Plot, Series, Table, without_repeats
from kvbench.report.text import file_name, number, words
from kvbench.results.replay import OUTCOMES, STEP, Latency

__all__ = [
    "OUTCOME_COLOURS", "distribution_panels", "memory_panels", "outcome_panels", "step_panels", "step_parts",
    "work_panels",
]  # fmt: skip

OUTCOME_COLOURS = {"hit": 2, "context_mismatch": 3, "stale_hit": 7, "miss": 6, "wrong_content": 1}
_PERCENTILES = (0, *range(10, 91, 10), 25, 75, 95, 99, 100)  # in a table; its data has all
_HASHES_OF_A_STEP = 2  # of the parents' latents, and of the new ones
_WORK = {counter.name: counter.label for counter in COUNTERS if counter.published}


def step_panels(replays: Iterable[Replay]) -> Iterator[Panel]:
    """A recurrent step's time by operation."""
    for replay in replays:
        timed = {each.name: each.latency_us for each in replay.result.backends if each.latency_us}
        if timed:
            yield _step_panel(replay, timed)


def _step_panel(replay: Replay, timed: dict[str, dict[str, Latency]]) -> Panel:
    names, trace = list(timed), replay.result.trace
    # Steps have their share of the clears, but for files from before there was one.
    operations = STEP_OPERATIONS if replay.result.first.clear_share is None else OPERATIONS
    parts = pd.DataFrame({name: step_parts(latency, operations) for name, latency in timed.items()})

    def hover(place: float, time: float, operation: str) -> str:
        name = names[int(place)]
        return f"{operation}: {number(time)} us of {number(timed[name][STEP].p50)} us\n{name}"

    bars = [Series(operation, range(len(names)), parts.loc[operation].tolist(), hover) for operation in operations]
    return Panel(
        replay.name("step"),
        replay.title("A recurrent step by operation"),
        _latency_table(replay, timed),
        f"{replay.described}: {trace.searches} searches, {trace.recurrent_steps} steps. The median step, divided in "
        "proportion to its operations' medians; backends took turns step by step.",
        replay.file.command,
        Plot("median of a recurrent step, us", series=bars, categories=names),
    )


def _latency_table(replay: Replay, timed: dict[str, dict[str, Latency]]) -> Table:
    rows: list[list[Cell]] = []
    for name, latency in timed.items():
        over = replay.result.baseline_over_backend.get(name)
        for operation, values in latency.items():
            ratios = [over.median, over.p25, over.p75] if over and operation == STEP else [None] * 3
            rows.append([name, words(operation), values.p50, values.p95, values.p99, values.samples, *ratios])
    faster = f"times as fast as {replay.result.baseline}"
    return Table(("backend", "operation", "p50, us", "p95, us", "p99, us", "calls", faster, "p25", "p75"), rows)


def step_parts(latency: dict[str, Latency], operations: Sequence[str] = OPERATIONS) -> dict[str, float]:
    """The median step, divided in proportion to what its ``operations`` take, us."""
    calls: dict[str, float] = {"hash": _HASHES_OF_A_STEP}
    if "clear" in latency:
        calls["clear"] = latency["clear"].samples / max(latency[STEP].samples, 1)
    medians = {name: latency[name].p50 * calls.get(name, 1) if name in latency else 0.0 for name in operations}
    share = latency[STEP].p50 / (sum(medians.values()) or 1)
    return {name: share * value for name, value in medians.items()}


def distribution_panels(replays: Iterable[Replay]) -> Iterator[Panel]:
    """How the times of steps and of each operation are distributed."""
    for replay in replays:
        for operation in (STEP, *OPERATIONS):
            times = {each.name: each.distributions.get(operation) for each in replay.result.backends}
            found = {name: laps for name, laps in times.items() if laps}
            if found:
                yield _distribution_panel(replay, operation, found)


def _distribution_panel(replay: Replay, operation: str, found: dict[str, list[float]]) -> Panel:
    def hover(lap: float, share: float, name: str) -> str:
        return f"{share:.0f} % of calls take\nat most {number(lap)} us\n{name}"

    # The slowest call of all would press the others together.
    percentiles = range(0, 100, 2)  # as many as can be told apart
    lines = [Series(name, [laps[each] for each in percentiles], percentiles, hover) for name, laps in found.items()]
    data = Table.of({"percentile": range(101), **{f"{name}, us": laps for name, laps in found.items()}})
    return Panel(
        replay.name("latency", operation),
        replay.title(f"Time of a {'' if operation == STEP else 'call of '}{words(operation)}"),
        Table(data.headings, [row for row in data.rows if row[0] in _PERCENTILES]),
        f"{replay.described}. Steeper is steadier, further left is faster. The slowest hundredth is in the table "
        "alone.",
        replay.file.command,
        Plot("us", "share of calls that take no longer, %", lines, log_x=True),
        data,
    )


def memory_panels(replays: Iterable[Replay]) -> Iterator[Panel]:
    """What pools and batches reserve while a replay goes on."""

    def hover(step: float, megabytes: float, name: str) -> str:
        return f"{1e6 * megabytes:,.0f} bytes after\n{step:,.0f} inferences\n{name}"

    for replay in replays:
        samples = {}
        for backend, timeline in replay.timelines:
            samples[backend.name] = pd.DataFrame(timeline.bytes_reserved, index=timeline.steps).add_prefix("bytes, ")
            samples[backend.name].insert(0, "bytes together", samples[backend.name].sum(axis=1))
        if not samples:
            continue
        lines = [
            Series(name, frame.index.tolist(), (frame["bytes together"] / 1e6).tolist(), hover)
            for name, frame in samples.items()
        ]
        backends = [backend for backend, _ in replay.timelines]
        last = {
            "backend": list(samples),
            **{
                f"{pool}, bytes": [each.bytes_reserved.get(pool) for each in backends]
                for pool in replay.timelines[0][1].bytes_reserved
            },
            "together, bytes": [sum(each.bytes_reserved.values()) for each in backends],
            "peak, bytes": [each.peak_bytes for each in backends],
        }
        yield Panel(
            replay.name("memory"),
            replay.title("Memory over a replay"),
            Table.of(last),
            f"{replay.described}. Bytes that pools and batches reserve, from the checked pass, which is not timed; the "
            "table has them at the end, the data at every sample.",
            replay.file.command,
            Plot("inferences done", "MB reserved", without_repeats(lines), from_zero=True),
            Table.of(pd.concat(samples, names=["backend", "inferences done"]).reset_index()),
        )


def outcome_panels(replays: Iterable[Replay]) -> list[Panel]:
    """Lookup outcomes, a bar for each backend at each capacity."""
    groups: dict[tuple[str, str], list[Replay]] = {}
    for replay in replays:
        groups.setdefault((replay.identity, replay.result.device), []).append(replay)
    return [_outcome_panel(group) for group in groups.values()]


def _outcome_panel(replays: Sequence[Replay]) -> Panel:
    found = [(replay.result.capacity.label, each) for replay in replays for each in replay.result.backends]
    backends = [backend for _, backend in found]
    rates = {outcome: [each.rate(outcome) for each in backends] for outcome in OUTCOMES}
    table: dict[str, list[Any]] = {
        "slots": [capacity for capacity, _ in found],
        "backend": [each.name for each in backends],
        **{words(each): [backend.count(each) for backend in backends] for each in ("lookups", *OUTCOMES)},
        **{f"{words(outcome)}, %": values for outcome, values in rates.items()},
        **{f"evictions, {pool}": [each.evictions[pool] for each in backends] for pool in backends[0].evictions},
    }

    places = range(len(found))

    def hover(place: float, rate: float, name: str) -> str:
        count, (capacity, backend) = table[name][int(place)], found[int(place)]
        return f"{name}: {number(rate)} % ({count:,.0f})\n{backend.name}, {capacity}" if count else ""

    bars = [
        Series(words(outcome), places, [rate or 0.0 for rate in values], hover, "bars", OUTCOME_COLOURS[outcome])
        for outcome, values in rates.items()
        if any(values)
    ]
    first = replays[0]
    trace = first.result.trace.file
    return Panel(
        file_name("outcomes", first.file.path.stem, trace, first.result.device, beside=first.identity),
        f"Lookup outcomes: {Path(trace).stem}",
        Table.of(table),
        f"{first.place}. A hit is the context that the search meant; a mismatch has the right key and another history; "
        "a stale hit is another key's content, returned as if it were right.",
        first.file.command,
        Plot("lookups, %", series=bars, categories=[f"{each.name}, {capacity}" for capacity, each in found]),
    )


def work_panels(replays: Iterable[Replay]) -> Iterator[Panel]:
    """Counted work of a median recurrent step."""
    for replay in replays:
        counted = {each.name: each.counts_per_step for each in replay.result.backends if each.counts_per_step}
        if not counted or not replay.is_default:
            continue
        operations = [counts.get("tensor_ops", 0.0) for counts in counted.values()]
        yield Panel(
            replay.name("work"),
            replay.title("Work of a recurrent step"),
            Table(("backend", *_WORK.values()), [[name, *map(each.get, _WORK)] for name, each in counted.items()]),
            f"{replay.described}. Counted, the same on any machine; median of the steps.",
            replay.file.command,
            _bars_of("tensor operations", list(counted), operations),
            open=True,
        )


def _bars_of(what: str, names: Sequence[str], values: Sequence[float]) -> Plot:
    def hover(place: float, value: float, _: str) -> str:
        return f"{number(value)} {what}\n{names[int(place)]}"

    return Plot(what, series=[Series(what, range(len(names)), values, hover)], categories=names)
