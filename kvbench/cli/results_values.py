"""Series of asv's results for a table: a group for each benchmark, headline metrics first, numbers fit to be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kvbench.text import seconds_of

__all__ = ["HEADLINES", "Group", "Line", "by_benchmark", "is_headline", "number", "ratio"]

# Time, memory, stale hits and misses of the replays: what a reader asks first.
HEADLINES = (
    "Replays.track_step_time_over_legacy",
    "Replays.track_bytes_reserved",
    "Replays.track_stale_hit_rate_in_small_pool",
    "Replays.track_miss_rate_in_small_pool",
)
_DIGITS = 4
_LARGEST_WHOLE = 1e7  # larger numbers are written with an exponent, whole ones too
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_BYTES = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1.0}


@dataclass(frozen=True, eq=False)
class Line:
    """One series: its parameters, and a value and a state for each commit; the state is empty where there is none."""

    cell: dict[str, str]
    values: np.ndarray
    states: np.ndarray

    @property
    def is_complete(self) -> bool:
        """Whether it was measured at all of the commits, or failed there."""
        return not set(self.states) & {"", "skipped"}


@dataclass(frozen=True, eq=False)
class Group:
    """A benchmark's series on one machine."""

    benchmark: str
    unit: str
    lines: list[Line]

    @property
    def name(self) -> str:
        """For people: ``Replays.step_time`` of ``replays.Replays.track_step_time``."""
        owner, _, name = self.benchmark.rpartition(".")
        return ".".join(part for part in (owner.rpartition(".")[2], name.removeprefix("track_")) if part)

    @property
    def is_noisy(self) -> bool:
        """Whether it is of times, which differ from run to run."""
        return self.unit == "ratio" or seconds_of(self.unit) is not None

    def scaled(self) -> tuple[str, float]:
        """The unit that its values are read best in, and how much of the group's own that is."""
        values = np.abs(np.concatenate([line.values for line in self.lines]))
        values = values[values > 0]
        middle = float(np.median(values)) if len(values) else 1.0
        seconds = seconds_of(self.unit)
        if seconds is not None:
            return _fitting(_TIMES, middle, seconds)
        kind, _, per = self.unit.partition(" ")
        if kind != "bytes":
            return self.unit, 1.0
        unit, scale = _fitting(_BYTES, middle, 1.0)
        return f"{unit} {per}".strip(), scale


def _fitting(units: dict[str, float], middle: float, own: float) -> tuple[str, float]:
    """The largest unit of which the middle value has one or more."""
    for unit, size in units.items():
        if middle * own >= size:
            return unit, size / own
    unit, size = list(units.items())[-1]
    return unit, size / own


def number(value: float) -> str:
    """Four digits or all before the point."""
    if abs(value) >= _LARGEST_WHOLE:
        return f"{value:.{_DIGITS}g}"
    if value.is_integer() or abs(value) >= 10**_DIGITS / 10:
        return f"{value:,.0f}"
    return f"{value:.{_DIGITS}g}"


def ratio(first: float, last: float) -> str:
    """Last over first; "=" only where they are the same."""
    if first == last:
        return "="
    if not first:
        return "from 0"
    found = last / first
    shown = f"{found:,.3f}" if abs(found) < 1000 else f"{found:,.0f}"
    if shown == "1.000":
        shown = f"{found:.6g}"
    return shown if shown != "1" else f"{'<' if found < 1 else '>'} 1"


def is_headline(benchmark: str) -> bool:
    return benchmark.endswith(HEADLINES)


def by_benchmark(rows: pd.DataFrame, commits: Sequence[str]) -> Iterator[Group]:
    """One machine's rows as groups, headlines first, then in the order of their names."""
    for (benchmark, unit), own in sorted(
        rows.groupby(["benchmark", "unit"], sort=False), key=lambda each: _rank(each[0][0])
    ):
        lines = list(_lines(own, commits))
        if lines:
            yield Group(str(benchmark), str(unit), lines)


def _rank(benchmark: str) -> tuple[int, str]:
    places = [place for place, name in enumerate(HEADLINES) if benchmark.endswith(name)]
    return (places or [len(HEADLINES)])[0], benchmark


def _lines(rows: pd.DataFrame, commits: Sequence[str]) -> Iterator[Line]:
    """Series that have a value, or a failure, at one of these commits."""
    places = {name: place for place, name in enumerate(commits)}
    rows = rows[rows["commit"].isin(places)]
    # In the order of the last commit: a backend that came later stands beside the others of its cell.
    names = dict.fromkeys([*rows.loc[rows["commit"] == commits[-1], "params"], *rows["params"]])
    order = {name: place for place, name in enumerate(names)}
    numbers, columns = (rows[name].map(known).to_numpy() for name, known in (("params", order), ("commit", places)))
    values = np.full((len(names), len(commits)), np.nan)
    states = np.full(values.shape, "", dtype=object)
    values[numbers, columns] = rows["value"]
    states[numbers, columns] = rows["state"]
    cells = dict(zip(rows["params"], rows["cell"], strict=True))
    for name, one, found in zip(names, values, states, strict=True):
        if (found == "ok").any() or (found == "failed").any():
            yield Line(dict(cells[name]), one, found)
