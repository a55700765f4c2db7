"""Change points of a history: where a metric changes for good, at which commit, and whether for the worse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kvbench.history.commits import Commits
from kvbench.history.series import CONTROL, RATIO, History, Series
from kvbench.judge.borders import Part, exact_borders, measured_borders
from kvbench.judge.changes import FIRST_LEVEL, Change, Measured, exact_changes, measured_changes
from kvbench.judge.lost import Lost, find_lost
from kvbench.judge.pace import machine_pace
from kvbench.judge.smallest import SmallestStep, smallest_steps
from kvbench.judge.verdict import SMALLEST_EFFECT, Verdict, verdict_of_change

__all__ = ["ChangePoint", "Judgement", "judge_history"]

_ORDER = (Verdict.WORSE, Verdict.BETTER, Verdict.ENVIRONMENT, Verdict.MACHINE, Verdict.UNKNOWN)
_SUREST = 99.99


@dataclass(frozen=True)
class ChangePoint:
    """One change of one metric, and where it came from.

    ``commit`` is the first one measured after the change, and ``previous`` the last one before it: on this machine, or
    on another that shows the same change and measured more commits. Any of the commits ``between`` may have changed it:
    none of them was measured. Where the repository does not know a commit, ``between`` is None, and ``author`` and
    ``subject`` are empty. ``is_new``: the report calls one of these commits new. ``stands``: no later change of the
    series takes it back. ``environment``: what changed in the environment between ``previous`` and ``commit``. Then it
    is no change of a commit; a commit's change is found among values of one environment alone. ``is_unexplained``: only
    the machine changed there, and the metric is one that is the same on any.
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
    environment: str = ""
    is_unexplained: bool = False

    @property
    def where(self) -> str:
        """The commit, or the range of commits that may have done it, as git writes one."""
        return f"{self.previous[:8]}..{self.commit[:8]}" if self.between else self.commit[:8]

    @property
    def verdict(self) -> Verdict:
        """Worse or better of a commit's; ``UNKNOWN`` where it is not known what is better.

        ``ENVIRONMENT`` where another one was measured in; ``MACHINE`` of what is left alone.
        """
        if self.environment:
            return Verdict.ENVIRONMENT
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
    """Find each machine's pace and every change point: of commits in each environment alone, and of environments."""
    pace = {machine: found for machine in history.commits if (found := _pace(history, machine)) is not None}
    judged, smallest = _judged(history, pace)
    points = _narrowed([point for each in judged for point in _points(each, history, commits)], commits)
    points += [point for each in judged for point in _borders(each, history, commits)]
    points.sort(key=lambda point: (_ORDER.index(point.verdict), -_distance(point.change.ratio)))
    return Judgement(points, find_lost(history, commits), smallest, pace)


def _pace(history: History, machine: str) -> np.ndarray | None:
    """In each environment by itself: with another one legacy is no measure of the machine."""
    controls = np.array([each.values for each in history.series if each.machine == machine and each.is_control])
    places = history.environments_of(machine).places
    pace = np.full(len(places), np.nan)
    for place in np.unique(places) if len(controls) else ():
        found = machine_pace(controls[:, places == place])
        if found is not None:
            pace[places == place] = found
    return None if np.isnan(pace).all() else pace


@dataclass
class _Judged:
    """A series: the changes in each environment, by its number, and those between environments."""

    series: Series
    changes: dict[int, Sequence[Change]] = field(default_factory=dict)
    borders: Sequence[Change] = ()
    parts: dict[int, Part] = field(default_factory=dict)


def _judged(
    history: History, pace: dict[str, np.ndarray]
) -> tuple[list[_Judged], dict[tuple[str, str, str], SmallestStep]]:
    found = [_Judged(each) for each in history.series]
    for each in found:
        if each.series.is_exact:
            environments, values = history.environments_of(each.series.machine), each.series.values
            each.changes = {place: exact_changes(own) for place, own in environments.parts(values)}
            each.borders = exact_borders(values, environments.runs(values))
    times = [each for each in found if not each.series.is_exact]
    smallest = _judge_times(times, history, pace)
    runs = [history.environments_of(each.series.machine).runs(each.series.values) for each in times]
    borders = measured_borders([(each.parts, own) for each, own in zip(times, runs, strict=True)])
    for each, own in zip(times, borders, strict=True):
        each.borders = own
    return found, smallest


def _judge_times(
    times: Sequence[_Judged], history: History, pace: dict[str, np.ndarray]
) -> dict[tuple[str, str, str], SmallestStep]:
    """Fill in what is found in each environment; the smallest steps that could have been found."""
    controls = {
        _beside(each): each.values for each in history.series if each.is_control and each.param("backend") == CONTROL
    }
    given = [
        (each, place, _measured(each.series, place, values, controls, pace))
        for each in times
        for place, values in history.environments_of(each.series.machine).parts(each.series.values)
    ]
    changes, segments = measured_changes([measured for _, _, measured in given])
    for (each, place, measured), own, where in zip(given, changes, segments, strict=True):
        each.changes[place] = own
        each.parts[place] = Part(measured, own, where)
    kept = [at for at, (each, _, _) in enumerate(given) if not each.series.is_control]
    return smallest_steps([given[at][0].series.family for at in kept], [segments[at] for at in kept], FIRST_LEVEL)


def _measured(
    series: Series,
    environment: int,
    values: np.ndarray,
    controls: dict[tuple[str, str, str], np.ndarray],
    pace: dict[str, np.ndarray],
) -> Measured:
    return Measured(
        values,
        # A ratio of two things measured in turns has had the machine's pace taken out already; only times have it.
        pace=pace.get(series.machine) if series.is_time else None,
        control=controls.get(_beside(series)) if series.is_time and not series.is_control else None,
        family=series.family,
        cell=None if series.is_control else (_beside(series), environment),
        is_ratio=series.unit == RATIO,
        group=None if series.is_control else (series.family, series.param("backend"), environment),
    )


def _beside(series: Series) -> tuple[str, str, str]:
    """What a series shares with those of other backends that were measured with it."""
    return series.machine, series.benchmark, series.sizes


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf


def _points(judged: _Judged, history: History, commits: Commits) -> Iterator[ChangePoint]:
    """Changes of a series' commits. Whether one stands is told by all of them, whatever the environment."""
    series = judged.series
    measured = history.commits[series.machine]
    values = dict(history.environments_of(series.machine).parts(series.values))
    found = sorted(
        ((change, place) for place, own in judged.changes.items() for change in own), key=lambda each: each[0].position
    )
    for at, (change, place) in enumerate(found):
        previous = int(np.flatnonzero(~np.isnan(values[place][: change.position]))[-1])
        stands = _stands([each for each, _ in found[at:]])
        point = ChangePoint(series, change, "", "", None, "", "", False, stands)
        yield _at(point, measured[previous], measured[change.position], commits)


def _borders(judged: _Judged, history: History, commits: Commits) -> Iterator[ChangePoint]:
    """Steps of a series with its environment."""
    series = judged.series
    measured, environments = history.commits[series.machine], history.environments_of(series.machine)
    for at, change in enumerate(judged.borders):
        previous = int(np.flatnonzero(~np.isnan(series.values[: change.position]))[-1])
        stands, name = _stands(judged.borders[at:]), environments.change(previous, change.position)
        unexplained = series.is_exact and environments.only_machine(previous, change.position)
        point = ChangePoint(series, change, "", "", None, "", "", False, stands, name, unexplained)
        yield _at(point, measured[previous], measured[change.position], commits)


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
