"""Belady's bound that forgives no lost history: the lookups that can find the right context in pools of a given size.

The loose bound of ``kvbench.capacity.bounds`` has an entry again after its miss. No real pool does: a model makes a
context anew after a miss, of the latent alone, and all that is stored below it has another history. Here a lookup
counts only if it finds the context that the recorded search had there. So it needs every entry on its path: each held
from its store to the lookup that extended it.

These are inequalities. Let ``x`` of a span be 1 if the span's entry is held over it, and else 0. No span is held unless
the one before it is (of the same entry, or the one that made the entry), and at no time are more spans held than there
are slots. The largest number of right lookups is a linear programme. Its value is the bound: fractions are allowed, so
it may only be too high. In all recorded searches that we tried, the solution is whole (``benchmarks/policies.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from kvbench.replay.content import NO_CONTEXT, extend_context, generated_context
from kvbench.replay.hierarchy import Hierarchy
from kvbench.replay.outcomes import RecordedContexts
from kvbench.trace.steps import Step

__all__ = ["Block", "StrictFuture", "whole_lookups"]

_ALMOST = 1e-6  # what a solver's rounding may take from a whole number
_NO_SPAN = -1


@dataclass(slots=True)
class _Version:
    """What unlimited pools hold under a key, from one store to the next.

    Attributes:
        pool: the number of the pool if its size varies, else ``None``.
        context: that it has if nothing was ever lost.
        others: contexts that it may have instead, after a loss: made anew somewhere on its path.
        needs: the span without which its context is another one.
        since: when it was stored or last looked up.
    """

    pool: int | None
    context: int
    others: frozenset[int]
    needs: int
    since: int


@dataclass
class Block:
    """Spans that depend on no others: those of one search, where pools are cleared between searches.

    Attributes:
        pools: of each span; ``_NO_SPAN`` where it takes no slot.
        starts: of each span, from the request that left the entry in the pool.
        ends: of each, at the lookup that it answers.
        before: the span that it needs, or ``_NO_SPAN``.
        right: whether the lookup at its end finds the recorded context.
        given: right lookups that need no span.
    """

    pools: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    given: int = 0

    def add(self, pool: int | None, start: int, end: int, before: int, right: bool) -> int:
        """Add a span and return its number."""
        self.pools.append(_NO_SPAN if pool is None else pool)
        self.starts.append(start)
        self.ends.append(end)
        self.before.append(before)
        self.right.append(right)
        return len(self.starts) - 1

    def most_right(self, capacity: int) -> float:
        """The linear programme's value."""
        full = list(self._overlapping(capacity))
        if not full:
            return self.given + sum(self.right)
        needing = [number for number, before in enumerate(self.before) if before != _NO_SPAN]
        # A row of the matrix for each time that is too full, and one for each span that needs another.
        columns = np.concatenate([*full, needing, [self.before[number] for number in needing]]).astype(int)
        needs = np.arange(len(full), len(full) + len(needing))
        rows = np.concatenate([np.repeat(np.arange(len(full)), [len(spans) for spans in full]), needs, needs])
        values = np.ones(len(columns))
        values[len(columns) - len(needing) :] = -1
        matrix = coo_array((values, (rows, columns)), (len(full) + len(needing), len(self.starts))).tocsr()
        limits = np.repeat([capacity, 0], [len(full), len(needing)])
        solved = linprog(-np.array(self.right, dtype=float), matrix, limits, bounds=(0, 1), method="highs")
        assert solved.success, solved.message  # to hold nothing is a solution
        return self.given - float(solved.fun)

    def _overlapping(self, capacity: int) -> Iterator[np.ndarray]:
        """The spans that overlap when one begins, wherever they are more than slots."""
        pools, starts, ends = (np.array(each) for each in (self.pools, self.starts, self.ends))
        for pool, start in sorted({*zip(self.pools, self.starts, strict=True)}):
            spans = np.flatnonzero((pools == pool) & (starts <= start) & (ends > start))
            if pool != _NO_SPAN and len(spans) > capacity:
                yield spans


class StrictFuture:
    """All requests of a trace, known in advance, with the history of each context.

    Args:
        steps: of the trace.
        pool: the kind whose size varies, ``"init"`` or ``"recur"``; the other is unlimited.
        reach: as in ``RecordedContexts``.

    Attributes:
        blocks: of the steps; to the last one more are added.
        right: lookups that find the recorded context in unlimited pools, or could after a loss.
    """

    def __init__(self, steps: Iterable[Step], pool: str, reach: int | None = None) -> None:
        self._kind = pool
        self._pools = 0  # of the kind
        self._hierarchy: Hierarchy[tuple[int | None, dict[int, _Version]]] = Hierarchy(self._make)
        self._recorded = RecordedContexts(reach)
        self.blocks = [Block()]
        self._now = 0
        for step in steps:
            self.follow(step)

    @property
    def right(self) -> int:
        """As above."""
        return sum(block.given + sum(block.right) for block in self.blocks)

    def _make(self, kind: str) -> tuple[int | None, dict[int, _Version]]:
        number = None
        if kind == self._kind:
            number, self._pools = self._pools, self._pools + 1
        return number, {}

    def follow(self, step: Step) -> None:
        """Make the requests of the next step."""
        made = [self._lookup(step, row) for row in range(len(step.envs))]
        self._recorded.store(step)
        for env, key, (context, others, needs) in zip(step.envs, step.keys, made, strict=False):
            number, entries = self._hierarchy.written(env, step.scope)
            extended = frozenset(extend_context(other, key) for other in others)
            entries[key] = _Version(number, extend_context(context, key), extended, needs, self._now)
            self._now += 1
        for _, entries in self._hierarchy.cleared_by(step):
            entries.clear()
        if self._kind == "recur" and {"recur", "all"}.intersection(step.clears) and self.blocks[-1].starts:
            self.blocks.append(Block())

    def _lookup(self, step: Step, row: int) -> tuple[int, frozenset[int], int]:
        """The context that a row extends, those that it may extend instead, and the span that the first one needs."""
        key, env = step.parents[row], step.envs[row]
        if key is None:
            return NO_CONTEXT, frozenset(), _NO_SPAN
        now, self._now = self._now, self._now + 1
        wanted, anew = self._recorded.wanted(step, row), generated_context(key)
        asked = [entries[key] for _, (_, entries) in self._hierarchy.asked(env, step.scope) if key in entries]
        if not asked:
            return anew, frozenset(), _NO_SPAN
        context = asked[0].context
        others = frozenset().union(*(each.others for each in asked), (each.context for each in asked[1:])) - {context}
        if wanted in others or (len(asked) > 1 and wanted == context):
            self.blocks[-1].given += 1  # which entries it needs is not followed further
        span = self._span(asked[0], now, wanted == context) if len(asked) == 1 else _NO_SPAN
        can_miss = all(each.pool is not None for each in asked)
        return context, others | {anew} if can_miss else others, span

    def _span(self, version: _Version, now: int, right: bool) -> int:
        """Add the span that a lookup of a version needs, if it needs one; its number."""
        block = self.blocks[-1]
        if version.pool is not None:
            version.needs = block.add(version.pool, version.since, now, version.needs, right)
            version.since = now
        elif version.needs != _NO_SPAN:
            return block.add(None, now, now, version.needs, right)
        else:
            block.given += right
        return version.needs

    def found_by_belady(self, capacity: int) -> int:
        """Right lookups that can be had when each pool of the kind holds at most ``capacity`` entries at a time.

        No policy has more, and none forgives: an entry that was evicted, or never admitted, is gone until its key is
        stored again, and what is stored after a miss has another history.
        """
        return whole_lookups(sum(block.most_right(capacity) for block in self.blocks))


def whole_lookups(value: float) -> int:
    """The lookups that a sum of programmes' values stands for."""
    return math.floor(value + _ALMOST)
