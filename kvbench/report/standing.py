"""Regressions that still stand, the worst first, and those that a later commit mended."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kvbench.history.series import Series
from kvbench.judge.change_points import ChangePoint
from kvbench.judge.verdict import Verdict
from kvbench.report.bisection import command_of, subject_of
from kvbench.report.findings import Finding, grouped, how_much, of_series
from kvbench.report.history_figures import history_name
from kvbench.report.panels import Cell, Link, Table

__all__ = ["Regression", "regressions_of", "standing_lines", "standing_table"]

_HEADINGS = (
    "still, %", "at the step, %", "metric", "parameters", "since", "subject", "before", "after", "unit", "machine",
    "to find the commit",
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


def regressions_of(points: Sequence[ChangePoint]) -> tuple[list[Regression], list[Regression]]:
    """Those that still stand and those that were mended, what is left of them largest first."""
    later: dict[Series, list[ChangePoint]] = {}
    for point in [each for each in points if each.verdict in (Verdict.WORSE, Verdict.BETTER)]:
        later.setdefault(point.series, []).append(point)
    found = [Regression(point, _left(point, later[point.series])) for point in points if point.verdict is Verdict.WORSE]
    found.sort(key=lambda each: (-each.left, -each.point.change.ratio))
    return [each for each in found if each.point.stands], [each for each in found if not each.point.stands]


def _left(point: ChangePoint, of_series: Iterable[ChangePoint]) -> float:
    own = point.change.ratio
    if not math.isfinite(own):
        return own
    # What came with another machine or environment takes nothing back.
    own_later = [
        each for each in of_series if each.verdict.is_of_a_commit and each.change.position > point.change.position
    ]
    return min(own, own * math.prod(each.change.ratio for each in own_later))


def standing_lines(found: Iterable[Regression], pages: Mapping[str, str]) -> list[Finding]:
    """A line for each metric and storage that a commit made worse."""

    def line(each: Regression) -> Finding:
        point = each.point
        much = how_much(each.percent, point.change.before, point.change.after, point.series)
        own = of_series(point.series, Verdict.WORSE, much, pages)
        return replace(own, since=point.where, about=f"{own.about}: {subject_of(point)}", is_new=point.is_new)

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
                point.where, subject_of(point), point.change.before, point.change.after, series.unit, series.machine,
                command_of(point),
            ]
        )  # fmt: skip
    return Table(_HEADINGS, rows)
