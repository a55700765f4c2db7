"""Two commits compared: pairs of times by a sequential test, deterministic metrics exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from kvbench.judge.verdict import Verdict, verdict_of_change

__all__ = [
    "FALSE_ALARMS", "FEWEST_AT_LAST", "FEWEST_PAIRS", "PairedTimes", "Room", "interval", "judge_exact", "judge_ratios",
    "judge_times", "pair_of_all", "worse_level",
]  # fmt: skip

# One false "worse" stops somebody's work: in so many of all runs there may be one, all looks and benchmarks together.
FALSE_ALARMS = 0.01
LAST_SHARE = 0.5  # of them, for the last look; the others have equal shares of the rest
SAME_LEVEL = 0.05  # "same" and "better" stop nobody: the usual level, at each look
FEWEST_PAIRS = 5  # before the first look
FEWEST_AT_LAST = 3  # where the last look comes earlier
# A few pairs may agree by chance, where a process has one of few speeds: their spread counts as this over their number.
LEAST_SPREAD = 0.2
_TRIMMED = 0.25  # at each end

Array = npt.NDArray[np.floating[Any]]
Room = Callable[[float], float]  # how far a metric that was so large may move for the worse, in its unit


@dataclass(frozen=True)
class PairedTimes:
    """Judged times: medians over processes; head / base, the mean of the pairs, and what the test says it lies in.

    ``low`` and ``high`` are None with fewer pairs than can decide.
    """

    verdict: Verdict
    base: float
    head: float
    ratio: float
    low: float | None
    high: float | None


def worse_level(most_pairs: int, is_last: bool, share: float) -> float:
    """How improbable a "worse" by chance must be, at one look of a run that ends after ``most_pairs`` at the latest.

    A run looks after every pair, and asks several questions: ``share`` is the question's of all ``FALSE_ALARMS``. The
    levels of all its looks add up to that, so that no more of them are wrong however they depend on each other.
    """
    if is_last:
        return FALSE_ALARMS * share * LAST_SHARE
    return FALSE_ALARMS * share * (1 - LAST_SHARE) / max(most_pairs - FEWEST_PAIRS, 1)


def judge_times(
    base: Sequence[float], head: Sequence[float], room: Room, meant: Sequence[Room] = (), *, level: float
) -> PairedTimes:
    """Judge the times of pairs of processes, at a level of "worse" (``worse_level``).

    A pair's ratio is what counts: its processes ran one right after the other and share a hash seed. ``room`` is the
    limit; ``meant`` is the room of changes that are meant, which raises the limit of worse.
    """
    ratios = np.log(np.asarray(head, dtype=float)) - np.log(np.asarray(base, dtype=float))
    median = float(np.median(base))
    limits = [math.log1p(each(median) / median) for each in (room, *meant)]
    verdict, low, high = judge_ratios(ratios, limits[0], max(limits), level)
    return PairedTimes(verdict, median, float(np.median(head)), math.exp(ratios.mean()), low, high)


def judge_ratios(
    ratios: Array, limit: float, allowed: float, level: float
) -> tuple[Verdict, float | None, float | None]:
    """The verdict on log ratios, and the interval of the ratio that it is read from.

    Worse: the interval lies above what is allowed. Same: it lies below the limit. Better: it lies below the limit of a
    change the other way. Meant: it reaches above the limit, and not above what is allowed. Otherwise not decided.
    """
    if len(ratios) < FEWEST_AT_LAST:
        return Verdict.NOT_DECIDED, None, None
    low, high = (float(end) for end in interval(ratios, level))
    if high < -limit:
        verdict = Verdict.BETTER
    elif high < limit:
        verdict = Verdict.SAME
    elif low > allowed:
        verdict = Verdict.WORSE
    else:
        verdict = Verdict.MEANT if high < allowed else Verdict.NOT_DECIDED
    return verdict, math.exp(low), math.exp(high)


def interval(ratios: Array, level: float) -> tuple[Array, Array]:
    """What the mean of log ratios lies in, by Student's t, along the last axis.

    It is below the lower end with the probability ``level``, and above the upper end with ``SAME_LEVEL``.
    """
    pairs = ratios.shape[-1]
    mean, spread = ratios.mean(axis=-1), ratios.std(axis=-1, ddof=1)
    below, above = stats.t.isf([level, SAME_LEVEL], pairs - 1) / math.sqrt(pairs)
    return mean - below * np.maximum(spread, LEAST_SPREAD / pairs), mean + above * spread


def pair_of_all(ratios: Array) -> Array:
    """One log ratio for all benchmarks of a pair, along the last axis: the mean of those between the quartiles."""
    return np.asarray(stats.trim_mean(ratios, _TRIMMED, axis=-1))


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
