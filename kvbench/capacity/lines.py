"""Lines of a curve: pools of one policy, of several sizes, that all get the requests of one pass over a trace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kvbench.capacity.bounds import Belady
from kvbench.capacity.strict import Block, StrictFuture, whole_lookups
from kvbench.capacity.symbols import PagedCache, PooledCache
from kvbench.replay.content import NO_CONTEXT, extend_context, generated_context
from kvbench.replay.outcomes import Outcome, RecordedContexts, judge
from kvbench.trace.steps import Step
from kvcache import Scope

__all__ = ["JUDGED", "SCOPES", "BoundLine", "CacheLine", "Counts", "Line", "StrictLine", "count_outcomes", "follow"]

SCOPES = (Scope.ROOT, Scope.NODE)
JUDGED = (Outcome.HIT, Outcome.CONTEXT_MISMATCH, Outcome.STALE_HIT, Outcome.MISS)

Counts = Mapping[Scope, Mapping[Outcome, int]]


class Line(ABC):
    """Pools of one policy, of several sizes."""

    @abstractmethod
    def follow(self, step: Step, recorded: RecordedContexts) -> None:
        """Make the requests of the next step; ``recorded`` has followed all before it."""

    @abstractmethod
    def counts(self) -> Sequence[Counts]:
        """The lookups so far at each size, by scope and outcome."""

    def table(self) -> np.ndarray:
        """``counts`` as ``[sizes, SCOPES, JUDGED]``."""
        rows = [[[counts[scope].get(each, 0) for each in JUDGED] for scope in SCOPES] for counts in self.counts()]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(SCOPES), len(JUDGED))


class CacheLine(Line):
    """One cache of symbols at each size."""

    def __init__(self, caches: Iterable[PooledCache | PagedCache]) -> None:
        self._caches = list(caches)
        self._counts = [{scope: Counter[Outcome]() for scope in SCOPES} for _ in self._caches]

    def follow(self, step: Step, recorded: RecordedContexts) -> None:
        wanted = [None if key is None else (key, recorded.wanted(step, row)) for row, key in enumerate(step.parents)]
        for cache, counts in zip(self._caches, self._counts, strict=True):
            outcomes, contexts = counts[step.scope], []
            for meant, found in zip(wanted, cache.lookup(step), strict=True):
                if meant is None:
                    contexts.append(NO_CONTEXT)
                else:
                    contexts.append(generated_context(meant[0]) if found is None else found[1])
                    outcomes[judge(meant, found)] += 1
            if step.keys:
                stored = [extend_context(context, key) for context, key in zip(contexts, step.keys, strict=True)]
                cache.store(step, stored)
            cache.clear(step)

    def counts(self) -> Sequence[Counts]:
        return self._counts


class BoundLine(Line):
    """A bound at each size: what it finds is a hit, whatever its history."""

    def __init__(self, belady: Belady, sizes: int, is_unbounded: bool) -> None:
        self._belady, self._sizes, self._is_unbounded = belady, sizes, is_unbounded

    def follow(self, step: Step, recorded: RecordedContexts) -> None:
        self._belady.follow(step)

    def counts(self) -> Sequence[Counts]:
        return [self._at(size) for size in range(self._sizes)]

    def _at(self, size: int) -> Counts:
        counts = {}
        for scope, lookups in self._belady.lookups.items():
            hits = self._belady.found[scope] if self._is_unbounded else self._belady.kept[scope][size]
            counts[scope] = {Outcome.HIT: hits, Outcome.MISS: lookups - hits}
        return counts


class StrictLine(Line):
    """The bound that forgives no lost history, at each size; a block of it is solved when it is over."""

    def __init__(self, pool: str, capacities: Sequence[int], reach: int | None = None) -> None:
        self._future = StrictFuture((), pool, reach)
        self._capacities = capacities
        self._found = [0.0] * len(capacities)  # in the blocks that are over
        self._root = 0  # right root lookups, where init pools are unlimited
        self._lookups = dict.fromkeys(SCOPES, 0)

    def follow(self, step: Step, recorded: RecordedContexts) -> None:
        blocks = self._future.blocks
        block, given = blocks[-1], blocks[-1].given
        self._future.follow(step)
        self._lookups[step.scope] += len(step.parents) - step.parents.count(None)
        self._root += (block.given - given) if step.scope is Scope.ROOT else 0
        while len(blocks) > 1:
            self._found = self._with(blocks.pop(0))

    def _with(self, block: Block) -> list[float]:
        sizes = zip(self._capacities, self._found, strict=True)
        return [found + block.most_right(capacity) for capacity, found in sizes]

    def counts(self) -> Sequence[Counts]:
        found = [whole_lookups(each) - self._root for each in self._with(self._future.blocks[-1])]
        return [
            {Scope.ROOT: self._of(Scope.ROOT, self._root), Scope.NODE: self._of(Scope.NODE, each)} for each in found
        ]

    def _of(self, scope: Scope, hits: int) -> Mapping[Outcome, int]:
        return {Outcome.HIT: hits, Outcome.MISS: self._lookups[scope] - hits}


def follow(steps: Iterable[Step], lines: Iterable[Line], reach: int | None = None) -> Iterable[Step]:
    """Let all lines follow the steps, each of which is handed on when they have."""
    recorded, lines = RecordedContexts(reach), list(lines)
    for step in steps:
        for line in lines:
            line.follow(step, recorded)
        recorded.store(step)
        yield step


def count_outcomes(steps: Iterable[Step], cache: PooledCache | PagedCache) -> Counter[Outcome]:
    """The outcomes of all lookups of a trace, as ``kvbench.replay.verify`` counts them."""
    line = CacheLine([cache])
    for _ in follow(steps, [line]):
        pass
    (counts,) = line.counts()
    return Counter(counts[Scope.ROOT]) + Counter(counts[Scope.NODE])
