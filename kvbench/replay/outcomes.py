"""The outcome of a lookup: one judge for checked replays and for capacity curves."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from kvbench.replay.content import NO_CONTEXT, extend_context, generated_context
from kvbench.trace.steps import Step
from kvcache import Scope

__all__ = ["Entry", "Outcome", "Outcomes", "RecordedContexts", "by_name", "judge"]

Entry = tuple[int, int]  # (key, context)


class Outcome(Enum):
    """The outcome of a lookup."""

    HIT = "hit"  # the context that the recorded search had there
    MISS = "miss"
    STALE_HIT = "stale hit"  # another key's context
    CONTEXT_MISMATCH = "context mismatch"  # the right key's, with another history
    WRONG_CONTENT = "wrong content"  # nothing that was ever stored: damaged

    __hash__ = object.__hash__  # Enum's is several times as slow, and outcomes are counted for every lookup


_OUTCOMES = tuple(Outcome)
_PLACES = {outcome: place for place, outcome in enumerate(_OUTCOMES)}


def by_name(counts: Counter[Outcome]) -> dict[str, int]:
    """Every outcome's count, under its name in JSON."""
    return {outcome.value.replace(" ", "_"): counts[outcome] for outcome in Outcome}


def judge(wanted: Entry, found: Entry | None) -> Outcome:
    """The outcome of a lookup that found an undamaged entry, or None."""
    if found is None:
        return Outcome.MISS
    if found[0] != wanted[0]:
        return Outcome.STALE_HIT
    return Outcome.HIT if found == wanted else Outcome.CONTEXT_MISMATCH


class RecordedContexts:
    """The contexts of the recorded search, followed step by step.

    ``reach``: how many rows before its own the furthest node lies that a lookup means. So many contexts are kept; where
    it is not given, those of all rows.
    """

    def __init__(self, reach: int | None = None) -> None:
        # By row: the new context of a store event, else NO_CONTEXT. With a reach, the latest rows, in turns.
        self._stored = array("Q")
        self._kept = sys.maxsize if reach is None else max(reach, 1)

    def wanted(self, step: Step, row: int) -> int:
        """The context that the row's lookup asks for; ``NO_CONTEXT`` where a row starts empty."""
        key, node = step.parents[row], step.nodes[row]
        if key is None:
            return NO_CONTEXT
        return generated_context(key) if node is None else self._stored[node % self._kept]

    def store(self, step: Step) -> None:
        """Follow the step's store events."""
        if not step.stores:
            return
        missing = min(max(step.stores) + 1, self._kept) - len(self._stored)
        if missing > 0:
            self._stored.frombytes(bytes(missing * self._stored.itemsize))
        # All are read before one is written: with a reach, new rows take the places of old ones.
        before = [self._recorded(step, row) for row in range(len(step.keys))]
        for store, key, context in zip(step.stores, step.keys, before, strict=True):
            self._stored[store % self._kept] = extend_context(context, key)

    def _recorded(self, step: Step, row: int) -> int:
        """The context that the recorded run had in the row."""
        key, node = step.parents[row], step.nodes[row]
        if key is not None and (node is None or step.recorded_hits[row] is False):
            return generated_context(key)  # the recorded run missed, and its model made a new context
        return self.wanted(step, row)


@dataclass
class Outcomes:
    """Outcomes of the lookups of one replay.

    Attributes:
        root: counts of initial inferences' lookups.
        node: of recurrent inferences'.
        disagreements: lookups whose hit or miss differs from the recorded run's.
        recorded: lookups for which the trace has the recorded run's hit or miss.
    """

    root: Counter[Outcome] = field(default_factory=Counter)
    node: Counter[Outcome] = field(default_factory=Counter)
    disagreements: int = 0
    recorded: int = 0
    _by_lookup: bytearray = field(default_factory=bytearray)  # of each, its place in ``_OUTCOMES``

    @property
    def by_lookup(self) -> list[Outcome]:
        """In the order of the trace."""
        return [_OUTCOMES[place] for place in self._by_lookup]

    @property
    def total(self) -> Counter[Outcome]:
        return self.root + self.node

    def add(self, scope: Scope, outcome: Outcome, recorded_hit: bool | None) -> None:
        """Count one lookup; ``recorded_hit`` is None where the trace does not have it."""
        self.extend(scope, [outcome], [recorded_hit])

    def extend(self, scope: Scope, outcomes: Sequence[Outcome], recorded_hits: Sequence[bool | None]) -> None:
        """Count the lookups of one inference."""
        (self.root if scope is Scope.ROOT else self.node).update(outcomes)
        self._by_lookup.extend([_PLACES[each] for each in outcomes])
        if recorded_hits.count(None) < len(recorded_hits):
            for outcome, recorded_hit in zip(outcomes, recorded_hits, strict=True):
                if recorded_hit is not None:
                    self.recorded += 1
                    # The recorded run, like a pool, takes whatever it finds for a hit.
                    self.disagreements += recorded_hit != (outcome is not Outcome.MISS)
