"""Steps where one environment follows another: of the environment, since no commit can be told from it.

Series are judged in each environment alone. Beside a border the last level of one is compared with the first of the
next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats

from kvbench.judge.changes import Change, Measured
from kvbench.judge.scan import normal_of_t
from kvbench.judge.segments import FEWEST_VALUES, LEVEL, SMALLEST, Segments
from kvbench.judge.spread import middle, rough_spread, variance_of

__all__ = ["Part", "Run", "exact_borders", "measured_borders"]

Run = tuple[int, np.ndarray]  # an environment, and places of a series' values that follow each other in it


@dataclass(frozen=True)
class Part:
    """What was judged of a series in one environment: its values, the changes in it, and its segments."""

    measured: Measured
    changes: Sequence[Change]
    segments: Segments


def exact_borders(values: np.ndarray, runs: Sequence[Run]) -> list[Change]:
    """Where a deterministic series goes on with another value in another environment."""
    found = []
    for (_, before), (_, after) in pairwise(runs):
        old, new = float(values[before[-1]]), float(values[after[0]])
        if old != new:
            found.append(Change(int(after[0]), old, new, new / old if old else math.inf))
    return found


def measured_borders(series: Sequence[tuple[dict[int, Part], Sequence[Run]]]) -> list[list[Change]]:
    """Of each of several series of times; all are judged together, at ``LEVEL``.

    Each has its parts by environment, and its runs. A border needs ``FEWEST_VALUES`` on either side. Its place is
    known: nothing is paid for having looked for it.
    """
    found: list[list[Change]] = [
        [change for one, other in pairwise(runs) if (change := _border(parts, one, other))] for parts, runs in series
    ]
    chances = [1 - change.certainty for own in found for change in own]
    adjusted = iter(stats.false_discovery_control(chances) if chances else ())
    sure = [[(change, next(adjusted)) for change in own] for own in found]
    return [
        [change for change, chance in own if chance <= LEVEL and abs(math.log(change.ratio)) >= SMALLEST]
        for own in sure
    ]


def _border(parts: dict[int, Part], one: Run, other: Run) -> Change | None:
    """The step between two runs, with its own certainty; None where they cannot be compared."""
    first, second = parts[one[0]], parts[other[0]]
    if first.measured.kind != second.measured.kind:
        return None  # only one of them is over legacy
    begin = max((each.position for each in first.changes if each.position <= one[1][-1]), default=0)
    end = min((each.position for each in second.changes if each.position > other[1][0]), default=other[1][-1] + 1)
    before, after = one[1][one[1] >= begin], other[1][other[1] < end]
    old, new = _logs(first, before), _logs(second, after)
    if min(len(old), len(new)) < FEWEST_VALUES:
        return None
    size, chance = _step(second.segments, old, new)
    return Change(
        position=int(other[1][0]),
        before=float(np.median(first.measured.values[before])),
        after=float(np.median(second.measured.values[after])),
        ratio=math.exp(size),
        certainty=1 - chance,
    )


def _logs(part: Part, places: np.ndarray) -> np.ndarray:
    """What was judged at these places."""
    return part.segments.logs[np.isin(part.segments.places, places)]


def _step(like: Segments, old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """By how much two levels differ, and the chance that noise does it."""
    rough = max(like.noise.least, *(rough_spread(each) for each in (old, new)))
    levels = [middle(each, rough) for each in (old, new)]
    off = np.concatenate([each - level for each, level in zip((old, new), levels, strict=True)])
    spread, degrees = like.noise.spread(variance_of(off, rough) * len(off), float(len(off) - 2))
    error = spread * math.sqrt(like.noise.stickiness.of_difference(len(old), len(new)))
    size = levels[1] - levels[0]
    return size, min(1.0, 2 * float(stats.norm.sf(normal_of_t(abs(size) / error, degrees))))
