"""Histories as figures: a metric's values commit by commit with their change points, and each machine's pace."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from kvbench.history.series import History, Series
from kvbench.judge.change_points import ChangePoint
from kvbench.report.environments import border_marks, border_sentence
from kvbench.report.facets import facets_together
from kvbench.report.history_plots import (
    HistoryLine,
    far_from_steps,
    history_lines,
    history_plot,
    label_of,
    ticks,
)
from kvbench.report.panels import Cell, Panel, Plot, Table
from kvbench.report.panels import Series as Line
from kvbench.report.text import file_name, number

__all__ = ["OVER_LEGACY", "history_name", "history_panels", "pace_panel", "ratio_name"]

MOST_LINES = 8  # of a figure: the colours of the palette
LAST_VALUES = 10  # of a history in its table; all of them are in its data
FEWEST_POINTS = 2
OVER_LEGACY = "_over_legacy"  # behind the name of a time


def history_name(series: Series) -> str:
    """Of the figure that shows a series: one has all backends of the same sizes, or a benchmark's only parameter."""
    return file_name("history", series.machine, series.benchmark, series.sizes)


def ratio_name(series: Series) -> str:
    """Of the figure with the same times over legacy's, where the suite has them."""
    return history_name(replace(series, benchmark=f"{series.benchmark}{OVER_LEGACY}"))


def history_panels(history: History, points: Sequence[ChangePoint], most: int, command: str = "") -> list[Panel]:
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
    order = [name for name in dict.fromkeys([*by_group, *groups]) if not _has_ratio(name, groups, by_group)]
    return [_panel(name, groups[name], by_group.get(name, []), history, command) for name in order[:most]]


def _has_ratio(name: str, groups: Mapping[str, list[Series]], changed: Container[str]) -> bool:
    """Whether another figure has the same times over legacy's: they are what is judged, and its picture is the same."""
    ratio = ratio_name(groups[name][0])
    return ratio in groups and ratio != name and (ratio in changed or name not in changed)


def _panel(name: str, group: list[Series], points: list[ChangePoint], history: History, command: str) -> Panel:
    first = group[0]
    names = history.commits[first.machine]
    lines = history_lines(group, points)
    far = far_from_steps(lines)
    drawn = [line for line in lines if line not in far][:MOST_LINES]
    known = np.flatnonzero(np.any([~np.isnan(line.values) for line in lines], axis=0))
    columns = {line.label: line.values[known].tolist() for line in lines}
    latest = (
        pd.DataFrame(columns, index=[names[place][:8] for place in known]).tail(LAST_VALUES).reset_index(names="commit")
    )
    cut = len(known) > LAST_VALUES
    borders = border_marks(history.environments_of(first.machine), known.tolist())
    return Panel(
        name,
        ", ".join(part for part in (first.metric, first.sizes) if part),
        Table.of(latest),
        _note(first, lines, drawn, far)
        + (f" The table has the last {LAST_VALUES} commits." if cut else "")
        + border_sentence(borders, [names[place] for place in known]),
        command,
        history_plot(drawn, first.machine, names, first.unit, history.environments_of(first.machine)),
        _data(group, known, history),
        facets=facets_together(group),
    )


def _note(first: Series, lines: Sequence[HistoryLine], drawn: Sequence[HistoryLine], far: Sequence[HistoryLine]) -> str:
    """Where the values are from, how they are judged, and what is not drawn."""
    kind = "deterministic: every change is a change point" if first.is_exact else "measured: change points are tested"
    better = "lower is better" if first.lower_is_better else "whether lower is better is not known"
    found = [f"{first.benchmark} on {first.machine}; {kind}; {better}."]
    if far:
        at = "; ".join(f"{line.label}, at {number(line.values[~np.isnan(line.values)][-1])}" for line in far)
        found.append(f"Not drawn, since it would flatten the others: {at}.")
    if len(drawn) + len(far) < len(lines):
        found.append(f"{len(drawn)} of {len(lines)} series are drawn, those with change points first.")
    return " ".join(found)


def _data(group: Sequence[Series], known: np.ndarray, history: History) -> Table:
    """All values of all series, commit by commit."""
    names = [history.commits[group[0].machine][place] for place in known]
    rows: list[list[Cell]] = [
        [commit[:8], str(history.dates[commit].date()), *(each.values[place] for each in group)]
        for commit, place in zip(names, known, strict=True)
    ]
    return Table(("commit", "date", *(label_of(each) for each in group)), rows)


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
        Plot("commit, oldest first", "times its usual time", [line], x_ticks=ticks([name[:8] for name in commits])),
    )
