"""Histories as figures: a metric's values commit by commit with their steps, and each machine's pace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvbench.report.commits import Commits
from kvbench.report.history import History, Series
from kvbench.report.panels import Cell, Panel, Table
from kvbench.report.plots import Mark, Plot
from kvbench.report.plots import Series as Line
from kvbench.report.steps import Step, history_name
from kvbench.report.text import file_name, number

__all__ = ["history_panels", "pace_panels"]

MOST_TICKS = 4  # for which there is room, of names of commits
WIDEST = 10  # of the largest value over the smallest: where it is wider, steps of the small ones would not be seen
MOST_LINES = 8  # of a figure: the colours of the palette
LAST_VALUES = 20  # of a history that stand in its table; all of them are in its data
FEWEST_POINTS = 2


def history_panels(history: History, steps: Sequence[Step], commits: Commits, most: int) -> list[Panel]:
    """Histories as panels, at most so many, those with the worst steps first; a history of one commit is none."""
    groups: dict[str, list[Series]] = {}
    for series in history.series:
        if np.count_nonzero(~np.isnan(series.values)) >= FEWEST_POINTS:
            groups.setdefault(history_name(series), []).append(series)
    by_group: dict[str, list[Step]] = {}
    for step in steps:  # the worst first, and so are the groups
        by_group.setdefault(history_name(step.series), []).append(step)
    order = list(dict.fromkeys([*by_group, *groups]))
    return [_panel(name, groups[name], by_group.get(name, []), history, commits) for name in order[:most]]


def _panel(name: str, group: list[Series], steps: list[Step], history: History, commits: Commits) -> Panel:
    first = group[0]
    stepping = [step.series for step in steps]
    drawn = sorted(group, key=lambda series: series not in stepping)[:MOST_LINES]
    drawn.sort(key=group.index)
    measured = history.commits[first.machine]
    anything = np.flatnonzero(~np.isnan([each.values for each in group]).all(axis=0))
    names = [measured[place] for place in anything]
    values = np.array([each.values for each in group])[:, anything]
    by_series = dict(zip(group, values.tolist(), strict=True))
    places = range(len(names))
    lines = [
        Line(
            _label(series),
            places,
            by_series[series],
            [_hover(series, commit, value, commits) for commit, value in zip(names, by_series[series], strict=True)],
        )
        for series in drawn
    ]
    at = {int(place): position for position, place in enumerate(anything)}
    marked = {at[step.change.position]: step.commit[:8] for step in steps if step.series in drawn}
    every = -(-len(names) // MOST_TICKS) or 1
    shown = np.array([by_series[series] for series in drawn])
    lowest, highest = np.nanmin(shown), np.nanmax(shown)
    plot = Plot(
        "commit, oldest first",
        first.unit,
        lines,
        marks=[Mark(position - 0.5, text) for position, text in marked.items()],
        x_ticks=[(position, names[position][:8]) for position in places[::every]],
        log_y=bool(lowest > 0 and highest > WIDEST * lowest),
    )
    headings = ("commit", "date", "subject", *(_label(each) for each in group))
    rows: list[list[Cell]] = [
        [commit[:8], str(history.dates[commit].date()), _subject(commit, commits), *column.tolist()]
        for commit, column in zip(names, values.T, strict=True)
    ]
    latest = rows[-LAST_VALUES:]
    kind = "deterministic: every change is a step" if first.is_exact else "measured: steps are tested"
    better = "lower is better" if first.lower_is_better else "whether lower is better is not known"
    more = f" The table has the last {len(latest)} of {len(rows)} commits." if len(latest) < len(rows) else ""
    left_out = f" {MOST_LINES} of {len(group)} series are drawn, those with steps first." if drawn != group else ""
    cell = first.sizes
    return Panel(
        name,
        f"{first.metric}{', ' if cell else ''}{cell}",
        Table(headings, latest),
        f"{first.benchmark} on {first.machine}; {kind}; {better}.{more}{left_out}",
        _command(names, commits),
        plot,
        Table(headings, rows),
    )


def _command(names: Sequence[str], commits: Commits) -> str:
    """What measures all of these commits; a repository's first has no parent to begin behind."""
    first, last = names[0], names[-1]
    return f"tox -e asv -- {last[:8]}" if commits.places.get(first) == 0 else f"tox -e asv -- {first[:8]}^..{last[:8]}"


def _label(series: Series) -> str:
    return series.param("backend") or series.params or series.metric


def _subject(commit: str, commits: Commits) -> str:
    known = commits.find(commit)
    return known.subject if known else ""


def _hover(series: Series, commit: str, value: float, commits: Commits) -> str:
    return f"{number(value)} {series.unit}\n{_label(series)}\n{commit[:8]} {_subject(commit, commits)[:60]}"


def pace_panels(history: History) -> list[Panel]:
    """How fast each machine was while it measured."""
    panels = []
    for machine, pace in history.pace.items():
        names = history.commits[machine]
        hovers = [f"{number(value)}\n{name[:8]}" for name, value in zip(names, pace, strict=True)]
        every = -(-len(names) // MOST_TICKS) or 1
        panels.append(
            Panel(
                file_name("pace", machine),
                f"Pace of {machine}",
                Table(("commit", "pace"), [[name[:8], float(value)] for name, value in zip(names, pace, strict=True)]),
                "What legacy, whose code is left alone, took at each commit over what it takes as a rule, the median "
                "of all its times. Times are judged after division by it: a busy machine slows everything, and is no "
                "regression.",
                "tox -e asv",
                Plot(
                    "commit, oldest first",
                    "times its usual time",
                    [Line("pace", range(len(names)), pace.tolist(), hovers)],
                    x_ticks=[(place, names[place][:8]) for place in range(0, len(names), every)],
                ),
            )
        )
    return panels
