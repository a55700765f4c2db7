"""Where a series changes for good: exactly for what is deterministic, by a test and a smallest effect for times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
# Shares of both levels: of what is judged as it was measured, of groups, and of single series without their controls'
# noise. A step of a whole group is mostly far surer than that, and what is judged as measured is the coarsest.
_PLAIN, _TOGETHER, _ALONE = 0.05, 0.05, 0.5
_ROUNDS = 2  # a step that was found tells more of the control's noise


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

    They are judged three times, each at a share of both levels: as they were measured, and then free of what all series
    of a cell share beside the changes that were found, which is their control's noise: groups of series, and single
    ones beside what their groups have. A change that a whole cell shares is found the first time only.
    """
    kinds = [each.kind for each in series]
    plain = [each.judged for each in series]
    if has_cells(series):
        first = _judge(segments_of(kinds, plain), _PLAIN)
        second = _finer(series, plain, first)
    else:
        first = second = _judge(segments_of(kinds, plain), 1.0)
        for each in first:
            each.settle()
    return [_changes(*each) for each in zip(series, first, second, strict=True)], second


def _finer(series: Sequence[Measured], plain: Sequence[np.ndarray], first: Sequence[Segments]) -> list[Segments]:
    """Without their controls' noise: what groups have together, and then what single series have beside that."""
    steps: list[list[Step]] = [[] for _ in series]
    for _ in range(_ROUNDS):
        levels = [each.levels(steps=own) for each, own in zip(first, steps, strict=True)]
        finer = without_noise_of_control(series, plain, levels)
        steps = _together(series, finer)
        if not any(steps):
            break
    alone = [without_steps(*each) for each in zip(finer, steps, strict=True)]
    judged = _judge(segments_of([each.kind for each in series], alone), _ALONE)
    for each in (*first, *judged):
        each.settle()
    for each, own in zip(judged, steps, strict=True):
        each.put(own)
    return judged


def _together(series: Sequence[Measured], logs: Sequence[np.ndarray]) -> list[list[Step]]:
    """Of each series the steps that it has with others of its group."""
    steps: list[list[Step]] = [[] for _ in logs]
    found = of_groups(series, logs)
    kinds = [series[places[0]].kind for places, _ in found]
    judged = _judge(segments_of(kinds, [shared for _, shared in found]), _TOGETHER)
    for group, (places, _) in zip(judged, found, strict=True):
        group.settle()
        for place, own in zip(places, members_steps(group, [logs[place] for place in places]), strict=True):
            steps[place] = own
    return steps


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
