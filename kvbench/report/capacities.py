"""Hit rate against the recurrent pool's size, from replays at several capacities, between its bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from kvbench.capacity.bounds import Future
from kvbench.report.input_files import Replay, ReplayFile
from kvbench.report.panels import Panel, Plot, Series, Table
from kvbench.report.text import number, words
from kvbench.results.replay import OUTCOMES
from kvcache import TOKENS_PER_STEP, Geometry

__all__ = ["capacity_panels"]

_DRAWN = {"hit": "line", "stale_hit": "dashed"}
_BOUND_STYLES = {
    "Belady": ("line", 6), "Belady, full entries": ("line", 6), "Belady, added tokens alone": ("line", 4),
    "unbounded": ("dashed", 5),
}  # fmt: skip

Requests = Callable[[str, int], Future | None]
Rates = list[float | None]  # %, one for each size


def capacity_panels(files: Iterable[ReplayFile], future: Requests) -> Iterator[Panel]:
    """Hits and stale hits against the recurrent pool's size, in entries and in bytes.

    Bounds are of ``future``: the requests, by the SHA-256 of a trace and the number of its searches.
    """
    for file in files:
        places: dict[tuple[str, str], list[Replay]] = {}
        for each in file.replays:
            places.setdefault((each.identity, each.result.device), []).append(each)
        for replays in places.values():
            trace = replays[0].result.trace
            drawn = [(in_bytes, [each for each in replays if _size(each, in_bytes)]) for in_bytes in (False, True)]
            drawn = [(in_bytes, sized) for in_bytes, sized in drawn if len(sized) > 1]
            asked = future(trace.sha256, trace.searches) if drawn else None  # it takes memory for each request
            for in_bytes, sized in drawn:
                yield _capacity_panel(sized, asked, in_bytes)


def _size(replay: Replay, in_bytes: bool) -> int:
    """Of the recurrent pool; 0 where it was not given."""
    capacity = replay.result.capacity
    return (capacity.recur_bytes if in_bytes else capacity.recur) or 0


def _capacity_panel(replays: Sequence[Replay], asked: Future | None, in_bytes: bool) -> Panel:
    replays = sorted(replays, key=lambda each: _size(each, in_bytes))
    first = replays[0]
    trace, unit = first.result.trace, "bytes" if in_bytes else "entries"
    sizes = [_size(each, in_bytes) for each in replays]

    def line(label: str, rates: Rates, style: str, colour: int) -> Series:
        values = [math.nan if rate is None else rate for rate in rates]
        return Series(
            label, sizes, values, lambda size, rate, name: f"{number(rate)} %\n{name}\n{number(size)} {unit}",
            style, colour,
        )  # fmt: skip

    lines: list[Series] = []
    drawn: dict[str, Rates] = {}
    undrawn: dict[str, Rates] = {}
    for place, name in enumerate(each.name for each in first.result.backends):
        for outcome in OUTCOMES:
            rates = [_rate(each, name, outcome) for each in replays]
            if outcome in _DRAWN:
                label = f"{name}, {words(outcome)}s"
                drawn[f"{label}, %"] = rates
                lines.append(line(label, rates, _DRAWN[outcome], place))
            else:
                undrawn[f"{name}, {words(outcome)}, %"] = rates
    for label, rates in _bounds(asked, sizes, trace.geometry, in_bytes).items() if asked else ():
        drawn[f"{label}, %"] = rates
        lines.append(line(label, rates, *_BOUND_STYLES[label]))
    return Panel(
        first.name("capacity", unit),
        f"Hit rate against capacity in {unit}",
        Table.of({f"recurrent pool, {unit}": sizes, **drawn, **undrawn}),
        f"{trace.file} on {first.result.device}, {trace.searches} searches. {_bounds_note(asked, in_bytes)}"
        "Stale hits (dashed) are no hits, and are drawn beside them.",
        first.file.command,
        Plot(f"recurrent pool, {unit}", "lookups, %", lines, log_x=True, from_zero=True),
    )


def _rate(replay: Replay, backend: str, outcome: str) -> float | None:
    return next((each.rate(outcome) for each in replay.result.backends if each.name == backend), None)


def _bounds_note(asked: Future | None, in_bytes: bool) -> str:
    if asked is None:
        return "No trace was given (--trace): no bounds. "
    shared = "Shared pages may beat full entries, but not entries that weigh only the tokens they add. "
    return (
        "Belady's rule knows the future: no pool of its size finds more. It and the unbounded pool count lookups "
        f"that find their own key, whatever its history. They take init pools to be unbounded. "
        f"{shared if in_bytes else ''}"
    )


def _bounds(asked: Future, sizes: Sequence[int], geometry: Geometry, in_bytes: bool) -> dict[str, Rates]:
    entry = geometry.entry_bytes()
    own = entry // geometry.context_length * TOKENS_PER_STEP
    units = {"Belady, full entries": entry, "Belady, added tokens alone": own} if in_bytes else {"Belady": 1}
    found = {label: [asked.found_by_belady(size // unit) for size in sizes] for label, unit in units.items()}
    found["unbounded"] = [asked.found] * len(sizes)
    return {
        label: [100 * count / asked.lookups if asked.lookups else None for count in counts]
        for label, counts in found.items()
    }
