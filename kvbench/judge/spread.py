"""How far values of the same code scatter: estimated for each family of series, and for each series beside its family.

A family's series have spreads that are alike. What they show together says how far one of them scatters before it was
measured often: the moderated variance of Smyth (2004, "Linear models and empirical Bayes methods", limma's). Values may
also stay off for some commits. Then a mean of many is less sure than their number says: ``Stickiness`` has that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage, optimize, special

__all__ = [
    "HUBER",
    "Prior",
    "Stickiness",
    "family_prior",
    "medians",
    "rough_spread",
    "stickiness_of",
    "without_outliers",
]

FEWEST_SERIES = 3  # of a family: fewer say more of themselves than of it
_WINDOW = 7  # values whose median a value is measured from: a lasting change is none
_MOST = 3.0  # spreads off that median; what is farther is taken for that far
HUBER = 1.5  # spreads off the middle, where a value's influence ends
_ROUNDS = 10
_MIDDLE_HALF = 0.6745  # standard deviations around the mean: half of a normal distribution
_MOST_DEGREES = 40.0  # of freedom that a family is worth, as alike as its series may look
_FEWEST_PAIRS = 100  # of values: fewer do not tell
_FARTHEST = 5  # commits between values that are compared to see how long they stay off
_HELD = np.linspace(0, 0.9, 19)
_STAYS = 0.8  # correlation of what stays off, a commit on: a history is too short to tell, and less would be too sure


def rough_spread(logs: np.ndarray) -> float:
    """Standard deviation of values, by how their neighbours differ: a robust estimate, which changes hardly touch."""
    differences = np.diff(logs[~np.isnan(logs)])
    if not len(differences):
        return 0.0
    return normal_deviation(differences) / math.sqrt(2)


def normal_deviation(around_zero: np.ndarray) -> float:
    """Standard deviation of what lies around zero, as its median says."""
    return median(np.abs(around_zero)) / _MIDDLE_HALF


def median(values: np.ndarray) -> float:
    """Of values without gaps, as NumPy has it; of few values many times faster."""
    ordered, half = np.sort(values), len(values) // 2
    return float(ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def medians(values: np.ndarray) -> np.ndarray:
    """Along the last axis but one, NaN left out."""
    ordered, known = np.sort(values, axis=-2), np.count_nonzero(~np.isnan(values), axis=-2, keepdims=True)
    low, high = (np.take_along_axis(ordered, np.maximum(place, 0), -2) for place in ((known - 1) // 2, known // 2))
    return np.asarray(((low + high) / 2).squeeze(-2))


def off_neighbours(logs: np.ndarray) -> np.ndarray:
    """How far values without gaps lie off the median of those around them."""
    return np.asarray(logs - ndimage.median_filter(logs, min(_WINDOW, len(logs)), mode="mirror"))


def without_outliers(logs: np.ndarray, spread: float) -> np.ndarray:
    """The values without gaps, those far off their neighbours put nearer."""
    off = off_neighbours(logs)
    return np.asarray(logs - off + np.clip(off, -_MOST * spread, _MOST * spread))


def middle(values: np.ndarray, spread: float) -> float:
    """Huber's estimate of what values lie around: outliers count no more than others."""
    most = HUBER * spread
    found = float(values.sum()) / len(values)
    if np.abs(values - found).max() <= most:
        return found
    found = median(values)
    for _ in range(_ROUNDS):
        found += float(np.clip(values - found, -most, most).sum()) / len(values)
    return found


@dataclass(frozen=True)
class Prior:
    """What a family says of the variance of one of its series: ``variance``, worth so many ``degrees`` of freedom."""

    variance: float = 0.0
    degrees: float = 0.0

    def moderated(self, squares: float, degrees: float) -> tuple[float, float]:
        """Variance and degrees of freedom of a series whose own squares sum up so, of so many degrees."""
        both = self.degrees + degrees
        return (self.degrees * self.variance + squares) / both, both


def family_prior(family: Iterable[np.ndarray]) -> Prior:
    """Of series' logarithms without gaps: the scaled F distribution whose moments their variances have."""
    known = [logs[~np.isnan(logs)] for logs in family]
    found = [(_variance(logs), _degrees(len(logs))) for logs in known if len(logs) > 2]
    found = [(variance, degrees) for variance, degrees in found if variance > 0]
    if len(found) < FEWEST_SERIES:
        return Prior()
    variances, degrees = np.array(found).T
    excess = np.log(variances) - special.digamma(degrees / 2) + np.log(degrees / 2)
    scattered = float(excess.var(ddof=1) - special.polygamma(1, degrees / 2).mean())
    if scattered <= float(special.polygamma(1, _MOST_DEGREES / 2)):
        return Prior(math.exp(float(excess.mean())), _MOST_DEGREES)
    half = optimize.brentq(lambda x: float(special.polygamma(1, x)) - scattered, 1e-3, _MOST_DEGREES)
    return Prior(math.exp(float(excess.mean() + special.digamma(half) - math.log(half))), 2 * half)


def _variance(logs: np.ndarray) -> float:
    """As ``variance_of``, by differences of neighbours: a change is only one of them."""
    return variance_of(np.diff(logs), math.sqrt(2) * rough_spread(logs)) / 2


def variance_of(off: np.ndarray, spread: float) -> float:
    """Of Huber's estimate, times the number of values; ``off`` is how far each lies off the middle."""
    most = HUBER * spread
    near = np.abs(off) <= most
    return float(np.mean(np.clip(off, -most, most) ** 2)) / max(float(near.mean()), 0.5) ** 2


def _degrees(number: int) -> float:
    """Degrees of freedom that the variance by differences of neighbours is worth (von Neumann's)."""
    return 2 * (number - 1) ** 2 / (3 * number - 4)


@dataclass(frozen=True)
class Stickiness:
    """How values stay off: ``held`` is the share of their variance that does, ``stays`` its correlation a commit on."""

    held: float = 0.0
    stays: float = 0.0

    @cached_property
    def total(self) -> float:
        """The whole variance over what neighbours show of it."""
        return 1 / (1 - self.held * self.stays)

    def of_difference(self, before: int, after: int) -> float:
        """Variance of the difference of two neighbouring means of so many values, over that of one value."""
        apart = self.stays ** np.arange(1, before + after)
        weights = np.concatenate([np.full(before, -1 / before), np.full(after, 1 / after)])
        beside = np.correlate(weights, weights, "full")[before + after :]
        return float(weights @ weights + 2 * self.held * (beside @ apart))


def stickiness_of(series: Sequence[np.ndarray]) -> Stickiness:
    """What fits best how far values so many commits apart differ; ``series`` have NaN where nothing was measured.

    Each series counts by its own spread. What its length explains is no stickiness.
    """
    known = [each - np.nanmedian(each) for each in series if not np.isnan(each).all()]
    scaled = [each / spread for each in known if (spread := normal_deviation(each[~np.isnan(each)])) > 0]
    if len(scaled) < FEWEST_SERIES:
        return Stickiness()
    apart = [
        np.concatenate([np.abs(each[far:] - each[:-far]) for each in scaled if len(each) > far] or [np.empty(0)])
        for far in range(1, _FARTHEST + 1)
    ]
    squares = [np.minimum(each[~np.isnan(each)], _MOST * math.sqrt(2)) ** 2 for each in apart]
    if min(map(len, squares)) < _FEWEST_PAIRS:
        return Stickiness()
    seen = np.array([float(each.mean()) for each in squares])
    seen /= seen[0]
    far = np.arange(1, _FARTHEST + 1)
    fits = [float(np.sum((seen - (1 - held * _STAYS**far) / (1 - held * _STAYS)) ** 2)) for held in _HELD]
    return Stickiness(float(_HELD[np.argmin(fits)]), _STAYS)
