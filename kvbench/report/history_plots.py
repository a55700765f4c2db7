"""The plot of a history: its lines, and, where some of them step, those in colour with their levels before and after.

A line far from those that step is not drawn: beside it their steps would not be seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kvbench.history.environments import Environments
from kvbench.history.series import Series
from kvbench.judge.change_points import ChangePoint
from kvbench.report.environments import border_marks, shortened
from kvbench.report.panels import Level, Plot
from kvbench.report.panels import Series as Line
from kvbench.report.text import number

__all__ = ["HistoryLine", "far_from_steps", "history_lines", "history_plot", "label_of", "ticks"]

MOST_TICKS = 4  # for which there is room, of names of commits
WIDEST = 10  # of the largest value over the smallest: where it is wider, changes of the small ones would not be seen
FARTHEST = 2  # times the height of the lines that step, which others may make of it
_GREY = 6  # in the palette
_COLOURS = (1, 0, 3, 2, 4, 5, 7)  # of lines that step


@dataclass(frozen=True)
class HistoryLine:
    """What is drawn once: the series whose values are all the same, and their change points."""

    label: str
    values: np.ndarray
    points: Sequence[ChangePoint]


def history_lines(group: Iterable[Series], points: Sequence[ChangePoint]) -> list[HistoryLine]:
    """The different lines of a group of series, the one with the worst change point first."""
    same: dict[bytes, list[Series]] = {}
    for series in group:
        same.setdefault(series.values.tobytes(), []).append(series)
    lines = [
        HistoryLine(", ".join(map(label_of, alike)), alike[0].values, [each for each in points if each.series in alike])
        for alike in same.values()
    ]
    worst_first = {id(point): place for place, point in enumerate(points)}
    return sorted(lines, key=lambda line: worst_first[id(line.points[0])] if line.points else len(points))


def label_of(series: Series) -> str:
    """What a series is called beside others of its figure."""
    return series.param("backend") or series.params or series.metric


def far_from_steps(lines: Sequence[HistoryLine]) -> list[HistoryLine]:
    """Lines without a step that would flatten those that have one, if they were drawn."""
    low, high = _range(line for line in lines if line.points)
    room = FARTHEST * (high - low)
    far = []
    others = [line for line in lines if not line.points and low < high]
    for line in sorted(others, key=lambda line: _range([line, *(each for each in lines if each.points)])[1]):
        own = _range([line])
        if max(high, own[1]) - min(low, own[0]) > room:
            far.append(line)
        else:
            low, high = min(low, own[0]), max(high, own[1])
    return far


def _range(lines: Iterable[HistoryLine]) -> tuple[float, float]:
    """Lowest and highest value, in powers of ten where all of them have some."""
    values = np.concatenate([[], *(line.values[np.isfinite(line.values)] for line in lines)])
    if not len(values):
        return math.inf, -math.inf
    if values.min() > 0:
        values = np.log10(values)
    return float(values.min()), float(values.max())


def history_plot(
    lines: Sequence[HistoryLine], machine: str, names: Sequence[str], unit: str, environments: Environments
) -> Plot:
    """Lines over the commits ``names`` of a machine, as far as any of them has a value there.

    They break where another one of the ``environments`` begins, and what changed is written there.
    """
    known = np.flatnonzero(np.any([~np.isnan(line.values) for line in lines], axis=0))
    places = {int(position): place for place, position in enumerate(known)}
    worst = next((line for line in lines if line.points), None)
    borders = border_marks(environments, known.tolist())
    changed = {int(known[at]) for at, _ in borders}
    steps = {point.change.position: point.commit[:8] for line in lines for point in line.points}
    shown = [names[position][:8] for position in known.tolist()]
    values = np.concatenate([line.values[np.isfinite(line.values)] for line in lines])
    return Plot(
        f"commits, oldest first; newest: {shown[-1]}",
        unit,
        [
            Line(line.label, range(len(known)), line.values[known].tolist(), None, *ink)
            for line, ink in zip(lines, _inks(lines), strict=True)
        ],
        marks=[
            *((places[position] - 0.5, commit) for position, commit in steps.items() if position not in changed),
            *((at - 0.5, shortened(change)) for at, change in borders),
        ],
        breaks=[at - 0.5 for at, _ in borders],
        x_ticks=ticks(shown),
        log_y=bool(values.min() > 0 and values.max() > WIDEST * values.min()),
        levels=[
            level for place, line in enumerate(lines) for level in _levels(place, line, places, told=line is worst)
        ],
        along=machine,
        places=known.tolist(),
    )


def _inks(lines: Sequence[HistoryLine]) -> list[tuple[str, int | None]]:
    """Style and colour of each line: where some step, the others are grey."""
    if not any(line.points for line in lines):
        return [("line", place) for place in range(len(lines))]
    colours = iter(_COLOURS)
    return [("line", next(colours, _GREY)) if line.points else ("dashed", _GREY) for line in lines]


def _levels(series: int, line: HistoryLine, places: Mapping[int, int], told: bool) -> Iterator[Level]:
    """What a line comes to between its steps; where that is told, it is written at the largest one."""
    if not line.points:
        return
    largest = line.points[0].change.position
    changes = sorted((point.change for point in line.points), key=lambda change: change.position)
    known = [places[int(position)] for position in np.flatnonzero(~np.isnan(line.values))]
    edges = [known[0], *(places[change.position] - 0.5 for change in changes), known[-1]]
    heights = [changes[0].before, *(change.after for change in changes)]
    for place, (height, start, end) in enumerate(zip(heights, edges, edges[1:], strict=False)):
        beside = [change.position for change in changes[max(0, place - 1) : place + 1]]
        yield Level(series, start, end, height, number(height) if told and largest in beside else "")


def ticks(shown: Sequence[str]) -> list[tuple[float, str]]:
    """Names of some commits, the newest among them."""
    last = len(shown) - 1
    return [
        (place, shown[place]) for place in dict.fromkeys(last * each // (MOST_TICKS - 1) for each in range(MOST_TICKS))
    ]
