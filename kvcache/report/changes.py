"""Where a metric's history steps: exactly for what is deterministic, by a test and a smallest effect for times.

Candidates are found by ruptures (``KernelCPD``, linear kernel: the least squares segmentation, found exactly). It says
where a series most likely steps, not whether it does: each candidate is then tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import ruptures
from scipy import stats

__all__ = ["FEWEST_VALUES", "LEVEL", "PROCESS_SPREAD", "SMALLEST_EFFECT", "Change", "exact_changes", "measured_changes"]

# Identical code's times take one of a few values up to 25 % apart from process to process (a log-normal spread of about
# a tenth), and a history has one process a commit: what its values scatter by chance may look like less, never be less.
PROCESS_SPREAD = 0.1
# An outlier is no step: it takes this many commits on either side.
FEWEST_VALUES = 3
SMALLEST_EFFECT = 0.05
LEVEL = 0.01
# Segmentation asks for more than noise explains; the tests, which decide, ask for more than that.
_PENALTY = 3.0


@dataclass(frozen=True)
class Change:
    """A step of a series.

    Attributes:
        position: index of the first value after the step.
        before, after: the values beside a deterministic step; of measured ones the medians between steps.
        ratio: after / before; of measured values free of the machine's pace. Infinite from zero.
        certainty: probability, in a history without steps, of seeing none as sure as this; 1 for a deterministic one.
    """

    position: int
    before: float
    after: float
    ratio: float
    certainty: float = 1.0


def exact_changes(values: Iterable[float]) -> list[Change]:
    """Every change of a deterministic series; NaN, where nothing was measured, is passed over."""
    changes = []
    last = math.nan
    for position, value in enumerate(values):
        if not math.isnan(value):
            if not math.isnan(last) and value != last:
                changes.append(Change(position, last, value, value / last if last else math.inf))
            last = value
    return changes


def measured_changes(
    series: Sequence[np.ndarray],
    pace: Sequence[np.ndarray | None],
    controls: Sequence[np.ndarray | None] = (),
) -> list[list[Change]]:
    """The steps of each of several series of times.

    All series are judged together: the share of false steps among those reported is at most ``LEVEL`` (Benjamini and
    Hochberg's control, ``scipy.stats.false_discovery_control``), and in a history without steps so is the probability
    of reporting any.

    Args:
        series: positive values, NaN where nothing was measured.
        pace: for each series how fast the machine was at each value, as a factor; None where that is not known.
        controls: for each series what is left alone and measured with the same sizes, or None: a machine may be slow at
            one kind of work alone. What a series shares with its control is no step of its own.
    """
    logs = [_logs(values, factor) for values, factor in zip(series, pace, strict=True)]
    against = [
        None if control is None else _logs(control, factor)
        for control, factor in zip(controls or [None] * len(series), pace, strict=True)
    ]
    differences = [np.diff(each[~np.isnan(each)]) for each in logs]
    spread = max(PROCESS_SPREAD, _spread(np.concatenate([*differences, np.empty(0)])))
    found = [_candidates(*each, spread) for each in zip(series, logs, against, strict=True)]
    chances = [candidate.certainty for candidates in found for candidate in candidates]
    # A series without a candidate was looked at, too.
    quiet = [1.0 for candidates in found if not candidates]
    adjusted = iter(stats.false_discovery_control([*chances, *quiet]) if chances else [])
    judged = [[(each, next(adjusted)) for each in candidates] for candidates in found]
    return [
        [
            replace(each, certainty=1 - float(chance))
            for each, chance in candidates
            if chance <= LEVEL and abs(math.log(each.ratio)) >= math.log1p(SMALLEST_EFFECT)
        ]
        for candidates in judged
    ]


def _logs(values: np.ndarray, pace: np.ndarray | None) -> np.ndarray:
    """Logarithms at the machine's usual pace; NaN where there is no positive value."""
    found = values if pace is None else values / pace
    logs = np.full(len(found), np.nan)
    np.log(found, out=logs, where=np.isfinite(found) & (found > 0))
    return logs


def _spread(differences: np.ndarray) -> float:
    """Standard deviation of values whose neighbours differ so: a robust estimate, which steps hardly touch."""
    if not len(differences):
        return 0.0
    return float(stats.median_abs_deviation(differences, center=lambda _, axis=None: 0.0, scale="normal")) / math.sqrt(
        2
    )


def _candidates(values: np.ndarray, series: np.ndarray, control: np.ndarray | None, spread: float) -> list[Change]:
    """Possible steps of one series; ``certainty`` holds the chance of each, to be adjusted."""
    places = np.flatnonzero(~np.isnan(series))
    if len(places) < 2 * FEWEST_VALUES:
        return []
    kept, logs = values[places], series[places]
    own = None if control is None else logs - control[places]
    spread = max(spread, _spread(np.diff(logs)))
    bounds = _segments(logs, spread)
    while len(bounds) > 2:  # where the first segment begins, where the last ends, and a place between two of them
        triples = list(zip(bounds, bounds[1:], bounds[2:], strict=False))
        chances = [_chance(logs[a:b], logs[b:c], spread) for a, b, c in triples]
        if own is not None:
            beside = [
                _chance_beside_control(own[a:b], own[b:c], logs[b:c].mean() - logs[a:b].mean(), spread)
                for a, b, c in triples
            ]
            chances = [max(pair) for pair in zip(chances, beside, strict=True)]
        worst = int(np.argmax(chances))
        if chances[worst] <= LEVEL:
            return [
                Change(
                    int(places[b]),
                    float(np.median(kept[a:b])),
                    float(np.median(kept[b:c])),
                    math.exp(float(np.median(logs[b:c]) - np.median(logs[a:b]))),
                    chance,
                )
                for (a, b, c), chance in zip(triples, chances, strict=True)
            ]
        del bounds[worst + 1]  # the segments beside it are one, and are tested anew
    return []


def _segments(logs: np.ndarray, spread: float) -> list[int]:
    """Where segments begin, and where the last one ends.

    They are found whatever their length, so that a step stands where it is and not where enough values follow; but only
    those of ``FEWEST_VALUES`` are kept. What lies between two of them is shared out between them; what lies before the
    first or after the last is judged once more commits show what it is.
    """
    penalty = _PENALTY * spread**2 * math.log(len(logs))
    model = ruptures.KernelCPD(kernel="linear", min_size=1).fit(logs.reshape(-1, 1))
    ends = model.predict(pen=penalty)
    kept = [(a, b) for a, b in zip([0, *ends], ends, strict=False) if b - a >= FEWEST_VALUES]
    if not kept:
        return []
    between = [_boundary(logs, left, right) for left, right in pairwise(kept)]
    return [kept[0][0], *between, kept[-1][1]]


def _boundary(logs: np.ndarray, left: tuple[int, int], right: tuple[int, int]) -> int:
    """Where the values between two segments go over from one to the other."""
    between = logs[left[1] : right[0]]
    to_left, to_right = (np.abs(between - np.median(logs[slice(*each)])) for each in (left, right))
    costs = [to_left[:place].sum() + to_right[place:].sum() for place in range(len(between) + 1)]
    return left[1] + int(np.argmin(costs))


def _chance_beside_control(before: np.ndarray, after: np.ndarray, step: float, spread: float) -> float:
    """The same of a series' distances from its control: zero where too few are known, one where they step elsewhere."""
    before, after = before[~np.isnan(before)], after[~np.isnan(after)]
    if min(len(before), len(after)) < FEWEST_VALUES:
        return 0.0
    if (after.mean() - before.mean()) * step <= 0:
        return 1.0
    return _chance(before, after, math.sqrt(2) * spread)


def _chance(before: np.ndarray, after: np.ndarray, spread: float) -> float:
    """How likely noise alone puts two segments so far apart, at any of the places between their outer ends.

    The spread is the largest of what single processes are known to have, what all series of the history show together
    and what these two segments have: a few values may agree by chance, and a test that believes them would be wrong.
    """
    residuals = np.concatenate([before - before.mean(), after - after.mean()])
    spread = max(spread, math.sqrt(float(residuals @ residuals) / (len(residuals) - 2)))
    distance = abs(float(after.mean() - before.mean()))
    chance = 2 * float(stats.norm.sf(distance / (spread * math.sqrt(1 / len(before) + 1 / len(after)))))
    places = len(before) + len(after) - 2 * FEWEST_VALUES + 1
    return min(1.0, chance * places)
