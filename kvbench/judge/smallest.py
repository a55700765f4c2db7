"""The smallest step that a history could have shown: having no change points says nothing without it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import optimize, special

from kvbench.judge.scan import chance_of_largest
from kvbench.judge.segments import FEWEST_VALUES, Segments
from kvbench.judge.verdict import SMALLEST_EFFECT

__all__ = ["POWER", "SmallestStep", "smallest_steps"]

POWER = 0.9  # probability that a step of that size is found
_LARGEST = 40.0  # a statistic that is surer than any level asks for

Family = TypeVar("Family", bound=Hashable)


@dataclass(frozen=True)
class SmallestStep:
    """Of a family of series: how many they are, the commits and the spread that are usual, and the smallest steps.

    Steps are shares: 0.1 is 10 % slower. ``middle`` is one in the middle of the history, ``latest`` one that only the
    last ``FEWEST_VALUES`` commits show. None where a history is too short for any.
    """

    series: int
    commits: int
    spread: float
    middle: float | None
    latest: float | None


def smallest_steps(
    families: Sequence[Family], judged: Sequence[Segments], first_level: float
) -> dict[Family, SmallestStep]:
    """By family; a step that is the only one of the history has to be as sure as ``first_level`` asks of all series."""
    chance = first_level / max(len(judged), 1)
    found = {}
    for family in dict.fromkeys(families):
        own = [each for each, other in zip(judged, families, strict=True) if other == family]
        commits = int(np.median([len(each.logs) for each in own]))
        spread = float(np.median([each.spread for each in own]))
        half, last = commits // 2, FEWEST_VALUES
        found[family] = SmallestStep(
            len(own),
            commits,
            spread,
            *(_step(own[0], spread, commits - after, after, chance) for after in (half, last)),
        )
    return found


def _step(like: Segments, spread: float, before: int, after: int, chance: float) -> float | None:
    if min(before, after) < FEWEST_VALUES:
        return None
    number = before + after
    sure = optimize.brentq(lambda x: chance_of_largest(x, number, FEWEST_VALUES) - chance, 0, _LARGEST)
    error = spread * math.sqrt(like.noise.stickiness.of_difference(before, after))
    return max(SMALLEST_EFFECT, math.expm1((sure + float(special.ndtri(POWER))) * error))
