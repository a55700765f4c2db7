"""Entries and bytes of the pools during a replay, and outcomes by place in the search."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from kvbench.replay.outcomes import Outcome, by_name
from kvbench.trace.steps import Step
from kvcache import CacheBackend

__all__ = ["Timeline"]

MOST_SAMPLES = 400


class Timeline:
    """Filled while a checked pass goes on (``verify_replay``); no timed pass has one.

    Args:
        steps: of the whole replay. Pools are looked at after every n-th of them, at most ``MOST_SAMPLES`` times.
    """

    def __init__(self, steps: int) -> None:
        self._every = -(-steps // MOST_SAMPLES) or 1
        self._done = 0
        self._steps: list[int] = []
        self._entries: defaultdict[str, list[int]] = defaultdict(list)
        self._bytes: defaultdict[str, list[int]] = defaultdict(list)
        self._by_simulation: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)
        self._by_depth: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)

    def add(self, backend: CacheBackend, step: Step, outcomes: Iterable[Outcome]) -> None:
        """A step is done; ``outcomes`` of its lookups, in the order of its rows."""
        self.sample(backend)
        self.count(step, outcomes)

    def sample(self, backend: CacheBackend) -> None:
        """A step is done: look at the pools, if it is time."""
        self._done += 1
        if self._done % self._every == 0:
            self._steps.append(self._done)
            self._entries["init"].append(sum(len(pool) for pool in backend.init_pools))
            self._entries["recur"].append(len(backend.recur_pool))
            for pool, reserved in backend.bytes_reserved.items():
                self._bytes[pool].append(reserved)

    def count(self, step: Step, outcomes: Iterable[Outcome]) -> None:
        """Count a step's lookups where they belong."""
        rows = zip(step.simulations, step.depths, step.parents, strict=True)
        asked = [(simulation, depth) for simulation, depth, parent in rows if parent is not None]
        for (simulation, depth), outcome in zip(asked, outcomes, strict=True):
            self._by_simulation[simulation][outcome] += 1
            if step.is_recurrent:
                self._by_depth[depth][outcome] += 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it.

        ``steps``: how many were done at each sample, the root's among them. ``entries`` and ``bytes_reserved``: by
        pool, a number each sample. ``by_simulation`` and ``by_depth``: rows of counts by outcome; the simulation of a
        root is -1, the depth is the looked-up child's and only of recurrent lookups.
        """
        places = {"simulation": self._by_simulation, "depth": self._by_depth}
        return {
            "steps": self._steps,
            "entries": dict(self._entries),
            "bytes_reserved": dict(self._bytes),
            **{
                f"by_{axis}": [{axis: place, **by_name(counts)} for place, counts in sorted(found.items())]
                for axis, found in places.items()
            },
        }
