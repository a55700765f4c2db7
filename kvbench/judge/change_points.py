"""Change points of a history: where a metric changes for good, at which commit, and whether for the worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kvbench.history.commits import Commits
from kvbench.history.series import CONTROL, RATIO, History, Series
from kvbench.judge.changes import Change, Measured, exact_changes, measured_changes
from kvbench.judge.pace import machine_pace
from kvbench.judge.verdict import Verdict, verdict_of_change

__all__ = ["ChangePoint", "Judgement", "judge_history"]

_ORDER = (Verdict.WORSE, Verdict.BETTER, Verdict.MACHINE, Verdict.UNKNOWN)
_SUREST = 99.99


@dataclass(frozen=True)
class ChangePoint:
    """One change of one metric, and where it came from.

    ``commit`` is the first one measured after the change, and ``previous`` the last one before it. Any of the commits
    ``between`` may have changed it: none of them was measured. Where the repository does not know a commit, ``between``
    is None, and ``author`` and ``subject`` are empty. ``is_new``: the report calls ``commit`` new.
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
    def verdict(self) -> Verdict:
        """Worse or better; ``MACHINE`` of what is left alone; ``UNKNOWN`` where it is not known what is better."""
        if self.series.is_control:
            return Verdict.MACHINE
        return verdict_of_change(self.change.ratio > 1, "lower" if self.series.lower_is_better else "")

    @property
    def certainty(self) -> float:
        """%; of what was tested never all of them, however many nines there are."""
        return 100.0 if self.series.is_exact else min(100 * self.change.certainty, _SUREST)

    @property
    def percent(self) -> float | None:
        """By how much the metric moved, %; None from zero."""
        return 100 * (self.change.ratio - 1) if math.isfinite(self.change.ratio) else None


@dataclass(frozen=True)
class Judgement:
    """What a history shows: change points, the worst first; of those for the worse, the ones from zero before others.

    ``pace`` is how slow each machine was at each of its commits, as a factor on its usual time. NaN where that is not
    known; machines of which nothing is known are left out.
    """

    change_points: list[ChangePoint] = field(default_factory=list)
    pace: dict[str, np.ndarray] = field(default_factory=dict)

    def judged(self, series: Series) -> np.ndarray:
        """Which of a measured series' values are judged: of times, those at commits whose pace is known."""
        pace = self.pace.get(series.machine) if series.is_time else None
        return np.asarray(~np.isnan(series.values if pace is None else series.values * pace))


def judge_history(history: History, commits: Commits) -> Judgement:
    """Find each machine's pace and every change point."""
    pace = {machine: found for machine in history.commits if (found := _pace(history, machine)) is not None}
    points = [
        _change_point(series, change, history.commits[series.machine], commits)
        for series, changes in _changes(history.series, pace)
        for change in changes
    ]
    points.sort(key=lambda point: (_ORDER.index(point.verdict), -_distance(point.change.ratio)))
    return Judgement(points, pace)


def _pace(history: History, machine: str) -> np.ndarray | None:
    controls = [each.values for each in history.series if each.machine == machine and each.is_control]
    return machine_pace(np.array(controls)) if controls else None


def _changes(series: Sequence[Series], pace: dict[str, np.ndarray]) -> list[tuple[Series, list[Change]]]:
    controls = {_beside(each): each.values for each in series if each.is_control and each.param("backend") == CONTROL}
    measured = [
        Measured(
            each.values,
            # A ratio of two things measured in turns has had the machine's pace taken out already; only times have it.
            pace=pace.get(each.machine) if each.is_time else None,
            control=controls.get(_beside(each)) if each.is_time and not each.is_control else None,
            family=each.family,
            cell=None if each.is_control else _beside(each),
            is_ratio=each.unit == RATIO,
        )
        for each in series
        if not each.is_exact
    ]
    judged = iter(measured_changes(measured))
    return [(each, exact_changes(each.values) if each.is_exact else next(judged)) for each in series]


def _beside(series: Series) -> tuple[str, str, str]:
    """What a series shares with those of other backends that were measured with it."""
    return series.machine, series.benchmark, series.sizes


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf


def _change_point(series: Series, change: Change, measured: Sequence[str], commits: Commits) -> ChangePoint:
    name = measured[change.position]
    previous = measured[int(np.flatnonzero(~np.isnan(series.values[: change.position]))[-1])]
    known = commits.find(name)
    places = commits.places
    between = places[name] - places[previous] - 1 if name in places and previous in places else None
    author, subject = (known.author, known.subject) if known else ("", "")
    return ChangePoint(series, change, name, previous, between, author, subject, commits.is_new(name))
