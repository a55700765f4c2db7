"""Sampling of large traces: some periods whole, those with the lowest hashes, in pools of the size that is asked for.

SHARDS (Waldspurger et al. 2015, "Efficient MRC Construction with SHARDS", FAST) follows the requests whose key has a
low hash, in pools that are as much smaller. A search is no such stream. A context follows from its parents, and pools
hold hundreds of entries: a sample of keys lacks most parents, and a pool of a few slots stands for all. But recurrent
pools are cleared between searches. So the hash chooses searches, and pools keep their size. All initial inferences are
followed, since init pools last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

from kvbench.capacity.census import Census
from kvbench.replay.content import mix_rows
from kvcache import Scope

__all__ = ["CONFIDENCE", "Estimate", "Sample"]

FEWEST = 10  # periods: of fewer the error is large
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sample:
    """A part of a trace's periods.

    Attributes:
        chosen: numbers of the periods that are followed, ascending. Whatever is measured, they are the same.
        periods: how many there are.
        lookups: of the whole trace, by scope. All root lookups are followed.
    """

    chosen: np.ndarray
    periods: int
    lookups: dict[Scope, int]

    @classmethod
    def of(cls, census: Census, most_events: int, seed: int = 0) -> Sample | None:
        """One of about so many events, or of ``FEWEST`` periods if they have more; None where that is all of them.

        Another ``seed`` chooses other periods.
        """
        periods = len(census.periods)
        count = max(FEWEST, round(most_events / max(census.events, 1) * periods))
        if count >= periods:
            return None
        order = np.argsort(mix_rows(np.uint64(seed), census.periods.astype(np.uint64)))
        return cls(np.sort(census.periods[order[:count]]), periods, census.lookups)

    def follows(self, periods: np.ndarray) -> np.ndarray:
        """Whether each of the periods is in the sample."""
        return np.isin(periods, self.chosen)


@dataclass
class Estimate:
    """Shares of lookups with their errors, from the counts of periods: the ratio estimator of whole clusters.

    Counts are ``[sizes, scopes, outcomes]``, root first. Only sums are kept.
    """

    total: np.ndarray | None = None
    followed: int = 0  # periods
    _squares: np.ndarray = field(default_factory=lambda: np.zeros(1))  # of the node counts, summed
    _products: np.ndarray = field(default_factory=lambda: np.zeros(1))  # with the period's node lookups
    _lookups: float = 0.0  # node lookups of a period, squared and summed

    def add(self, counts: np.ndarray) -> None:
        """One period's."""
        self.total = counts if self.total is None else self.total + counts
        node = counts[:, 1].astype(float)
        lookups = float(node[0].sum()) if len(node) else 0.0
        if lookups:
            self.followed += 1
            self._squares = self._squares + node**2
            self._products = self._products + node * lookups
            self._lookups += lookups**2

    def counts(self, sample: Sample | None) -> np.ndarray:
        """``[sizes, outcomes]``: of all lookups; with a sample an estimate, of which the sum is exact."""
        assert self.total is not None
        root, node = self.total[:, 0], self.total[:, 1]
        if sample is None:
            return np.asarray(root + node)
        followed = node.sum(axis=1, keepdims=True)
        return np.asarray(root + node * sample.lookups[Scope.NODE] / np.maximum(followed, 1))

    def errors(self, sample: Sample | None) -> np.ndarray:
        """Half the width of the confidence interval of each share of all lookups, ``[sizes, outcomes]``, 0 to 1."""
        assert self.total is not None
        node = self.total[:, 1].astype(float)
        everything = sum(sample.lookups.values()) if sample else 0
        lookups = float(node[0].sum()) if len(node) else 0.0
        if sample is None or not everything or self.followed >= sample.periods:
            return np.zeros(node.shape)
        if self.followed < 2:
            return np.ones(node.shape)  # one period says nothing of the spread
        ratio = node / lookups
        residuals = self._squares - 2 * ratio * self._products + ratio**2 * self._lookups
        left_out = 1 - self.followed / sample.periods
        spread = np.sqrt(np.maximum(residuals, 0) * left_out * self.followed / (self.followed - 1)) / lookups
        deviations = stdtrit(self.followed - 1, (1 + CONFIDENCE) / 2)  # Student's t
        return np.asarray(deviations * spread * sample.lookups[Scope.NODE] / everything)

    def widest(self, sample: Sample | None) -> float:
        """The largest error."""
        return float(self.errors(sample).max(initial=0.0)) if self.total is not None else math.nan
