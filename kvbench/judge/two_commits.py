"""Two commits of a history compared: counters exactly, times by the change points that lie between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kvbench.history.commits import Commits, HistoryError, find_measured
from kvbench.history.series import History, Series
from kvbench.judge.change_points import ChangePoint, Judgement
from kvbench.judge.segments import FEWEST_VALUES
from kvbench.judge.verdict import SMALLEST_EFFECT, Verdict, verdict_of_change

__all__ = ["Compared", "chosen_pair", "compare_commits", "find_pair"]

_COMMITS = (Verdict.WORSE, Verdict.BETTER, Verdict.UNKNOWN)  # verdicts on what a commit did


@dataclass(frozen=True)
class Compared:
    """One series at two commits.

    Attributes:
        base, head: its values; ``head`` is NaN where it failed.
        ratio: by how much it changed: head / base of a counter; of a time, what the change points between them come to.
            Infinite from zero, 1 where nothing changed, NaN where that is not decided.
        verdict: ``NOT_DECIDED`` where so few values lie beside the two commits that a change would not be seen.
    """

    series: Series
    base: float
    head: float
    ratio: float
    verdict: Verdict

    @property
    def percent(self) -> float | None:
        """By how much it changed, %; None where no number says it."""
        return 100 * (self.ratio - 1) if math.isfinite(self.ratio) else None

    @property
    def size(self) -> float:
        """How far it changed, either way: the larger, the more."""
        return abs(math.log(self.ratio)) if math.isfinite(self.ratio) and self.ratio > 0 else math.inf


def find_pair(history: History, commits: Commits, base: str = "", head: str = "") -> tuple[str, str]:
    """Full names of two measured commits: those that are given, or the last and the one before it on its machine.

    Args:
        history, commits: to look in.
        base, head: full names; empty where none is given.

    Returns:
        Both names, or two empty ones where no machine measured two such commits.
    """

    def place(name: str) -> tuple[int, object]:
        return commits.places.get(name, -1), history.dates.get(name)

    measured = list(history.commits.values())
    last = head or max((names[-1] for names in measured if base in ("", *names[:-1])), key=place, default="")
    before = [names[names.index(last) - 1] for names in measured if last in names[1:]]
    first = base or max(before, key=place, default="")
    both = first != last and any({first, last} <= {*names} for names in measured)
    return (first, last) if both else ("", "")


def chosen_pair(repository: str | Path, history: History, commits: Commits, ends: Sequence[str]) -> tuple[str, str]:
    """As ``find_pair``, of a base and a head as people name them: a revision, or what a measured name begins with.

    Raises HistoryError: one was not measured, or no machine measured both.
    """
    measured = list(dict.fromkeys(each for names in history.commits.values() for each in names))
    base, head = (each and find_measured(repository, measured, each) for each in ends)
    pair = find_pair(history, commits, base, head)
    if any(ends) and not any(pair):
        raise HistoryError(repository, _fault(base, head))
    return pair


def _fault(base: str, head: str) -> str:
    """Why two commits are none that can be compared."""
    if base and head:
        one = f"--base and --head are one commit, {base[:8]}"
        return one if base == head else f"no machine measured both {base[:8]} and {head[:8]}"
    return f"{(base or head)[:8]} has no measured commit {'after' if base else 'before'} it"


def compare_commits(history: History, judgement: Judgement, base: str, head: str) -> list[Compared]:
    """Every series that was measured at both, on one machine; without legacy's own times, which show the machine."""
    points: dict[Series, list[ChangePoint]] = {}
    for point in judgement.change_points:
        points.setdefault(point.series, []).append(point)
    return list(_compared(history, judgement, points, base, head))


def _compared(
    history: History, judgement: Judgement, points: Mapping[Series, Sequence[ChangePoint]], base: str, head: str
) -> Iterator[Compared]:
    for series in history.series:
        names = history.commits[series.machine]
        if series.is_control or base not in names or head not in names:
            continue
        first, last = names.index(base), names.index(head)
        before, after = float(series.values[first]), float(series.values[last])
        if math.isnan(before) or (math.isnan(after) and not series.failed[last]):
            continue
        low, high = sorted((first, last))
        between = [each for each in points.get(series, ()) if low < each.change.position <= high]
        if math.isnan(after):
            ratio, verdict = math.nan, Verdict.FAILED
        elif series.is_exact:
            ratio = after / before if before else math.inf if after else 1.0
            if history.environment_change(series.machine, base, head):
                ratio = _of_commits(between, (first, last)) or ratio
            verdict = _blamed(_verdict(series, ratio, 1.0), between)
        else:
            ratio, verdict = _of_time(series, judgement.judged(series), between, (first, last))
        yield Compared(series, before, after, ratio, verdict)


def _of_time(
    series: Series, judged: np.ndarray, between: Sequence[ChangePoint], ends: tuple[int, int]
) -> tuple[float, Verdict]:
    """What change points between two places come to; either of the places may be the earlier one."""
    ratio = _of_commits(between, ends) or _product(between, ends)
    verdict = _blamed(_verdict(series, ratio, 1 + SMALLEST_EFFECT), between)
    low, high = sorted(ends)
    beside = np.count_nonzero(judged[: low + 1]), np.count_nonzero(judged[high:])
    if verdict is Verdict.SAME and min(beside) < FEWEST_VALUES:
        return math.nan, Verdict.NOT_DECIDED
    return ratio, verdict


def _of_commits(between: Sequence[ChangePoint], ends: tuple[int, int]) -> float | None:
    """What the commits' own change points come to; None where there is none: the machine or its environment did it."""
    own = [each for each in between if each.verdict in _COMMITS]
    return _product(own, ends) if own else None


def _product(points: Sequence[ChangePoint], ends: tuple[int, int]) -> float:
    ratio = math.prod(each.change.ratio for each in points)
    if ends[0] < ends[1]:
        return ratio
    return 1 / ratio if ratio else math.inf


def _blamed(verdict: Verdict, between: Sequence[ChangePoint]) -> Verdict:
    """The verdict, or that of the change points where none of them is of a commit."""
    found = [each.verdict for each in between]
    return found[0] if found and not any(each in _COMMITS for each in found) else verdict


def _verdict(series: Series, ratio: float, least: float) -> Verdict:
    if 1 / least <= ratio <= least:
        return Verdict.SAME
    return verdict_of_change(ratio > 1, "lower" if series.lower_is_better else "")
