"""How sure a change is when the place that shows it best was looked for: Worsley's bound for a largest statistic."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import special

__all__ = ["chance_of_largest", "normal_of_t"]

_LARGEST, _EVERY = 12.0, 0.25  # of the statistics that are tabulated
_HALF = 2.5  # of the width over which is integrated
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)


def normal_of_t(statistic: float, degrees: float) -> float:
    """The normal statistic that is as sure as one of Student's t."""
    return float(-special.ndtri(special.stdtr(degrees, -abs(statistic))))


def chance_of_largest(statistic: float, number: int, fewest: int) -> float:
    """The chance that noise alone gives a difference of means as sure as this anywhere in ``number`` values.

    At least ``fewest`` lie on either side. The chances of all places are added, less those of two neighbours at once
    (Worsley 1982, an upper bound): neighbouring places share nearly all of their values.
    """
    known, logs = _table(number, fewest)
    if statistic >= known[-1]:
        places = number - 2 * fewest + 1
        return min(1.0, 2 * places * float(special.ndtr(-statistic)))
    return min(1.0, math.exp(float(np.interp(statistic, known, logs))))


@lru_cache(maxsize=1024)
def _table(number: int, fewest: int) -> tuple[np.ndarray, np.ndarray]:
    """Statistics, and the logarithm of the chance of each."""
    known = np.arange(0, _LARGEST + _EVERY, _EVERY)
    before = np.arange(fewest, number - fewest + 1, dtype=float)
    alone = 2 * special.ndtr(-known)
    left, right = before[:-1], before[1:]
    correlations = np.sqrt(left * (number - right) / (right * (number - left)))
    both = sum(_both(known, correlation) for correlation in correlations)
    return known, np.log(np.maximum(len(before) * alone - both, alone))


def _both(limits: np.ndarray, correlation: float) -> np.ndarray:
    """The chance that two normal statistics of such a correlation are both beyond each limit, either way."""
    # Over what the first is beyond the limit, where nearly all of its chance lies.
    first = limits[:, None] + _HALF * (_NODES + 1)[None, :]
    apart = math.sqrt(1 - correlation**2)
    beyond = special.ndtr((correlation * first - limits[:, None]) / apart)
    beyond += special.ndtr(-(correlation * first + limits[:, None]) / apart)
    density = np.exp(-(first**2) / 2) / math.sqrt(2 * math.pi)
    return np.asarray(2 * _HALF * (density * beyond) @ _WEIGHTS)
