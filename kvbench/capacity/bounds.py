"""What no pool can surpass: the lookups that unlimited pools answer, and Belady's bound at a given size."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from kvbench.trace.steps import Step
from kvcache import Scope

__all__ = ["Future", "count_lookups"]

_INIT, _RECUR = "init", "recur"
_ONE_FOR_ALL = 0  # the recurrent pool, where init pools have their environment's number

Span = tuple[int, int]  # time of a request at which an entry is at hand, time of the lookup that it answers


def count_lookups(steps: Sequence[Step]) -> int:
    """How often a context is asked for: by roots and nodes, rows that begin empty aside."""
    return sum(parent is not None for step in steps for parent in step.parents)


class Future:
    """All requests of a trace, known beforehand.

    Args:
        steps: of the trace.
        pool: the kind whose size varies, ``"init"`` or ``"recur"``; the other is unlimited.

    Attributes:
        lookups: that ask for a context.
        found: those that unlimited pools answer.
    """

    def __init__(self, steps: Sequence[Step], pool: str) -> None:
        self._pool = pool
        self.lookups = count_lookups(steps)
        self._answered = 0  # lookups that the other kind of pool answers, however large this kind is
        self._spans: dict[int, list[Span]] = {}  # of each pool, over which an entry must be held for one lookup
        self._held: dict[str, dict[int, dict[int, int]]] = {_INIT: {}, _RECUR: {}}  # pool -> key -> at hand since
        now = 0
        for step in steps:
            for env, key in zip(step.envs, step.parents, strict=True):
                if key is not None:
                    self._lookup(now, step.scope, env, key)
                now += 1
            for env, key in zip(step.envs, step.keys, strict=False):
                kind, owner = (_INIT, env) if step.scope is Scope.ROOT else (_RECUR, _ONE_FOR_ALL)
                self._held[kind].setdefault(owner, {})[key] = now
                now += 1
            for scope in step.clears:
                for kind in (_INIT, _RECUR) if scope == "all" else (scope,):
                    self._held[kind].clear()
        self.found = self._answered + sum(map(len, self._spans.values()))

    def _lookup(self, now: int, scope: Scope, env: int, key: int) -> None:
        asked = {_INIT: env} if scope is Scope.ROOT else {_INIT: env, _RECUR: _ONE_FOR_ALL}
        answering = [kind for kind, owner in asked.items() if key in self._held[kind].get(owner, {})]
        if answering == [self._pool]:
            owner = asked[self._pool]
            held = self._held[self._pool][owner]
            self._spans.setdefault(owner, []).append((held[key], now))
            held[key] = now
        elif answering:
            self._answered += 1

    def found_by_belady(self, capacity: int) -> int:
        """Lookups that can be answered when each pool of the kind holds at most ``capacity`` entries at a time.

        No policy finds more: whenever an entry is one too many, the one that is asked for last of all is given up, be
        it the newest (Belady). After its lookup failed, an entry is taken to be at hand again.
        """
        return self._answered + sum(_most_held(sorted(spans), capacity) for spans in self._spans.values())


def _most_held(spans: Sequence[Span], capacity: int) -> int:
    """How many of the spans can be chosen so that at most ``capacity`` of them overlap; they stand by their starts."""
    standing: set[int] = set()
    by_end: list[Span] = []  # (end, number)
    by_last_end: list[Span] = []  # (-end, number)
    given_up = 0
    for number, (start, end) in enumerate(spans):
        while by_end and by_end[0][0] <= start:
            standing.discard(heapq.heappop(by_end)[1])
        standing.add(number)
        heapq.heappush(by_end, (end, number))
        heapq.heappush(by_last_end, (-end, number))
        if len(standing) > capacity:
            while (last := heapq.heappop(by_last_end)[1]) not in standing:
                pass
            standing.remove(last)
            given_up += 1
    return len(spans) - given_up
