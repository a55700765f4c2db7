"""Hit rate against the recurrent pool's size, from replays at several capacities, between its bounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvbench.capacity.bounds import Future
from kvbench.report.backends import replay_name, words
from kvbench.report.panels import Cell, Panel, Table
from kvbench.report.plots import Plot, Series
from kvbench.report.replays import ReplayFile
from kvbench.report.text import number
from kvbench.results.replay import OUTCOMES, ReplayResult
from kvcache import TOKENS_PER_STEP, Geometry

__all__ = ["bounds_key", "capacity_panels"]

_BOUND_COLOUR = 6
_DRAWN = {"hit": "line", "stale_hit": "dashed"}


def capacity_panels(files: Iterable[ReplayFile], requests: dict[str, Future]) -> list[Panel]:
    """Hits and stale hits against the recurrent pool's size, in entries and in bytes.

    Args:
        files: with replays at several capacities.
        requests: by the SHA-256 of a trace and the number of its searches, for bounds.
    """
    panels = []
    for file in files:
        for place in dict.fromkeys((replay.trace.sha256, replay.device) for replay in file.replays):
            replays = [each for each in file.replays if (each.trace.sha256, each.device) == place]
            asked = requests.get(bounds_key(replays[0].trace.sha256, replays[0].trace.searches))
            for in_bytes in (False, True):
                sized = [each for each in replays if _size(each, in_bytes)]
                if len(sized) > 1:
                    panels.append(_capacity_panel(file, sized, asked, in_bytes))
    return panels


def bounds_key(sha256: str, searches: int) -> str:
    """The name of a replay's requests: which trace, and how much of it."""
    return f"{sha256}/{searches}"


def _size(replay: ReplayResult, in_bytes: bool) -> int:
    """Of the recurrent pool; 0 where it was not given."""
    return (replay.capacity.recur_bytes if in_bytes else replay.capacity.recur) or 0


def _capacity_panel(file: ReplayFile, replays: Sequence[ReplayResult], asked: Future | None, in_bytes: bool) -> Panel:
    replays = sorted(replays, key=lambda each: _size(each, in_bytes))
    sizes = [_size(each, in_bytes) for each in replays]
    unit = "bytes" if in_bytes else "entries"
    names = [backend.name for backend in replays[0].backends]
    columns: list[tuple[str, list[float | None], str, int]] = []
    undrawn: list[tuple[str, list[float | None]]] = []
    for place, name in enumerate(names):
        found = [next((each for each in replay.backends if each.name == name), None) for replay in replays]
        for outcome in OUTCOMES:
            rates = [None if each is None else each.rate(outcome) for each in found]
            if outcome in _DRAWN:
                columns.append((f"{name}, {words(outcome)}s", rates, _DRAWN[outcome], place))
            else:
                undrawn.append((f"{name}, {words(outcome)}", rates))
    if asked is not None:
        columns += _bounds(asked, sizes, replays[0].trace.geometry, in_bytes)
    lines = [
        Series(
            label, sizes, [float("nan") if value is None else value for value in values],
            [f"{number(value)} %\n{label}\n{number(size)} {unit}" for value, size in zip(values, sizes, strict=True)],
            style, colour,
        )
        for label, values, style, colour in columns
    ]  # fmt: skip
    columns_shown = [*((label, rates) for label, rates, *_ in columns), *undrawn]
    rows: list[list[Cell]] = [
        [size, *rates] for size, *rates in zip(sizes, *(rates for _, rates in columns_shown), strict=True)
    ]
    replay = replays[0]
    return Panel(
        replay_name("capacity", file, replay, unit),
        f"Hit rate against capacity in {unit}",
        Table((f"recurrent pool, {unit}", *(f"{label}, %" for label, _ in columns_shown)), rows),
        f"{replay.trace.file} on {replay.device}, {replay.trace.searches} searches. {_bounds_note(asked, in_bytes)}"
        "Stale hits (dashed) are no hits, and are drawn beside them.",
        file.command,
        Plot(f"recurrent pool, {unit}", "lookups, %", lines, log_x=True, from_zero=True),
    )


def _bounds_note(asked: Future | None, in_bytes: bool) -> str:
    if asked is None:
        return "No trace was given (--trace): no bounds. "
    shared = "Shared pages may beat full entries, but not entries that weigh only the tokens they add. "
    shared = shared if in_bytes else ""
    return (
        "Belady's rule knows the future: no pool of its size finds more. It and the unbounded pool count lookups "
        f"that find their own key, whatever its history. They take init pools to be unbounded. {shared}"
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
