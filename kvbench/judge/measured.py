"""Series of times as they are judged: over legacy of the same cell where that was measured, and how they scatter."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kvbench.judge.pace import logs_of
from kvbench.judge.segments import Noise, Segments
from kvbench.judge.spread import (
    FEWEST_SERIES,
    Stickiness,
    family_prior,
    medians,
    normal_deviation,
    off_neighbours,
    rough_spread,
    stickiness_of,
)

__all__ = [
    "PAIRED_SPREAD",
    "PROCESS_SPREAD",
    "Kind",
    "Measured",
    "has_cells",
    "segments_of",
    "without_noise_of_control",
]

# Identical code's times take one of a few values up to 25 % apart from process to process (a log-normal spread of about
# a tenth), and a history has one process a commit: what its values scatter by chance may look like less, never be less.
PROCESS_SPREAD = 0.1
# Within a process they scatter by this much, and so do two that are measured in turns, one over the other.
PAIRED_SPREAD = 0.02
_MOSTLY = 2 / 3  # of a series' values that have a control: with fewer it is judged without
_SURE_OF_CONTROL = math.log(100)  # times likelier that the control changed than that the series did
_SURE = 1e-4  # chance of a change that is taken out before it is seen how long values stay off


Kind = tuple[bool, Hashable]


@dataclass(frozen=True, eq=False)
class Measured:
    """A series to be judged: positive values, NaN where nothing was measured.

    Attributes:
        values: of each commit.
        pace: how slow the machine was at each, as a factor; values where it is NaN are not judged. None: all are.
        control: what is left alone and measured in turns with the same sizes, or None. The series is judged over it.
        family: series of one family scatter alike.
        cell: series of one cell have the same control; None for one that has no such others.
        is_ratio: whether the values are over something that was measured in turns with them.
        group: series of one group often change together; None for one that is alone.
    """

    values: np.ndarray
    pace: np.ndarray | None = None
    control: np.ndarray | None = None
    family: Hashable = ""
    cell: Hashable = None
    is_ratio: bool = False
    group: Hashable = None

    @cached_property
    def own(self) -> np.ndarray:
        """Logarithms at the machine's usual pace."""
        return logs_of(self.values if self.pace is None else self.values / self.pace)

    @cached_property
    def of_control(self) -> np.ndarray | None:
        """The control's logarithms at the machine's usual pace, where the series is judged over it."""
        if self.control is None or self.is_ratio:
            return None
        control = logs_of(self.control if self.pace is None else self.control / self.pace)
        known = ~np.isnan(self.own)
        both = np.count_nonzero(known & ~np.isnan(control))
        return control if both and both >= _MOSTLY * int(np.count_nonzero(known)) else None

    @cached_property
    def judged(self) -> np.ndarray:
        """Logarithms that are judged."""
        control = self.of_control
        return self.own if control is None else self.own - control

    def is_of_control(self, before: np.ndarray, after: np.ndarray) -> bool:
        """Whether it is the control that changes between values at such places, and the series does not."""
        control = self.of_control
        if control is None:
            return False
        own, other = (float(np.nanmedian(logs[after]) - np.nanmedian(logs[before])) for logs in (self.own, control))
        spread = max(PROCESS_SPREAD, rough_spread(control))
        variance = 2 * spread**2 * (1 / len(before) + 1 / len(after))
        moves = own * math.copysign(1.0, own - other) > 2 * math.sqrt(variance)
        return not moves and (other**2 - own**2) / (2 * variance) > _SURE_OF_CONTROL

    @cached_property
    def kind(self) -> Kind:
        """Whether it is over something measured in turns with it, and its family: series that scatter alike."""
        return self.is_ratio or self.of_control is not None, self.family


def segments_of(kinds: Sequence[Kind], logs: Sequence[np.ndarray]) -> list[Segments]:
    """Each series in segments, as its kind's noise has them."""
    noise = _noise(kinds, logs)
    rough = [Segments(each, noise[kind]) for each, kind in zip(logs, kinds, strict=True)]
    stickiness = _stickiness(kinds, logs, [each.levels(_SURE) for each in rough])
    if not any(each.held for each in stickiness.values()):
        return rough
    noise = _noise(kinds, logs, stickiness)
    return [Segments(each, noise[kind]) for each, kind in zip(logs, kinds, strict=True)]


def _places(kinds: Sequence[Kind], paired: bool) -> dict[Hashable, list[int]]:
    """Places of series by family."""
    found: dict[Hashable, list[int]] = {}
    for place, (is_paired, family) in enumerate(kinds):
        if is_paired is paired:
            found.setdefault(family, []).append(place)
    return found


def _noise(
    kinds: Sequence[Kind], logs: Sequence[np.ndarray], stickiness: dict[bool, Stickiness] | None = None
) -> dict[Kind, Noise]:
    """How each kind scatters; a small family is like all others."""
    noise = {}
    for paired in (True, False):
        families = _places(kinds, paired)
        of_all = family_prior(logs[place] for places in families.values() for place in places)
        for family, places in families.items():
            own = [logs[place] for place in places]
            prior = family_prior(own)
            noise[paired, family] = Noise(
                prior if prior.degrees else of_all,
                stickiness[paired] if stickiness else Stickiness(),
                PAIRED_SPREAD if paired else PROCESS_SPREAD,
                _off_neighbours(own),
            )
    return noise


def _off_neighbours(logs: Iterable[np.ndarray]) -> np.ndarray:
    """How far all values lie off those around them, in spreads of their series."""
    known = [(each[~np.isnan(each)], rough_spread(each)) for each in logs]
    return np.concatenate([off_neighbours(each) / spread for each, spread in known if spread] or [np.empty(0)])


def _stickiness(
    kinds: Sequence[Kind], logs: Sequence[np.ndarray], levels: Sequence[np.ndarray]
) -> dict[bool, Stickiness]:
    """How values that are over a control stay off, and how others do."""
    return {
        paired: stickiness_of(
            [logs[place] - levels[place] for places in _places(kinds, paired).values() for place in places]
        )
        for paired in (True, False)
    }


def has_cells(series: Sequence[Measured]) -> bool:
    """Whether any series have a control in common: so many that they tell its noise from their own."""
    return bool(_cells(series))


def _cells(series: Sequence[Measured]) -> list[list[int]]:
    """Places of series that have a control in common."""
    cells: dict[Hashable, list[int]] = {}
    for place, each in enumerate(series):
        if each.cell is not None and each.kind[0]:
            cells.setdefault((each.family, each.cell), []).append(place)
    return [places for places in cells.values() if len(places) >= FEWEST_SERIES]


def without_noise_of_control(
    series: Sequence[Measured],
    logs: Sequence[np.ndarray],
    levels: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """The logarithms without what all series of a cell have at a commit beside their levels: it is their control's."""
    found = list(logs)
    for places in _cells(series):
        shared = _of_control(np.array([logs[place] - levels[place] for place in places]))
        for place, of_control in zip(places, shared, strict=True):
            found[place] = logs[place] - of_control
    return found


def _of_control(off: np.ndarray) -> np.ndarray:
    """Of each series of a cell its control's noise: what the others share, less what few share by chance.

    The series itself has no part in it, or a step that is not found yet would be taken for noise.
    """
    number = len(off)
    known = np.count_nonzero(~np.isnan(off), axis=0) >= FEWEST_SERIES
    others = off[np.array([[row for row in range(number) if row != own] for own in range(number)])]
    shared = np.where(known, np.nan_to_num(medians(others)), 0.0)
    if known.any():
        around = (off - medians(off))[:, known]
        # The median of few is drawn towards each of them.
        own = normal_deviation(around[~np.isnan(around)]) ** 2 * number / (number - 1)
        shared *= np.array([[_share_of_control(each[known], own / (number - 1))] for each in shared])
    return shared


def _share_of_control(shared: np.ndarray, own: float) -> float:
    """How much of it is not what the median of a few series has by chance."""
    seen = normal_deviation(shared) ** 2
    return max(0.0, 1 - math.pi / 2 * own / seen) if seen else 0.0
