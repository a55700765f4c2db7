"""Two commits of a history compared: counters exactly, times by the change points that lie between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kvbench.history.commits import Commits
from kvbench.history.series import History, Series
from kvbench.judge.change_points import ChangePoint, Judgement
from kvbench.judge.segments import FEWEST_VALUES
from kvbench.judge.verdict import SMALLEST_EFFECT, Verdict, verdict_of_change

__all__ = ["Compared", "compare_commits", "find_pair"]

_STEPS = (Verdict.WORSE, Verdict.BETTER)


@dataclass(frozen=True)
class Compared:
    """One series at two commits.

    Attributes:
        base, head: its values; ``head`` is NaN where it failed.
        ratio: by how much it changed: head / base of a counter; of a time, what the change points between them come to.
            Infinite from zero, 1 where nothing changed, NaN where that is not decided.
        verdict: ``INCONCLUSIVE`` where so few values lie beside the two commits that a change would not be seen.
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
    """Both commits by their full names: the last that was measured, and the one before it on a machine that did both.

    A name that is given is one of a measured commit. Empty where there is none.
    """

    def place(name: str) -> tuple[int, object]:
        return commits.places.get(name, -1), history.dates.get(name)

    measured = [names for names in history.commits.values() if names]
    ends = [names[-1] for names in measured if not base or base in names[:-1]]
    last = head or max(ends, key=place, default="")
    before = [names[names.index(last) - 1] for names in measured if last in names[1:]]
    return base or max(before, key=place, default=""), last


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
        if math.isnan(after):
            ratio, verdict = math.nan, Verdict.FAILED
        elif series.is_exact:
            ratio = after / before if before else math.inf if after else 1.0
            verdict = _verdict(series, ratio, 1.0)
        else:
            ratio, verdict = _of_time(series, judgement.judged(series), points.get(series, ()), (first, last))
        yield Compared(series, before, after, ratio, verdict)


def _verdict(series: Series, ratio: float, least: float) -> Verdict:
    if 1 / least <= ratio <= least:
        return Verdict.SAME
    return verdict_of_change(ratio > 1, "lower" if series.lower_is_better else "")


def _of_time(
    series: Series, judged: np.ndarray, points: Sequence[ChangePoint], ends: tuple[int, int]
) -> tuple[float, Verdict]:
    """What change points came to between two places, either of which may be the earlier one."""
    low, high = sorted(ends)
    between = [each for each in points if low < each.change.position <= high]
    other = [each.verdict for each in between if each.verdict not in (*_STEPS, Verdict.UNKNOWN)]
    if other:
        return math.nan, other[0]
    ratio = math.prod(each.change.ratio for each in between)
    if ends[0] > ends[1]:
        ratio = 1 / ratio
    verdict = _verdict(series, ratio, 1 + SMALLEST_EFFECT)
    beside = np.count_nonzero(judged[: low + 1]), np.count_nonzero(judged[high:])
    if verdict is Verdict.SAME and min(beside) < FEWEST_VALUES:
        return math.nan, Verdict.INCONCLUSIVE
    return ratio, verdict
