"""In what environment each commit of a history was measured: values of two environments are no line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from kvbench.results.environment import Settings, difference, is_of_machine

__all__ = ["Environments"]


@dataclass(frozen=True)
class Environments:
    """Of one machine.

    Attributes:
        settings: each environment once, in the order of its first commit.
        places: of each of the machine's commits, which one it was measured in.
    """

    settings: tuple[Settings, ...]
    places: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, by_commit: Iterable[Settings]) -> Environments:
        """Of each commit's settings."""
        known: list[Settings] = []
        places = []
        for settings in by_commit:
            if settings not in known:
                known.append(settings)
            places.append(known.index(settings))
        return cls(tuple(known), np.array(places, dtype=int))

    def parts(self, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Each environment that has values, and those: NaN at the commits of others."""
        for place in range(len(self.settings)):
            own = np.where(self.places == place, values, np.nan)
            if not np.isnan(own).all():
                yield place, own

    def runs(self, values: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Environments in the order of the commits that have values, and the places of those."""
        known = np.flatnonzero(~np.isnan(values))
        if not len(known):
            return []
        starts = np.flatnonzero(np.diff(self.places[known])) + 1
        return [(int(self.places[run[0]]), run) for run in np.split(known, starts)]

    def borders(self) -> list[int]:
        """Places of commits at which another environment follows."""
        return [place for place, (one, other) in enumerate(pairwise(self.places), 1) if one != other]

    def change(self, before: int, after: int) -> str:
        """What changed from one commit to another, by their places; empty where nothing did."""
        return difference(self.settings[self.places[before]], self.settings[self.places[after]])

    def only_machine(self, before: int, after: int) -> bool:
        """Whether from one commit to another nothing changed but the machine."""
        return is_of_machine(self.settings[self.places[before]], self.settings[self.places[after]])
