"""The regressions page: every step of every metric, and the histories that show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvcache.report.changes import Change
from kvcache.report.commits import Commits
from kvcache.report.history import History, Series
from kvcache.report.panels import Cell, Link, Panel, Table
from kvcache.report.plots import Mark, Plot
from kvcache.report.plots import Series as Line
from kvcache.report.text import file_name, number

__all__ = [
    "MACHINE",
    "STEP_HEADINGS",
    "Step",
    "commit_table",
    "find_steps",
    "history_panels",
    "pace_panels",
    "step_table",
]

MACHINE = "machine"
MOST_TICKS = 4  # for which there is room, of names of commits
MOST_LINES = 8  # of a figure: the colours of the palette
LAST_VALUES = 20  # of a history that stand in its table; all of them are in its data
FEWEST_POINTS = 2
_ORDER = ("worse", "better", MACHINE, "")

STEP_HEADINGS = (
    "verdict", "change, %", "certainty, %", "metric", "parameters", "commit", "subject", "before", "after", "unit",
    "author", "machine", "measured before at", "unmeasured between",
)  # fmt: skip


COMMIT_HEADINGS = (
    "commit", "subject", "author", "steps for the worse", "for the better", "the worst, %", "of metric", "parameters",
)  # fmt: skip
_SUREST = 99.99


@dataclass(frozen=True)
class Step:
    """One step of one metric, and where it came from.

    Attributes:
        series: that steps.
        change: how.
        commit: first one measured after the step.
        previous: last one measured before it.
        between: commits between the two, none of them measured: the step may be any of theirs. None where the
            repository does not know the two.
        author, subject: of ``commit``; empty where the repository does not know it.
        is_new: whether ``commit`` is one of those that the report calls new.
    """

    series: Series
    change: Change
    commit: str
    previous: str
    between: int | None
    author: str
    subject: str
    is_new: bool

    @property
    def verdict(self) -> str:
        """``worse`` or ``better``; ``machine`` of what is left alone; empty where nobody said what is better."""
        if self.series.is_control:
            return MACHINE
        if not self.series.lower_is_better:
            return ""
        return "worse" if self.change.ratio > 1 else "better"

    @property
    def is_worse(self) -> bool:
        return self.verdict == "worse"

    @property
    def percent(self) -> float | None:
        """By how much the metric moved, %; None from zero."""
        return 100 * (self.change.ratio - 1) if math.isfinite(self.change.ratio) else None


def find_steps(history: History, commits: Commits) -> list[Step]:
    """All steps, the worst first; of those for the worse, the ones from zero before all others."""
    found = [
        _step(series, change, history.commits[series.machine], commits)
        for series in history.series
        for change in series.changes
    ]
    return sorted(found, key=lambda step: (_ORDER.index(step.verdict), -abs(_magnitude(step.change.ratio))))


def _magnitude(ratio: float) -> float:
    return math.log(ratio) if ratio > 0 else -math.inf


def _step(series: Series, change: Change, measured: Sequence[str], commits: Commits) -> Step:
    name = measured[change.position]
    previous = measured[int(np.flatnonzero(~np.isnan(series.values[: change.position]))[-1])]
    known = commits.find(name)
    places = commits.places
    between = places[name] - places[previous] - 1 if name in places and previous in places else None
    return Step(
        series, change, name, previous, between,
        known.author if known else "", known.subject if known else "", commits.is_new(name),
    )  # fmt: skip


def step_table(steps: Sequence[Step], pages: dict[str, str]) -> Table:
    """Steps as rows.

    Args:
        steps: to be shown.
        pages: address of the history of a benchmark's cell, by ``group_name`` of its series.
    """
    rows: list[list[Cell]] = []
    for step in steps:
        series, change = step.series, step.change
        page = pages.get(group_name(series))
        rows.append(
            [
                step.verdict, step.percent, _certainty(change.certainty),
                Link(series.metric, page) if page else series.metric, series.params, step.commit[:8], step.subject,
                change.before, change.after, series.unit, step.author, series.machine, step.previous[:8], step.between,
            ]
        )  # fmt: skip
    return Table(STEP_HEADINGS, rows)


def _certainty(probability: float) -> float:
    """%; of what was tested never all of them, however many digits there are."""
    return 100.0 if probability == 1 else min(100 * probability, _SUREST)


def commit_table(steps: Sequence[Step], commits: Commits) -> Table:
    """Commits at which something steps, the newest first: how often, and what moves most there."""
    by_commit: dict[str, list[Step]] = {}
    for step in steps:
        if step.verdict != MACHINE:
            by_commit.setdefault(step.commit, []).append(step)
    newest_first = sorted(by_commit, key=lambda name: commits.places.get(name, -1), reverse=True)
    rows: list[list[Cell]] = []
    for name in newest_first:
        found = by_commit[name]
        first = found[0]  # steps come with the worst first
        counts = [sum(step.verdict == verdict for step in found) for verdict in ("worse", "better")]
        rows.append(
            [name[:8], first.subject, first.author, *counts, first.percent, first.series.metric, first.series.params]
        )
    return Table(COMMIT_HEADINGS, rows)


def group_name(series: Series) -> str:
    """Of the figure that shows a series: one has all backends of a cell, or a benchmark's only parameter."""
    return file_name("history", series.machine, series.benchmark, _cell(series))


def _cell(series: Series) -> str:
    """Parameters without the backend."""
    if "backend" not in series.cell:
        return series.params if len(series.cell) > 1 else ""
    return series.params_without("backend")


def history_panels(history: History, steps: Sequence[Step], commits: Commits, most: int) -> list[Panel]:
    """Histories as panels, at most so many, those with the worst steps first; a history of one commit is none."""
    groups: dict[str, list[Series]] = {}
    for series in history.series:
        if np.count_nonzero(~np.isnan(series.values)) >= FEWEST_POINTS:
            groups.setdefault(group_name(series), []).append(series)
    stepping: dict[str, int] = {}
    for place, step in enumerate(steps):
        stepping.setdefault(group_name(step.series), place)
    order = sorted(groups, key=lambda name: stepping.get(name, len(steps)))
    by_group: dict[str, list[Step]] = {}
    for step in steps:
        by_group.setdefault(group_name(step.series), []).append(step)
    return [_panel(name, groups[name], by_group.get(name, []), history, commits) for name in order[:most]]


def _panel(name: str, group: list[Series], steps: list[Step], history: History, commits: Commits) -> Panel:
    first = group[0]
    stepping = [step.series for step in steps]
    drawn = sorted(group, key=lambda series: series not in stepping)[:MOST_LINES]
    drawn.sort(key=group.index)
    measured = history.commits[first.machine]
    root = next(iter(commits.known), None)
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
    plot = Plot(
        "commit, oldest first",
        first.unit,
        lines,
        marks=[Mark(position - 0.5, text) for position, text in marked.items()],
        x_ticks=[(position, names[position][:8]) for position in places[::every]],
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
    cell = _cell(first)
    return Panel(
        name,
        f"{first.metric}{', ' if cell else ''}{cell}",
        Table(headings, latest),
        f"{first.benchmark} on {first.machine}; {kind}; {better}.{more}{left_out}",
        f"tox -e asv -- {names[-1][:8]}"
        if root and names[0] == root.name
        else f"tox -e asv -- {names[0][:8]}^..{names[-1][:8]}",
        plot,
        Table(headings, rows),
    )


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
