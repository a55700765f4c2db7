"""Histories as figures: a metric's values commit by commit with their change points, and each machine's pace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from kvbench.history.commits import Commits
from kvbench.history.series import History, Series
from kvbench.judge.change_points import ChangePoint
from kvbench.report.environments import border_marks, border_sentence, broken, shortened
from kvbench.report.panels import Cell, Panel, Plot, Table
from kvbench.report.panels import Series as Line
from kvbench.report.text import file_name, number

__all__ = ["history_name", "history_panels", "pace_panel"]

MOST_TICKS = 4  # for which there is room, of names of commits
WIDEST = 10  # of the largest value over the smallest: where it is wider, changes of the small ones would not be seen
MOST_LINES = 8  # of a figure: the colours of the palette
LAST_VALUES = 20  # of a history in its table; all of them are in its data
FEWEST_POINTS = 2


def history_name(series: Series) -> str:
    """Of the figure that shows a series: one has all backends of the same sizes, or a benchmark's only parameter."""
    return file_name("history", series.machine, series.benchmark, series.sizes)


def history_panels(
    history: History, points: Sequence[ChangePoint], commits: Commits, most: int, command: str = ""
) -> list[Panel]:
    """Histories as panels, at most so many, those with the worst change points first; of one commit there is none.

    ``command`` made them: asv's files do not say how their values were measured.
    """
    groups: dict[str, list[Series]] = {}
    for series in history.series:
        if np.count_nonzero(~np.isnan(series.values)) >= FEWEST_POINTS:
            groups.setdefault(history_name(series), []).append(series)
    by_group: dict[str, list[ChangePoint]] = {}
    for point in points:  # the worst first, and so are the groups
        by_group.setdefault(history_name(point.series), []).append(point)
    order = list(dict.fromkeys([*by_group, *groups]))
    return [_panel(name, groups[name], by_group.get(name, []), history, commits, command) for name in order[:most]]


def _panel(
    name: str, group: list[Series], points: list[ChangePoint], history: History, commits: Commits, command: str
) -> Panel:
    first = group[0]
    columns = {place: each.values for place, each in enumerate(group)}
    values = pd.DataFrame(columns, index=history.commits[first.machine]).dropna(how="all")
    changing = [point.series for point in points]
    drawn = sorted(range(len(group)), key=lambda place: group[place] not in changing)[:MOST_LINES]
    drawn.sort()
    shown = [point for point in points if group.index(point.series) in drawn and not point.environment]
    marks = dict.fromkeys(point.commit for point in shown)
    places = [history.commits[first.machine].index(commit) for commit in values.index]
    borders = border_marks(history.environments_of(first.machine), places)
    rows: list[list[Cell]] = [
        [commit[:8], str(history.dates[commit].date()), _subject(commit, commits), *numbers]
        for commit, *numbers in values.itertuples()
    ]
    kind = "deterministic: every change is a change point" if first.is_exact else "measured: change points are tested"
    better = "lower is better" if first.lower_is_better else "whether lower is better is not known"
    headings = ("commit", "date", "subject", *(_label(each) for each in group))
    latest = rows[-LAST_VALUES:]
    more = f" The table has the last {len(latest)} of {len(rows)} commits." if len(latest) < len(rows) else ""
    if len(drawn) < len(group):
        more += f" {MOST_LINES} of {len(group)} series are drawn, those with change points first."
    return Panel(
        name,
        ", ".join(part for part in (first.metric, first.sizes) if part),
        Table(headings, latest),
        f"{first.benchmark} on {first.machine}; {kind}; {better}.{more}{border_sentence(borders, values.index)}",
        command,
        _plot(
            values[drawn].set_axis([_label(group[place]) for place in drawn], axis=1),
            first.unit,
            marks,
            borders,
            commits,
        ),
        Table(headings, rows),
    )


def _plot(
    values: pd.DataFrame, unit: str, marks: Iterable[str], borders: Sequence[tuple[int, str]], commits: Commits
) -> Plot:
    """A line for each column, by its name; ``marks`` are commits, and at ``borders`` the environment changes."""
    names = values.index

    def hover(place: float, value: float, label: str) -> str:
        commit = names[int(place)]
        return f"{number(value)} {unit}\n{label}\n{commit[:8]} {_subject(commit, commits)[:60]}"

    lines = [Line(label, *broken(column.tolist(), borders), hover) for label, column in values.items()]
    changed = {names[at] for at, _ in borders}
    lowest, highest = np.nanmin(values), np.nanmax(values)
    return Plot(
        "commit, oldest first",
        unit,
        lines,
        marks=[
            *((names.get_loc(commit) - 0.5, commit[:8]) for commit in marks if commit not in changed),
            *((at - 0.5, shortened(change)) for at, change in borders),
        ],
        x_ticks=_ticks(names),
        log_y=bool(lowest > 0 and highest > WIDEST * lowest),
    )


def _ticks(names: Sequence[str]) -> list[tuple[float, str]]:
    every = -(-len(names) // MOST_TICKS) or 1
    return [(place, names[place][:8]) for place in range(0, len(names), every)]


def _label(series: Series) -> str:
    return series.param("backend") or series.params or series.metric


def _subject(commit: str, commits: Commits) -> str:
    known = commits.find(commit)
    return known.subject if known else ""


def pace_panel(machine: str, commits: Sequence[str], pace: np.ndarray, command: str) -> Panel:
    """How fast a machine was while it measured."""
    rows = [(name[:8], float(value)) for name, value in zip(commits, pace, strict=True)]

    def hover(place: float, value: float, _: str) -> str:
        return f"{number(value)}\n{rows[int(place)][0]}"

    line = Line("pace", range(len(rows)), pace.tolist(), hover)
    return Panel(
        file_name("pace", machine),
        f"Pace of {machine}",
        Table(("commit", "pace"), rows),
        "How long legacy took at each commit, over its usual time: the median of all its times. Its code is left "
        "alone, so a busy machine shows here. Times are divided by this pace before they are judged.",
        command,
        Plot("commit, oldest first", "times its usual time", [line], x_ticks=_ticks(commits)),
    )
