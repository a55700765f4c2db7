"""The outcome of a lookup: one judge for checked replays and for capacity curves."""

from __future__ import annotations

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
    """The contexts of the recorded search, followed step by step."""

    def __init__(self) -> None:
        self._stored = array("Q")  # by row of the trace: the new context of a store event, else NO_CONTEXT

    def wanted(self, step: Step, row: int) -> int:
        """The context that the row's lookup asks for; ``NO_CONTEXT`` where a row starts empty."""
        key, node = step.parents[row], step.nodes[row]
        if key is None:
            return NO_CONTEXT
        return generated_context(key) if node is None else self._stored[node]

    def store(self, step: Step) -> None:
        """Follow the step's store events."""
        if not step.stores:
            return
        missing = max(step.stores) + 1 - len(self._stored)
        if missing > 0:
            self._stored.frombytes(bytes(missing * self._stored.itemsize))
        rows = zip(step.stores, step.keys, step.parents, step.nodes, step.recorded_hits, strict=False)
        for store, key, parent, node, hit in rows:
            if parent is None:
                before = NO_CONTEXT
            elif node is None or hit is False:  # the recorded run missed and its model made a new context
                before = generated_context(parent)
            else:
                before = self._stored[node]
            self._stored[store] = extend_context(before, key)


@dataclass
class Outcomes:
    """Outcomes of the lookups of one replay.

    Attributes:
        root: counts of initial inferences' lookups.
        node: of recurrent inferences'.
        by_lookup: in the order of the trace.
        disagreements: lookups whose hit or miss differs from the recorded run's.
        recorded: lookups for which the trace has the recorded run's hit or miss.
    """

    root: Counter[Outcome] = field(default_factory=Counter)
    node: Counter[Outcome] = field(default_factory=Counter)
    by_lookup: list[Outcome] = field(default_factory=list)
    disagreements: int = 0
    recorded: int = 0

    @property
    def total(self) -> Counter[Outcome]:
        return self.root + self.node

    def add(self, scope: Scope, outcome: Outcome, recorded_hit: bool | None) -> None:
        """Count one lookup; ``recorded_hit`` is None where the trace does not have it."""
        self.extend(scope, [outcome], [recorded_hit])

    def extend(self, scope: Scope, outcomes: Sequence[Outcome], recorded_hits: Sequence[bool | None]) -> None:
        """Count the lookups of one inference."""
        (self.root if scope is Scope.ROOT else self.node).update(outcomes)
        self.by_lookup.extend(outcomes)
        if recorded_hits.count(None) < len(recorded_hits):
            for outcome, recorded_hit in zip(outcomes, recorded_hits, strict=True):
                if recorded_hit is not None:
                    self.recorded += 1
                    # The recorded run, like a pool, takes whatever it finds for a hit.
                    self.disagreements += recorded_hit != (outcome is not Outcome.MISS)
