"""Upper bounds for every pool: the lookups that unlimited pools answer, and Belady's bound at a given size."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kvbench.replay.hierarchy import Hierarchy
from kvbench.trace.steps import Step
from kvcache import Scope

__all__ = ["Future"]

Span = tuple[int, int]  # from a request that leaves an entry in the pool to the lookup that it answers


@dataclass
class _Pool:
    """Requests of one unlimited pool."""

    since: dict[int, int] = field(default_factory=dict)  # when each key's entry was last needed or stored
    spans: list[Span] = field(default_factory=list)  # over which an entry must be kept for one lookup
    most: int = 0  # entries that it ever held at once


class Future:
    """All requests of a trace, known in advance.

    Args:
        steps: of the trace.
        pool: the kind whose size varies, ``"init"`` or ``"recur"``; the other is unlimited.

    Attributes:
        lookups: of the trace; rows that begin empty make none.
        found: lookups that unlimited pools answer.
        most_entries: of one pool of the kind at a time: with that many slots nothing is ever evicted.
    """

    def __init__(self, steps: Iterable[Step], pool: str) -> None:
        self._kind = pool
        self._answered = 0  # lookups that the other kind of pool answers, however large this kind is
        self._pools: list[_Pool] = []  # of the kind
        self._hierarchy = Hierarchy(self._make)
        self.lookups = 0
        now = 0
        for step in steps:
            for env, key in zip(step.envs, step.parents, strict=True):
                if key is not None:
                    self.lookups += 1
                    self._lookup(now, step.scope, env, key)
                now += 1
            for env, key in zip(step.envs, step.keys, strict=False):
                written = self._hierarchy.written(env, step.scope)
                written.since[key] = now
                written.most = max(written.most, len(written.since))
                now += 1
            for cleared in self._hierarchy.cleared_by(step):
                cleared.since.clear()
        self.found = self._answered + sum(len(each.spans) for each in self._pools)
        self.most_entries = max((each.most for each in self._pools), default=0)

    def _make(self, kind: str) -> _Pool:
        pool = _Pool()
        if kind == self._kind:
            self._pools.append(pool)
        return pool

    def _lookup(self, now: int, scope: Scope, env: int, key: int) -> None:
        answering = [(kind, pool) for kind, pool in self._hierarchy.asked(env, scope) if key in pool.since]
        if [kind for kind, _ in answering] == [self._kind]:
            ((_, pool),) = answering
            pool.spans.append((pool.since[key], now))
            pool.since[key] = now
        elif answering:
            self._answered += 1

    def found_by_belady(self, capacity: int) -> int:
        """Lookups that can be answered when each pool of the kind holds at most ``capacity`` entries at a time.

        No policy finds more. Whenever there is one entry too many, the entry whose next lookup is the latest is
        evicted, even if it is the newest (Belady). After a failed lookup its entry counts as stored again.
        """
        return self._answered + sum(_most_kept(sorted(pool.spans), capacity) for pool in self._pools)


def _most_kept(spans: Sequence[Span], capacity: int) -> int:
    """The largest number of spans of which at most ``capacity`` overlap at a time; they are sorted by their starts."""
    kept: set[int] = set()
    by_end: list[Span] = []  # (end, number)
    by_last_end: list[Span] = []  # (-end, number)
    evicted = 0
    for number, (start, end) in enumerate(spans):
        while by_end and by_end[0][0] <= start:
            kept.discard(heapq.heappop(by_end)[1])
        kept.add(number)
        heapq.heappush(by_end, (end, number))
        heapq.heappush(by_last_end, (-end, number))
        if len(kept) > capacity:
            while (last := heapq.heappop(by_last_end)[1]) not in kept:
                pass
            kept.remove(last)
            evicted += 1
    return len(spans) - evicted
