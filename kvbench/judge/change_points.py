"""Change points of a history: where a metric changes for good, at which commit, and whether for the worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kvbench.history.commits import Commits
from kvbench.history.series import CONTROL, RATIO, History, Series
from kvbench.judge.changes import FIRST_LEVEL, Change, Measured, exact_changes, measured_changes
from kvbench.judge.lost import Lost, find_lost
from kvbench.judge.pace import machine_pace
from kvbench.judge.smallest import SmallestStep, smallest_steps
from kvbench.judge.verdict import SMALLEST_EFFECT, Verdict, verdict_of_change

__all__ = ["ChangePoint", "Judgement", "judge_history"]

_ORDER = (Verdict.WORSE, Verdict.BETTER, Verdict.MACHINE, Verdict.UNKNOWN)
_SUREST = 99.99


@dataclass(frozen=True)
class ChangePoint:
    """One change of one metric, and where it came from.

    ``commit`` is the first one measured after the change, and ``previous`` the last one before it: on this machine, or
    on another that shows the same change and measured more commits. Any of the commits ``between`` may have changed it:
    none of them was measured. Where the repository does not know a commit, ``between`` is None, and ``author`` and
    ``subject`` are empty. ``is_new``: the report calls one of these commits new. ``stands``: no later change of the
    series takes it back.
    """

    series: Series
    change: Change
    commit: str
    previous: str
    between: int | None
    author: str
    subject: str
    is_new: bool
    stands: bool = True

    @property
    def where(self) -> str:
        """The commit, or the range of commits that may have done it, as git writes one."""
        return f"{self.previous[:8]}..{self.commit[:8]}" if self.between else self.commit[:8]

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

    ``lost`` are benchmarks that have no values any more. ``smallest`` has by ``Series.family`` the smallest steps
    of times that could have been found, legacy's own not among them.

    ``pace`` is how slow each machine was at each of its commits, as a factor on its usual time. NaN where that is not
    known; machines of which nothing is known are left out.
    """

    change_points: list[ChangePoint] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    smallest: dict[tuple[str, str, str], SmallestStep] = field(default_factory=dict)
    pace: dict[str, np.ndarray] = field(default_factory=dict)

    def judged(self, series: Series) -> np.ndarray:
        """Which of a measured series' values are judged: of times, those at commits whose pace is known."""
        pace = self.pace.get(series.machine) if series.is_time else None
        return np.asarray(~np.isnan(series.values if pace is None else series.values * pace))


def judge_history(history: History, commits: Commits) -> Judgement:
    """Find each machine's pace and every change point."""
    pace = {machine: found for machine in history.commits if (found := _pace(history, machine)) is not None}
    changed, smallest = _changes(history.series, pace)
    points = [
        _change_point(series, changes[place:], history.commits[series.machine], commits)
        for series, changes in changed
        for place in range(len(changes))
    ]
    points = _narrowed(points, commits)
    points.sort(key=lambda point: (_ORDER.index(point.verdict), -_distance(point.change.ratio)))
    return Judgement(points, find_lost(history, commits), smallest, pace)


def _pace(history: History, machine: str) -> np.ndarray | None:
    controls = [each.values for each in history.series if each.machine == machine and each.is_control]
    return machine_pace(np.array(controls)) if controls else None


def _changes(
    series: Sequence[Series], pace: dict[str, np.ndarray]
) -> tuple[list[tuple[Series, list[Change]]], dict[tuple[str, str, str], SmallestStep]]:
    controls = {_beside(each): each.values for each in series if each.is_control and each.param("backend") == CONTROL}
    measured = [each for each in series if not each.is_exact]
    given = [
        Measured(
            each.values,
            # A ratio of two things measured in turns has had the machine's pace taken out already; only times have it.
            pace=pace.get(each.machine) if each.is_time else None,
            control=controls.get(_beside(each)) if each.is_time and not each.is_control else None,
            family=each.family,
            cell=None if each.is_control else _beside(each),
            is_ratio=each.unit == RATIO,
            group=None if each.is_control else (each.family, each.param("backend")),
        )
        for each in measured
    ]
    found, segments = measured_changes(given)
    kept = [place for place, each in enumerate(measured) if not each.is_control]
    smallest = smallest_steps(
        [measured[place].family for place in kept], [segments[place] for place in kept], FIRST_LEVEL
    )
    judged = iter(found)
    return [(each, exact_changes(each.values) if each.is_exact else next(judged)) for each in series], smallest


def _beside(series: Series) -> tuple[str, str, str]:
    """What a series shares with those of other backends that were measured with it."""
    return series.machine, series.benchmark, series.sizes


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf


def _change_point(series: Series, changes: Sequence[Change], measured: Sequence[str], commits: Commits) -> ChangePoint:
    """Of the first of a series' last changes."""
    change = changes[0]
    previous = measured[int(np.flatnonzero(~np.isnan(series.values[: change.position]))[-1])]
    return _at(
        ChangePoint(series, change, "", "", None, "", "", False, _stands(changes)),
        previous,
        measured[change.position],
        commits,
    )


def _at(point: ChangePoint, previous: str, name: str, commits: Commits) -> ChangePoint:
    """The change point, put between two commits."""
    known = commits.find(name)
    places = commits.places
    between = places[name] - places[previous] - 1 if name in places and previous in places else None
    author, subject = (known.author, known.subject) if known else ("", "")
    is_new = any(map(commits.is_new, commits.after(previous, name)))
    return replace(
        point, commit=name, previous=previous, between=between, author=author, subject=subject, is_new=is_new
    )


def _stands(changes: Sequence[Change]) -> bool:
    """Whether of the first change something is left after the others."""
    first = changes[0].ratio
    if not math.isfinite(first) or not first:
        return bool(changes[-1].after != changes[0].before)
    left = math.prod(each.ratio for each in changes)
    least = 1.0 if changes[0].certainty == 1 else 1 + SMALLEST_EFFECT
    return left > least if first > 1 else left < 1 / least


def _narrowed(points: Sequence[ChangePoint], commits: Commits) -> list[ChangePoint]:
    """The change points, each between the commits that all machines which show it leave for it.

    A machine that measures few commits tells of the first that it measured after a change. Another may know better.
    """
    alike: dict[tuple[str, str, bool], list[ChangePoint]] = {}
    for point in points:
        alike.setdefault((point.series.benchmark, point.series.params, point.change.ratio > 1), []).append(point)
    return [
        _closest(point, alike[point.series.benchmark, point.series.params, point.change.ratio > 1], commits)
        for point in points
    ]


def _closest(point: ChangePoint, alike: Sequence[ChangePoint], commits: Commits) -> ChangePoint:
    if not point.between:
        return point
    places = commits.places
    first, last = places[point.previous], places[point.commit]
    for other in alike:
        if other.between is None or other.series.machine == point.series.machine:
            continue
        begin, end = places[other.previous], places[other.commit]
        if begin < last and end > first:  # they have a commit in common
            first, last = max(first, begin), min(last, end)
    return _at(point, commits.known[first].name, commits.known[last].name, commits)
