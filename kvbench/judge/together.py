"""Steps that series of one group have at one commit, as one change of the code gives them: found on what all share.

The noise of single series cancels in it. So a group is tested first, and then each member at the group's own commit: it
does not pay for the places that were looked at (tests of selected families; Benjamini and Bogomolov 2014).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from kvbench.judge.measured import Measured
from kvbench.judge.segments import FEWEST_VALUES, SMALLEST, Segments, Step
from kvbench.judge.spread import FEWEST_SERIES, HUBER, medians, middle, normal_deviation, rough_spread

__all__ = ["members_steps", "of_groups", "without_steps"]

_MOST = 1 / 2  # of the group's step that a member has to show
_ROUNDS = 3  # of medians, and as many of means; they settle fast
_MOST_MEMBERS = 1 / 2  # of a group's series: more have to show it


def of_groups(series: Sequence[Measured], logs: Sequence[np.ndarray]) -> list[tuple[list[int], np.ndarray]]:
    """The places of each group's series, where there are ``FEWEST_SERIES``, and what they share at each commit."""
    groups: dict[Hashable, list[int]] = {}
    for place, each in enumerate(series):
        if each.group is not None and each.kind[0]:
            groups.setdefault((each.kind, each.group), []).append(place)
    return [
        (places, _shared(np.array([logs[place] for place in places])))
        for places in groups.values()
        if len(places) >= FEWEST_SERIES
    ]


def _shared(logs: np.ndarray) -> np.ndarray:
    """What series have at each commit beside their own levels, by Huber's estimate; NaN where few were measured."""
    few = np.count_nonzero(~np.isnan(logs), axis=0) < FEWEST_SERIES
    off, shared = logs[:, ~few], np.where(few, np.nan, 0.0)
    for estimate in [medians] * _ROUNDS + [_means] * _ROUNDS if off.size else ():
        off = off - np.nan_to_num(medians(off.T))[:, None]  # a member's own level
        more = estimate(off)
        off, shared[~few] = off - more, shared[~few] + more
    return shared


def _means(off: np.ndarray) -> np.ndarray:
    """Of each commit; what lies far off counts no more than others."""
    most = HUBER * normal_deviation(off[~np.isnan(off)])
    return np.asarray(np.nanmean(np.clip(off, -most, most), axis=0))


def members_steps(group: Segments, members: Sequence[np.ndarray]) -> list[list[Step]]:
    """Of each member the group's steps that it shows itself, at least ``_MOST`` of each; none that few show."""
    found: list[list[Step]] = [[] for _ in members]
    for triple, chance in zip(group.triples, group.chances, strict=True):
        place = int(group.places[triple[1]])
        sizes = [_shown(group, triple, logs) for logs in members]
        if np.count_nonzero(sizes) > len(sizes) * _MOST_MEMBERS:
            for own, size in zip(found, sizes, strict=True):
                own.extend([Step(place, size, chance)] if size else [])
    return found


def _shown(group: Segments, triple: tuple[int, int, int], logs: np.ndarray) -> float:
    """By how much one member changes with its group; 0 where it does not."""
    a, b, c = triple
    sides = [logs[group.places[first:last]] for first, last in ((a, b), (b, c))]
    before, after = (each[~np.isnan(each)] for each in sides)
    if min(len(before), len(after)) < FEWEST_VALUES:
        return 0.0
    spread = rough_spread(logs)
    size = middle(after, spread) - middle(before, spread)
    return size if abs(size) >= SMALLEST and size / group.size(a, b, c) >= _MOST else 0.0


def without_steps(logs: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    return logs - sum(each.size * (np.arange(len(logs)) >= each.place) for each in steps)
