"""One series in segments, and how sure each place between two of them is.

Candidates are found by ruptures (``KernelCPD``, linear kernel: the least squares segmentation, found exactly). It says
where a series most likely changes, not whether it does: each candidate is then tested.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import ruptures
from scipy import special

from kvbench.judge.scan import chance_of_largest, normal_of_t
from kvbench.judge.spread import HUBER, Prior, Stickiness, median, middle, rough_spread, variance_of, without_outliers
from kvbench.judge.verdict import SMALLEST_EFFECT

__all__ = ["FEWEST_VALUES", "LEVEL", "SMALLEST", "Noise", "Segments", "Step"]

# An outlier is no change: it takes this many commits on either side.
FEWEST_VALUES = 3
LEVEL = 0.01
# Segmentation asks for more than noise explains; the tests, which decide, ask for more than that.
_PENALTY = 2.0
_MOST_OF_SIZE = 0.75  # of a change: a value that shows as much of it is beyond
_HEAVY = 2.0  # times what a normal distribution has so far out: fewer are no outliers
_WORTH = 20  # values: what a normal distribution says, where few were seen
SMALLEST = math.log1p(SMALLEST_EFFECT)


@dataclass(frozen=True)
class Noise:
    """How a family's series scatter; ``least`` is the smallest spread that is believed of one."""

    prior: Prior
    stickiness: Stickiness
    least: float
    off: np.ndarray  # how far values lie off their neighbours, in spreads of their series, in order

    def spread(self, squares: float = 0.0, degrees: float = 0.0) -> tuple[float, float]:
        """Of one value of a series, and degrees of freedom; ``squares`` are the series' own, of so many degrees."""
        whole = Prior(self.prior.variance * self.stickiness.total, self.prior.degrees)
        if not whole.degrees + degrees:
            return self.least, 1.0
        variance, both = whole.moderated(squares, degrees)
        return max(self.least, math.sqrt(variance)), both


@dataclass(frozen=True)
class Step:
    """At a commit, by how much as a logarithm, and the chance that it is noise."""

    place: int
    size: float
    chance: float


class Segments:
    """Logarithms of one series, by commits; NaN where one is not judged.

    ``bounds``: where the first segment begins, places between two, where the last one ends, among the values that are
    judged (at the commits ``places``); none where there are too few. ``chances``: of each place, to be noise.
    """

    def __init__(self, logs: np.ndarray, noise: Noise) -> None:
        self.noise, self.commits = noise, len(logs)
        self.places = np.flatnonzero(~np.isnan(logs))
        self.logs = logs[self.places]
        self._middles: dict[tuple[int, int], float] = {}
        self.bounds: list[int] = []
        self.chances: list[float] = []
        if len(self.logs) >= 2 * FEWEST_VALUES:
            self._rough = max(rough_spread(self.logs), noise.least)
            usual = noise.spread()[0] if noise.prior.degrees else self._rough
            self._rough = math.sqrt(self._rough * usual)
            self.bounds = _likeliest_bounds(without_outliers(self.logs, self._rough), self._rough)
            self._test()
            while self.join(self.chances):
                pass

    @property
    def spread(self) -> float:
        """Of one value beside its segment's level."""
        return self.noise.spread(*(self._squares() if self.bounds else (0.0, 0.0)))[0]

    @property
    def triples(self) -> list[tuple[int, int, int]]:
        """Of each place between two segments: where the first begins, the place, where the second ends."""
        return list(zip(self.bounds, self.bounds[1:], self.bounds[2:], strict=False))

    def _test(self) -> None:
        sure = [self._statistic(*each) for each in self.triples]
        self.chances = [self._chance(place, sure) for place in range(len(sure))]

    def _chance(self, place: int, sure: Sequence[float]) -> float:
        """The chance of one place between two segments.

        Beside places that are surer it is the best of those between them. Or else where its segments end was looked
        for as well, anywhere in the series.
        """
        a, b, c = self.triples[place]
        ends = (a > self.bounds[0]) + (c < self.bounds[-1])
        chance = float(len(self.logs) ** ends) * chance_of_largest(sure[place], c - a, FEWEST_VALUES)
        chance = max(chance, self._chance_of_outliers(a, b, c))
        surer = [self.bounds[each + 1] for each, other in enumerate(sure) if other > sure[place]]
        a = max([each for each in surer if each < b], default=self.bounds[0])
        c = min([each for each in surer if each > b], default=self.bounds[-1])
        nested = chance_of_largest(self._statistic(a, b, c), c - a, FEWEST_VALUES)
        return min(1.0, chance, max(nested, self._chance_of_outliers(a, b, c)))

    def _chance_of_outliers(self, a: int, b: int, c: int) -> float:
        """The chance of so many outliers in a row, anywhere, that the shorter segment looks like this."""
        size = self.size(a, b, c)
        short, other = ((a, b), (b, c)) if b - a <= c - b else ((b, c), (a, b))
        sign = math.copysign(1.0, size) * (1 if short[0] == b else -1)
        off = sign * (self.logs[slice(*short)] - self._middle(*other))
        beyond = int(np.count_nonzero(off > _MOST_OF_SIZE * abs(size)))
        limit = _MOST_OF_SIZE * abs(size) / self._rough
        normal = float(special.ndtr(-limit))
        seen = np.count_nonzero(self.noise.off * sign > limit)
        share = (seen + _WORTH * normal) / (len(self.noise.off) + _WORTH)
        if share <= _HEAVY * normal:
            return 0.0
        return min(
            1.0, len(self.logs) * len(off) * float(special.bdtrc(beyond - 1, len(off), share) if beyond else 1.0)
        )

    def _middle(self, a: int, b: int) -> float:
        if (a, b) not in self._middles:
            self._middles[a, b] = middle(self.logs[a:b], self._rough)
        return self._middles[a, b]

    def _statistic(self, a: int, b: int, c: int) -> float:
        """How far two segments differ, as a normal statistic."""
        spread, degrees = self.noise.spread(*self._squares())
        error = spread * math.sqrt(self.noise.stickiness.of_difference(b - a, c - b))
        return normal_of_t(self.size(a, b, c) / error, degrees)

    def _squares(self) -> tuple[float, float]:
        """Of the values around their segments' middles, and degrees of freedom."""
        off = np.concatenate([self.logs[a:b] - self._middle(a, b) for a, b in pairwise(self.bounds)])
        degrees = len(off) - (len(self.bounds) - 1)
        return variance_of(off, self._rough) * len(off), float(degrees)

    def size(self, a: int, b: int, c: int) -> float:
        """By how much two segments differ."""
        return self._middle(b, c) - self._middle(a, b)

    def put(self, steps: Sequence[Step]) -> None:
        """Put steps that were taken out before back into the values; what was found next to one is part of it."""
        self._middles.clear()
        found = dict(zip(self.bounds[1:], self.chances, strict=False))
        for step in steps:
            self.logs = self.logs + step.size * (self.places >= step.place)
            place = int(np.searchsorted(self.places, step.place))
            found = {b: chance for b, chance in found.items() if abs(b - place) >= FEWEST_VALUES}
            found[place] = step.chance
        if steps:
            self.bounds = [0, *sorted(found), len(self.logs)]
            self.chances = [found[b] for b in sorted(found)]

    def levels(self, surest: float = 1.0, steps: Sequence[Step] = ()) -> np.ndarray:
        """What the values lie around, by commits: between changes whose chance is at most ``surest``, and ``steps``."""
        found = np.full(self.commits, np.nan)
        inner = [b for b, chance in zip(self.bounds[1:], self.chances, strict=False) if chance <= surest]
        inner += [int(np.searchsorted(self.places, each.place)) for each in steps]
        for a, b in pairwise(sorted([0, *inner, len(self.logs)])):
            if b > a:
                found[self.places[a:b]] = median(self.logs[a:b])
        return found

    def settle(self) -> None:
        """Put each place between two segments where the values most likely change."""
        spread = self.noise.spread(*self._squares())[0] if self.chances else 0.0
        for place in range(1, len(self.bounds) - 1):
            a, b, c = self.bounds[place - 1 : place + 2]
            to_left, to_right = (_loss((self.logs[a:c] - self._middle(*each)) / spread) for each in ((a, b), (b, c)))
            costs = np.concatenate([[0.0], np.cumsum(to_left - to_right)])[FEWEST_VALUES : c - a - FEWEST_VALUES + 1]
            self.bounds[place] = a + FEWEST_VALUES + int(np.argmin(costs))

    def join(self, chances: Sequence[float], level: float = LEVEL) -> bool:
        """Make one of the two segments that noise explains best, if it does; what is left is tested anew."""
        doubtful = [
            (chance, place)
            for place, (chance, each) in enumerate(zip(chances, self.triples, strict=True), 1)
            if chance > level or abs(self.size(*each)) < SMALLEST
        ]
        if doubtful:
            del self.bounds[max(doubtful)[1]]
            self._test()
        return bool(doubtful)


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


def _loss(off: np.ndarray) -> np.ndarray:
    """Huber's loss of values that lie so many spreads off."""
    far = np.abs(off)
    return np.where(far <= HUBER, off**2 / 2, HUBER * (far - HUBER / 2))


def _boundary(logs: np.ndarray, left: tuple[int, int], right: tuple[int, int]) -> int:
    """Where the values between two segments go over from one to the other."""
    between = logs[left[1] : right[0]]
    to_left, to_right = (np.abs(between - median(logs[slice(*each)])) for each in (left, right))
    costs = [to_left[:place].sum() + to_right[place:].sum() for place in range(len(between) + 1)]
    return left[1] + int(np.argmin(costs))
