"""Where a series changes for good: exactly for what is deterministic, by a test and a smallest effect for times.

Candidates are found by ruptures (``KernelCPD``, linear kernel: the least squares segmentation, found exactly). It says
where a series most likely changes, not whether it does: each candidate is then tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import ruptures
from scipy import stats

from kvbench.judge.pace import logs_of
from kvbench.judge.verdict import SMALLEST_EFFECT

__all__ = ["FEWEST_VALUES", "LEVEL", "PROCESS_SPREAD", "Change", "exact_changes", "measured_changes"]

# Identical code's times take one of a few values up to 25 % apart from process to process (a log-normal spread of about
# a tenth), and a history has one process a commit: what its values scatter by chance may look like less, never be less.
PROCESS_SPREAD = 0.1
# An outlier is no change: it takes this many commits on either side.
FEWEST_VALUES = 3
LEVEL = 0.01
# Segmentation asks for more than noise explains; the tests, which decide, ask for more than that.
_PENALTY = 3.0
_MOST_OF_CONTROL = 2  # spreads that a control's value may lie off its others


@dataclass(frozen=True)
class Change:
    """A lasting change of a series; ``position`` is the index of the first value after it.

    Attributes:
        before, after: the values beside a deterministic change; of measured ones the medians between changes.
        ratio: after / before; of measured values free of the machine's pace and of what the control shows as well.
            Infinite from zero.
        certainty: probability, in a history without changes, of seeing none as sure as this; 1 for a deterministic one.
    """

    position: int
    before: float
    after: float
    ratio: float
    certainty: float = 1.0


def exact_changes(values: Iterable[float]) -> list[Change]:
    """Every change of a deterministic series; NaN, where nothing was measured, is passed over."""
    known = [(place, float(value)) for place, value in enumerate(values) if not math.isnan(value)]
    return [
        Change(place, last, value, value / last if last else math.inf)
        for (_, last), (place, value) in pairwise(known)
        if value != last
    ]


def measured_changes(
    series: Sequence[np.ndarray], pace: Sequence[np.ndarray | None], controls: Sequence[np.ndarray | None] = ()
) -> list[list[Change]]:
    """The changes of each of several series of times.

    All series are judged together: the share of false ones among those reported is at most ``LEVEL`` (Benjamini and
    Hochberg's control, ``scipy.stats.false_discovery_control``), and in a history without changes so is the
    probability of reporting any.

    ``series`` are positive values, NaN where nothing was measured. ``pace`` is for each series how fast the machine was
    at each value, as a factor; values where it is NaN are not judged. Where it is None all are, as they are.
    ``controls`` are for each what is left alone and measured with the same sizes, or None: a machine may be slow at one
    kind of work alone. What a series shares with its control is no change of its own.
    """
    factors = [1.0 if factor is None else factor for factor in pace]
    logs = [logs_of(values / factor) for values, factor in zip(series, factors, strict=True)]
    against = [
        np.full(len(own), np.nan) if control is None else logs_of(control / factor)
        for own, control, factor in zip(series, controls or [None] * len(series), factors, strict=True)
    ]
    differences = [np.diff(each[~np.isnan(each)]) for each in logs]
    spread = max(PROCESS_SPREAD, _spread(np.concatenate([*differences, np.empty(0)])))
    judged = [_Segments(*each, spread) for each in zip(series, logs, against, strict=True)]
    while True:
        chances = [chance for each in judged for chance in each.chances]
        # A series without a candidate was looked at, too.
        quiet = [1.0 for each in judged if not each.chances]
        adjusted = iter(stats.false_discovery_control([*chances, *quiet]) if chances else [])
        certain = [[next(adjusted) for _ in each.chances] for each in judged]
        joined = [each.join(found) for each, found in zip(judged, certain, strict=True)]
        if not any(joined):
            return [each.changes(found) for each, found in zip(judged, certain, strict=True)]


def _spread(differences: np.ndarray) -> float:
    """Standard deviation of values whose neighbours differ so: a robust estimate, which changes hardly touch."""
    if not len(differences):
        return 0.0
    around_zero = stats.median_abs_deviation(differences, center=lambda _, axis=None: 0.0, scale="normal")
    return float(around_zero) / math.sqrt(2)


class _Segments:
    """One series in segments, and the chance of each place between two of them to be noise.

    ``logs`` are of its values at the machine's usual pace, NaN where one is not judged; ``control`` the same of its
    control, NaN where it has none; ``spread`` is that of all series.
    """

    def __init__(self, values: np.ndarray, logs: np.ndarray, control: np.ndarray, spread: float) -> None:
        self._places = np.flatnonzero(~np.isnan(logs))
        self._values, self._logs, self._control = (each[self._places] for each in (values, logs, control))
        self._bounds: list[int] = []  # where the first begins, places between two, where the last ends
        self.chances: list[float] = []
        if len(self._places) >= 2 * FEWEST_VALUES:
            self._spread = max(spread, _spread(np.diff(self._logs)))
            self._bounds = _likeliest_bounds(self._logs, self._spread)
            self._test()
            while self.join(self.chances):
                pass

    def _triples(self) -> list[tuple[int, int, int]]:
        return list(zip(self._bounds, self._bounds[1:], self._bounds[2:], strict=False))

    def _test(self) -> None:
        self.chances = [
            max(_chance(self._logs[a:b], self._logs[b:c], self._spread), self._chance_beside_control(a, b, c))
            for a, b, c in self._triples()
        ]

    def join(self, chances: Sequence[float]) -> bool:
        """Make one of the two segments that noise explains best, if it does; what is left is tested anew."""
        small = math.log1p(SMALLEST_EFFECT)
        doubtful = [
            (chance, place)
            for place, (chance, each) in enumerate(zip(chances, self._triples(), strict=True), 1)
            if chance > LEVEL or abs(self._size(*each)) < small
        ]
        if doubtful:
            del self._bounds[max(doubtful)[1]]
            self._test()
        return bool(doubtful)

    def changes(self, chances: Sequence[float]) -> list[Change]:
        return [
            Change(
                position=int(self._places[b]),
                before=float(np.median(self._values[a:b])),
                after=float(np.median(self._values[b:c])),
                ratio=math.exp(self._size(a, b, c)),
                certainty=1 - float(chance),
            )
            for (a, b, c), chance in zip(self._triples(), chances, strict=True)
        ]

    def _size(self, a: int, b: int, c: int) -> float:
        """By how much a series changes, as a logarithm; less what the control shows as well."""
        size = float(np.median(self._logs[b:c]) - np.median(self._logs[a:b]))
        middles = self._middles_of_control(a, b, c)
        return min(size, size - float(middles[1] - middles[0]), key=abs) if middles else size

    def _middles_of_control(self, a: int, b: int, c: int) -> list[float]:
        """The control's medians beside two segments; none where too few of its values are known."""
        found = [self._control[a:b], self._control[b:c]]
        if any(np.count_nonzero(~np.isnan(each)) < FEWEST_VALUES for each in found):
            return []
        return [float(np.nanmedian(each)) for each in found]

    def _chance_beside_control(self, a: int, b: int, c: int) -> float:
        """The chance of a series' distances from its control: zero where too few are known, one where they go back.

        Outliers of the control are cut: they say nothing of the series.
        """
        middles = self._middles_of_control(a, b, c)
        if not middles:
            return 0.0
        most = _MOST_OF_CONTROL * self._spread
        distances = []
        for begin, end, middle in zip((a, b), (b, c), middles, strict=True):
            found = self._logs[begin:end] - np.clip(self._control[begin:end], middle - most, middle + most)
            distances.append(found[~np.isnan(found)])
        change = self._logs[b:c].mean() - self._logs[a:b].mean()
        if (distances[1].mean() - distances[0].mean()) * change <= 0:
            return 1.0
        return _chance(distances[0], distances[1], math.sqrt(2) * self._spread)


def _likeliest_bounds(logs: np.ndarray, spread: float) -> list[int]:
    """Where segments begin, and where the last one ends.

    They are found whatever their length, so that a change is put where it is and not where enough values follow. Only
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
