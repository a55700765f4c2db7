"""Steps of metrics: which there are, of which commit each is, and tables of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvbench.report.changes import Change
from kvbench.report.commits import Commits
from kvbench.report.history import History, Series
from kvbench.report.panels import Cell, Link, Table
from kvbench.report.text import file_name

__all__ = ["MACHINE", "STEP_HEADINGS", "Step", "commit_table", "find_steps", "history_name", "step_table"]

MACHINE = "machine"  # the verdict on what is left alone
_ORDER = ("worse", "better", MACHINE, "")

STEP_HEADINGS = (
    "verdict", "change, %", "certainty, %", "metric", "parameters", "commit", "subject", "before", "after", "unit",
    "author", "machine", "measured before at", "unmeasured between",
)  # fmt: skip
COMMIT_HEADINGS = (
    "commit", "steps for the worse", "for the better", "subject", "the worst, or the best, %", "of metric",
    "parameters", "author",
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
    def certainty(self) -> float:
        """%; of what was tested never all of them, however many nines there are."""
        return 100.0 if self.series.is_exact else min(100 * self.change.certainty, _SUREST)

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
        pages: address of the history of a benchmark's cell, by ``history_name`` of its series.
    """
    rows: list[list[Cell]] = []
    for step in steps:
        series, change = step.series, step.change
        page = pages.get(history_name(series))
        rows.append(
            [
                step.verdict, step.percent, step.certainty,
                Link(series.metric, page) if page else series.metric, series.params, step.commit[:8], step.subject,
                change.before, change.after, series.unit, step.author, series.machine, step.previous[:8], step.between,
            ]
        )  # fmt: skip
    return Table(STEP_HEADINGS, rows)


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
            [
                name[:8], *counts, first.subject, first.percent, first.series.metric, first.series.params, first.author,
            ]
        )  # fmt: skip
    return Table(COMMIT_HEADINGS, rows)


def history_name(series: Series) -> str:
    """Of the figure that shows a series: one has all backends of the same sizes, or a benchmark's only parameter."""
    return file_name("history", series.machine, series.benchmark, series.sizes)
