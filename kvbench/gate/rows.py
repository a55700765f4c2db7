"""A gate's findings row by row: each metric of each benchmark, judged by the limits of the thresholds file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from kvbench.gate.thresholds import EVERY, TIME, Thresholds
from kvbench.judge.paired import judge_exact, judge_ratios, judge_times
from kvbench.judge.row import ALL, Row
from kvbench.judge.verdict import Verdict

__all__ = ["compare_all", "compare_metrics", "compare_times", "gone"]


def compare_times(
    benchmark: str, base: Sequence[float], head: Sequence[float], thresholds: Thresholds, level: float
) -> Row:
    """Judge one benchmark's times, in microseconds, a value a process, pair by pair; ``level`` is that of "worse"."""
    meant = [each for each in thresholds.meant if each.covers(benchmark, TIME)]
    found = judge_times(base, head, thresholds.time.room, [each.room for each in meant], level=level)
    reason = "; ".join(each.why for each in meant) if found.verdict is Verdict.MEANT else ""
    return Row(benchmark, TIME, **vars(found), pairs=len(base), reason=reason)


def compare_all(ratios: Sequence[float], thresholds: Thresholds, level: float) -> Row:
    """Judge all benchmarks' times together, by a log ratio a pair."""
    limit = math.log1p(thresholds.time.relative)
    verdict, low, high = judge_ratios(np.asarray(ratios), limit, limit, level)
    return Row(ALL, TIME, verdict, ratio=math.exp(np.mean(ratios)), low=low, high=high, pairs=len(ratios))


def compare_metrics(
    benchmark: str, base: Mapping[str, float], head: Mapping[str, float], thresholds: Thresholds
) -> list[Row]:
    """Judge one benchmark's deterministic metrics."""
    return [_compare(benchmark, name, base.get(name), head.get(name), thresholds) for name in {**base, **head}]


def _compare(benchmark: str, metric: str, base: float | None, head: float | None, thresholds: Thresholds) -> Row:
    limit = thresholds.limit_of(metric)
    if limit is None:
        reason = "kvbench/metrics.py has no metric of this name: add it, or a limit to the thresholds file"
        return Row(benchmark, metric, Verdict.FAILED, base, head, reason=reason)
    if head is None:
        return gone(benchmark, metric, thresholds, base=base)
    meant = [each for each in thresholds.meant if each.covers(benchmark, metric)]
    verdict = judge_exact(base, head, limit.direction, limit.room, [each.room for each in meant])
    reason = ""
    if base is not None:
        if verdict is Verdict.SAME and head != base:
            reason = "within its limit"
        elif verdict is Verdict.MEANT:
            reason = next(each.why for each in meant if abs(head - base) <= each.room(base))
    return Row(benchmark, metric, verdict, base, head, reason=reason)


def gone(benchmark: str, metric: str, thresholds: Thresholds, reason: str = "", base: float | None = None) -> Row:
    """The row of a metric that the head does not measure, or of a whole benchmark, which may be meant."""
    why = thresholds.why_gone(benchmark, metric or EVERY)
    verdict = Verdict.MEANT if why else Verdict.GONE
    return Row(benchmark, metric, verdict, base, reason=why or reason)
