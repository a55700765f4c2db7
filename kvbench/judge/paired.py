"""Two commits compared: pairs of times by a statistical test, deterministic metrics exactly."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kvbench.judge.verdict import Verdict, verdict_of_change

__all__ = ["FEWEST_PAIRS", "PairedTimes", "Room", "judge_exact", "judge_times"]

# One false "worse" stops somebody's work, and many benchmarks are tested, some of them again and again: it is rare by
# construction. A "same" and a "better" are decided by the usual level.
WORSE_LEVEL = 0.001
SAME_LEVEL = 0.05
INTERVAL_LEVEL = 0.95
# With fewer pairs not even five in a row would be significant at SAME_LEVEL.
FEWEST_PAIRS = 5

Room = Callable[[float], float]  # how far a metric that was so large may move for the worse, in its unit


@dataclass(frozen=True)
class PairedTimes:
    """Judged times: medians over processes; head / base, the typical one of the pairs, and its interval at 95 %."""

    verdict: Verdict
    base: float
    head: float
    ratio: float
    low: float
    high: float


def judge_times(base: Sequence[float], head: Sequence[float], room: Room, meant: Sequence[Room] = ()) -> PairedTimes:
    """Judge the times of pairs of processes.

    A pair's ratio is what counts: its processes ran one right after the other and share a hash seed. Ratios of
    identical code are symmetric about 1 (which of two alike processes is called the base is chance), so the signed-rank
    test of Wilcoxon applies (``scipy.stats.wilcoxon``). Worse is: slower by more than the limit, significantly. Same
    is: slower by less than the limit, significantly. Better is: faster by more than the limit, significantly. None of
    them is inconclusive. Levels are those of one look; a run looks again after every pair.

    ``room`` is the limit; ``meant`` is the room of changes that are meant, which raises the limit of worse.
    """
    ratios = np.log(np.asarray(head, dtype=float)) - np.log(np.asarray(base, dtype=float))
    median = float(np.median(base))
    margins = [math.log1p(each(median) / median) for each in (room, *meant)]
    margin, allowed = margins[0], max(margins)
    if _p_value(ratios, -margin, "less") <= SAME_LEVEL:
        verdict = Verdict.BETTER
    elif _p_value(ratios, margin, "less") <= SAME_LEVEL:
        verdict = Verdict.SAME
    elif _p_value(ratios, allowed, "greater") <= WORSE_LEVEL:
        verdict = Verdict.WORSE
    elif meant and _p_value(ratios, allowed, "less") <= SAME_LEVEL:
        verdict = Verdict.MEANT
    else:
        verdict = Verdict.INCONCLUSIVE
    low, high = _lower_end(ratios), -_lower_end(-ratios)
    typical = float(np.median(_averages(ratios)))  # the estimate that belongs to the test (Hodges and Lehmann, 1963)
    return PairedTimes(verdict, median, float(np.median(head)), math.exp(typical), math.exp(low), math.exp(high))


def judge_exact(base: float | None, head: float | None, better: str, room: Room, meant: Sequence[Room] = ()) -> Verdict:
    """Judge a deterministic metric: any change counts, unless it is for the better, within the limit, or meant.

    ``better`` is ``lower`` or ``higher``, or ``none`` where no change passes. ``room`` is the limit; ``meant`` is the
    room of changes that are meant, in either direction.
    """
    if base is None or head is None:
        return Verdict.NEW if base is None else Verdict.GONE
    if head == base:
        return Verdict.SAME
    distance = abs(head - base)
    if verdict_of_change(head > base, better) is Verdict.BETTER:
        return Verdict.BETTER
    if distance <= room(base):
        return Verdict.SAME
    return Verdict.MEANT if any(distance <= each(base) for each in meant) else Verdict.WORSE


def _p_value(ratios: np.ndarray, margin: float, alternative: str) -> float:
    """How likely such log ratios are if they lie about ``margin``, against ``alternative``."""
    return float(stats.wilcoxon(ratios - margin, alternative=alternative, method="exact").pvalue)


def _averages(ratios: np.ndarray) -> np.ndarray:
    """Means of every two log ratios (Walsh averages): what the signed-rank test ranks by."""
    first, second = np.triu_indices(len(ratios))
    return np.asarray((ratios[first] + ratios[second]) / 2)


def _lower_end(ratios: np.ndarray) -> float:
    """The least log ratio that the test does not reject at ``INTERVAL_LEVEL``; with too few pairs for it, the least."""
    averages = np.unique(_averages(ratios))
    # The test's statistic counts averages above the margin: p-values rise with it, in steps at the averages. There
    # rounding would decide, so they are asked for in between.
    between = (averages[:-1] + averages[1:]) / 2
    tail = (1 - INTERVAL_LEVEL) / 2
    first = bisect_left(between, True, key=lambda margin: _p_value(ratios, margin, "greater") > tail)
    return float(averages[first])
