"""Entries and bytes of the pools during a replay, and outcomes by place in the search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from kvbench.replay.outcomes import Outcome
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
        self._samples: list[tuple[int, dict[str, int], dict[str, int]]] = []
        self._by_simulation: dict[int, Counter[Outcome]] = {}
        self._by_depth: dict[int, Counter[Outcome]] = {}

    def add(self, backend: CacheBackend, step: Step, outcomes: Iterable[Outcome]) -> None:
        """A step is done; ``outcomes`` of its lookups, in the order of its rows."""
        self._done += 1
        if self._done % self._every == 0:
            entries = {"init": sum(len(pool) for pool in backend.init_pools), "recur": len(backend.recur_pool)}
            self._samples.append((self._done, entries, backend.bytes_reserved))
        asked = [depth for depth, parent in zip(step.depths, step.parents, strict=True) if parent is not None]
        for depth, outcome in zip(asked, outcomes, strict=True):
            self._by_simulation.setdefault(step.simulation, Counter())[outcome] += 1
            if step.is_recurrent:
                self._by_depth.setdefault(depth, Counter())[outcome] += 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it.

        Returns:
            ``steps`` (how many were done at each sample, the root's among them), ``entries`` and ``bytes_reserved``
            (by pool, a number each sample), ``by_simulation`` and ``by_depth`` (rows of counts by outcome; the
            simulation of a root is -1, the depth is the looked-up child's and only of recurrent lookups).
        """
        return {
            "steps": [done for done, _, _ in self._samples],
            "entries": _by_pool([entries for _, entries, _ in self._samples]),
            "bytes_reserved": _by_pool([reserved for _, _, reserved in self._samples]),
            "by_simulation": _rows("simulation", self._by_simulation),
            "by_depth": _rows("depth", self._by_depth),
        }


def _by_pool(samples: list[dict[str, int]]) -> dict[str, list[int]]:
    return {pool: [sample[pool] for sample in samples] for pool in (samples[0] if samples else ())}


def _rows(name: str, counts: dict[int, Counter[Outcome]]) -> list[dict[str, int]]:
    return [
        {name: number, **{outcome.value.replace(" ", "_"): found[outcome] for outcome in Outcome}}
        for number, found in sorted(counts.items())
    ]
