"""From measurements of two sides to verdicts: exact for what is deterministic, statistical for times."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy import stats

from kvbench.gate.thresholds import TIME, Limit, Thresholds

__all__ = ["FEWEST_PAIRS", "Row", "Verdict", "compare_metrics", "compare_times"]

# One false "worse" stops somebody's work, and many benchmarks are tested, some of them again and again: it is rare by
# construction. A "same" and a "better" are decided by the usual level.
WORSE_LEVEL = 0.001
SAME_LEVEL = 0.05
INTERVAL_LEVEL = 0.95
# With fewer pairs not even five in a row would be significant at SAME_LEVEL.
FEWEST_PAIRS = 5


class Verdict(Enum):
    """What became of one metric of one benchmark."""

    BETTER = "better"
    SAME = "same"
    MEANT = "meant"  # changed, and the commit says that it should
    NEW = "new"  # the base has nothing to compare with
    INCONCLUSIVE = "inconclusive"
    WORSE = "worse"
    GONE = "gone"  # the base measured it and the head does not
    FAILED = "failed"

    @property
    def fails(self) -> bool:
        """Whether a commit with such a verdict is not to be merged."""
        return self in (Verdict.WORSE, Verdict.GONE, Verdict.FAILED)


@dataclass(frozen=True)
class Row:
    """One metric of one benchmark.

    Attributes:
        benchmark: its name, parameters included.
        metric: ``time`` or a counter's name.
        verdict: what became of it.
        base, head: values; of times the medians over processes, in microseconds. None where there is none.
        ratio: of times: head / base, the typical one of the pairs.
        low, high: the interval of ``ratio``, at 95 %.
        pairs: of processes.
        reason: of a failure, a skip or an allowance.
    """

    benchmark: str
    metric: str
    verdict: Verdict
    base: float | None = None
    head: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    reason: str = ""


def compare_times(benchmark: str, base: Sequence[float], head: Sequence[float], thresholds: Thresholds) -> Row:
    """Judge the times of pairs of processes.

    A pair's ratio is what counts: its processes ran one right after the other and share a hash seed. Ratios of
    identical code are symmetric about 1 (which of two alike processes is called the base is chance), so the signed-rank
    test of Wilcoxon applies (``scipy.stats.wilcoxon``). Worse is: slower by more than the limit, significantly. Same
    is: slower by less than the limit, significantly. Better is: faster by more than the limit, significantly. None of
    them is inconclusive. Levels are those of one look; a run looks again after every pair.

    Args:
        benchmark: its name.
        base, head: microseconds, a value a process, pair by pair.
        thresholds: whose ``time`` says what matters at all, and whose ``meant`` may raise it.
    """
    ratios = np.log(np.asarray(head, dtype=float)) - np.log(np.asarray(base, dtype=float))
    base_median, head_median = float(np.median(base)), float(np.median(head))
    limit = thresholds.time
    margin = math.log1p(limit.room(base_median) / base_median)
    meant = [each for each in thresholds.meant if each.covers(benchmark, TIME)]
    allowed = max([margin, *(math.log1p(max(each.relative, each.absolute / base_median)) for each in meant)])
    low, high = _interval(ratios)
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
    return Row(
        benchmark, TIME, verdict, base_median, head_median,
        math.exp(_typical(ratios)), math.exp(low), math.exp(high), len(ratios),
        "; ".join(each.why for each in meant) if verdict is Verdict.MEANT else "",
    )  # fmt: skip


def compare_metrics(
    benchmark: str, base: Mapping[str, float], head: Mapping[str, float], thresholds: Thresholds
) -> list[Row]:
    """Judge deterministic metrics: any change counts, unless the thresholds say otherwise."""
    rows = []
    for metric in (*base, *(name for name in head if name not in base)):
        limit = thresholds.limit_of(metric)
        before, after = base.get(metric), head.get(metric)
        if limit is None:
            reason = "kvbench/metrics.py has no metric of this name: add it, or a limit to the thresholds file"
            rows.append(Row(benchmark, metric, Verdict.FAILED, before, after, reason=reason))
        elif before is None:
            rows.append(Row(benchmark, metric, Verdict.NEW, before, after))
        elif after is None:
            rows.append(Row(benchmark, metric, Verdict.GONE, before, after))
        else:
            rows.append(_compare_metric(benchmark, metric, before, after, limit, thresholds))
    return rows


def _compare_metric(benchmark: str, metric: str, base: float, head: float, limit: Limit, thresholds: Thresholds) -> Row:
    if head == base:
        return Row(benchmark, metric, Verdict.SAME, base, head)
    if limit.direction != "none" and (head < base) == (limit.direction == "lower"):
        return Row(benchmark, metric, Verdict.BETTER, base, head)
    if abs(head - base) <= limit.room(base):
        return Row(benchmark, metric, Verdict.SAME, base, head, reason="within its limit")
    for each in thresholds.meant:
        if each.covers(benchmark, metric) and each.allows(base, head):
            return Row(benchmark, metric, Verdict.MEANT, base, head, reason=each.why)
    return Row(benchmark, metric, Verdict.WORSE, base, head)


def _p_value(ratios: np.ndarray, margin: float, alternative: str) -> float:
    """How likely such log ratios are if they lie about ``margin``, against ``alternative``."""
    return float(stats.wilcoxon(ratios - margin, alternative=alternative, method="exact").pvalue)


def _averages(ratios: np.ndarray) -> np.ndarray:
    """Means of every two log ratios (Walsh averages), in order: what the signed-rank test ranks by."""
    first, second = np.triu_indices(len(ratios))
    return np.sort((ratios[first] + ratios[second]) / 2)


def _typical(ratios: np.ndarray) -> float:
    """The estimate that belongs to the test (Hodges and Lehmann, 1963)."""
    return float(np.median(_averages(ratios)))


def _interval(ratios: np.ndarray) -> tuple[float, float]:
    """The log ratios that the test does not reject at ``INTERVAL_LEVEL``, both sides taken together.

    With too few pairs for that level it is their range.
    """
    return _lower_end(ratios), -_lower_end(-ratios)


def _lower_end(ratios: np.ndarray) -> float:
    averages = np.unique(_averages(ratios))
    # The test's statistic counts averages above the margin: p-values rise with it, in steps at the averages. There
    # rounding would decide, so they are asked for in between.
    between = (averages[:-1] + averages[1:]) / 2
    tail = (1 - INTERVAL_LEVEL) / 2
    first = bisect_left(between, True, key=lambda margin: _p_value(ratios, margin, "greater") > tail)
    return float(averages[first])
