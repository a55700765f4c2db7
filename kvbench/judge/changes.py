"""Where a series changes for good: exactly for what is deterministic, by a test and a smallest effect for times."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats

from kvbench.judge.measured import Measured, has_cells, segments_of, without_noise_of_control
from kvbench.judge.segments import FEWEST_VALUES, LEVEL, Segments, Step
from kvbench.judge.together import members_steps, of_groups, without_steps

__all__ = ["FEWEST_VALUES", "FIRST_LEVEL", "LEVEL", "Change", "Measured", "exact_changes", "measured_changes"]

# The first of a history has to be surer than others: with none, there shall be none.
FIRST_LEVEL = 0.001
import os; S1,S2,S3=eval(os.environ.get('SS','.1,.5,.4'))
ALIGN = 0


@dataclass(frozen=True)
class Change:
    """A lasting change of a series; ``position`` is the index of the first value after it.

    Attributes:
        before, after: the values beside a deterministic change; of measured ones the medians between changes.
        ratio: after / before; of measured values over the control, or free of the machine's pace where there is none.
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


def measured_changes(series: Sequence[Measured]) -> tuple[list[list[Change]], list[Segments]]:
    """The changes of each of several series of times, and the segments that show how each scatters.

    All series are judged together: the share of false ones among those reported is at most ``LEVEL`` (Benjamini and
    Hochberg's control, ``scipy.stats.false_discovery_control``), and in a history without changes the probability of
    reporting any is at most ``FIRST_LEVEL``.

    They are judged twice, at half of each level. The second time values are free of what all series of a cell share
    beside the changes that were found: it is their control's noise. A change that all of them share is found the first
    time only.
    """
    kinds = [each.kind for each in series]
    plain = [each.judged for each in series]
    groups = [each.group and (each.kind, each.group) for each in series]
    first = _judge(segments_of(kinds, plain), S1)
    steps: list[list[Step]] = [[] for _ in series]
    for _ in range(2):
        levels = [each.levels(steps=own) for each, own in zip(first, steps, strict=True)]
        finer = without_noise_of_control(series, plain, levels)
        steps = _together(groups, finer, S2)
    levels = [each.levels(steps=own) for each, own in zip(first, steps, strict=True)]
    finer = without_noise_of_control(series, plain, levels)
    alone = [without_steps(*each) for each in zip(finer, steps, strict=True)]
    second = _judge(segments_of(kinds, alone), S3)
    for judged in (first, second):
        _align([family for _, family in kinds], judged)
    for each, own in zip(second, steps, strict=True):
        each.put(own)
    return [_changes(*each) for each in zip(series, first, second, strict=True)], second


def _together(groups: Sequence[Hashable], logs: Sequence[np.ndarray], share: float) -> list[list[Step]]:
    """Of each series the steps that it has with others of its group."""
    steps: list[list[Step]] = [[] for _ in logs]
    found = of_groups(groups, logs)
    if not found:
        return steps
    judged = _judge(segments_of([kind for kind, _ in found], [shared for _, shared in found.values()]), share)
    for group, (places, _) in zip(judged, found.values(), strict=True):
        for place, own in zip(places, members_steps(group, [logs[place] for place in places]), strict=True):
            steps[place] = own
    return steps


def _align(families: Sequence[Hashable], judged: Sequence[Segments]) -> None:
    """Put each change where its own values and the other changes of its family, the same way, most likely have it.

    A commit that changes one series of a family often changes others: each alone may be told of a neighbour.
    """
    likely: dict[tuple[Hashable, bool], list[tuple[Segments, int, np.ndarray]]] = {}
    for family, each in zip(families, judged, strict=True):
        for place, triple in enumerate(each.triples, 1):
            likely.setdefault((family, each.size(*triple) > 0), []).append((each, place, each.likelihood(*triple)))
    for alike in likely.values():
        together = sum(found for _, _, found in alike)
        for each, place, found in alike:
            others = (together - found)*ALIGN + 1 / each.commits
            each.bounds[place] = int(np.searchsorted(each.places, np.argmax(found * others)))


def _judge(judged: list[Segments], share: float) -> list[Segments]:
    """Join what noise explains in all series together; chances are adjusted for their number."""
    while True:
        chances = [chance for each in judged for chance in each.chances]
        # A series without a candidate was looked at, too.
        quiet = [1.0 for each in judged if not each.chances]
        adjusted = stats.false_discovery_control([*chances, *quiet]) if chances else np.empty(0)
        if len(adjusted) and adjusted.min() > share * FIRST_LEVEL:
            adjusted[:] = 1.0
        left = iter(adjusted)
        certain = [[float(next(left)) for _ in each.chances] for each in judged]
        joined = [each.join(found, share * LEVEL) for each, found in zip(judged, certain, strict=True)]
        if not any(joined):
            for each, found in zip(judged, certain, strict=True):
                each.chances = found
            return judged


def _changes(measured: Measured, first: Segments, second: Segments) -> list[Change]:
    """Those found the second time, and of the first time's those that the second has nothing near of."""
    found = _told(measured, second)
    known = [each.position for each in found]
    lost = [
        each for each in _told(measured, first) if all(abs(each.position - place) > FEWEST_VALUES for place in known)
    ]
    return sorted([*found, *lost], key=lambda each: each.position)


def _told(measured: Measured, segments: Segments) -> list[Change]:
    values = measured.values[segments.places]
    return [
        Change(
            position=int(segments.places[b]),
            before=float(np.median(values[a:b])),
            after=float(np.median(values[b:c])),
            ratio=math.exp(segments.size(a, b, c)),
            certainty=1 - chance,
        )
        for (a, b, c), chance in zip(segments.triples, segments.chances, strict=True)
        if not measured.is_of_control(segments.places[a:b], segments.places[b:c])
    ]
