"""Regressions that still stand, the worst first, and those that a later commit mended."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kvbench.history.series import Series
from kvbench.judge.change_points import ChangePoint
from kvbench.judge.verdict import Verdict
from kvbench.report.bisection import command_of, subject_of
from kvbench.report.findings import Finding, grouped, how_much, of_series
from kvbench.report.history_figures import history_name
from kvbench.report.panels import Cell, Link, Table

__all__ = ["Regression", "regressions_of", "standing_lines", "standing_table"]

_HEADINGS = (
    "still, %", "at the step, %", "metric", "parameters", "since", "subject", "before", "after", "last", "unit",
    "machine", "to find the commit",
)  # fmt: skip


@dataclass(frozen=True)
class Regression:
    """A change for the worse; ``left`` is the ratio that later changes of the series leave of it, at most its own."""

    point: ChangePoint
    left: float

    @property
    def percent(self) -> float | None:
        """How much of it still stands, %; None from zero."""
        return 100 * (self.left - 1) if math.isfinite(self.left) else None

    @property
    def last(self) -> float:
        """The last value of the series."""
        values = self.point.series.values
        return float(values[~np.isnan(values)][-1])

    @property
    def is_back(self) -> bool:
        """Whether the last value of what is measured is no worse than before: too few to say that it was mended."""
        change = self.point.change
        # A time that is judged over legacy's may fall and be worse: its last value says nothing then.
        return not self.point.series.is_exact and self.last <= change.before < change.after


def regressions_of(points: Sequence[ChangePoint]) -> tuple[list[Regression], list[Regression]]:
    """Those that still stand and those that were mended, what is left of them largest first.

    Those whose last value is back where it was come behind the others.
    """
    by_series: dict[Series, list[ChangePoint]] = {}
    for point in points:
        if point.verdict.is_of_a_commit:  # what came with another machine or environment takes nothing back
            by_series.setdefault(point.series, []).append(point)
    found = [each for own in by_series.values() for each in _with_what_is_left(own)]
    found.sort(key=lambda each: (each.is_back, -each.left, -each.point.change.ratio))
    return [each for each in found if each.point.stands], [each for each in found if not each.point.stands]


def _with_what_is_left(points: Iterable[ChangePoint]) -> Iterator[Regression]:
    """The changes for the worse among a series' changes."""
    later = 1.0  # what the changes after it come to
    for point in sorted(points, key=lambda each: each.change.position, reverse=True):
        ratio = point.change.ratio
        if point.verdict is Verdict.WORSE:
            yield Regression(point, min(ratio, ratio * later) if math.isfinite(ratio) else ratio)
        later *= ratio


def standing_lines(found: Iterable[Regression], pages: Mapping[str, str]) -> list[Finding]:
    """A line for each metric and storage that a commit made worse."""

    def line(each: Regression) -> Finding:
        point = each.point
        much = how_much(each.percent, point.change.before, point.change.after, point.series)
        own = of_series(point.series, Verdict.WORSE, much, pages)
        since = f"{point.where}, back in the last value" if each.is_back else point.where
        return replace(own, since=since, about=f"{own.about}: {subject_of(point)}", is_new=point.is_new)

    return grouped(found, lambda each: each.point.series, line)


def standing_table(found: Iterable[Regression], pages: Mapping[str, str]) -> Table:
    """Each series."""
    rows: list[list[Cell]] = []
    for each in found:
        point, series = each.point, each.point.series
        page = pages.get(history_name(series))
        rows.append(
            [
                each.percent, point.percent, Link(series.metric, page) if page else series.metric, series.params,
                point.where, subject_of(point), point.change.before, point.change.after, each.last, series.unit,
                series.machine, command_of(point),
            ]
        )  # fmt: skip
    return Table(_HEADINGS, rows)
