"""Steps that series of one group have at one commit, as one change of the code gives them: found on what all share.

The noise of single series cancels in it. So a group is tested first, then each member at the group's own commit: it does
not pay for the places that were looked at (tests of selected families; Benjamini and Bogomolov 2014).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from kvbench.judge.segments import FEWEST_VALUES, SMALLEST, Segments, Step
from kvbench.judge.spread import FEWEST_SERIES, HUBER, middle, normal_deviation, rough_spread

__all__ = ["members_steps", "of_groups", "without_steps"]

_MOST = 1 / 2  # of the group's step that a member has to show
_ROUNDS = 3
_MOST_MEMBERS = 1 / 2  # of a group: more have to show it


def of_groups(groups: Sequence[Hashable], logs: Sequence[np.ndarray]) -> dict[Hashable, tuple[list[int], np.ndarray]]:
    """Of each group of ``FEWEST_SERIES`` and more the places of its series, and what they share at each commit."""
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        if group is not None:
            places.setdefault(group, []).append(place)
    found = {}
    for group, own in places.items():
        if len(own) >= FEWEST_SERIES:
            found[group] = own, _shared(np.array([logs[place] for place in own]))
    return found


def _shared(logs: np.ndarray) -> np.ndarray:
    """What series have at each commit beside their own levels, by Huber's estimate; NaN where few were measured."""
    few = np.count_nonzero(~np.isnan(logs), axis=0) < FEWEST_SERIES
    off, shared = np.where(few, np.nan, logs), np.where(few, np.nan, 0.0)
    if few.all():
        return shared
    off = off[:, ~few]
    for estimate in [_median] * _ROUNDS + [_huber] * _ROUNDS:
        off -= np.nan_to_num(_median(off.T))[:, None]  # a member's own level
        more = estimate(off)
        off, shared[~few] = off - more, shared[~few] + more
    return shared


def _median(off: np.ndarray) -> np.ndarray:
    """Of each column."""
    return np.asarray(np.nanmedian(off, axis=0)) 


def _huber(off: np.ndarray) -> np.ndarray:
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
                own += [Step(place, size, chance)] if size else []
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
