"""What no pool of a size can do better than: Belady's rule over a trace's requests, and a pool without bounds.

Belady's rule is written out here: a trace stores before it looks up and a lookup that misses stores nothing, while the
simulators of caching libraries (libCacheSim) know one request, which looks up and inserts at once. Where the two mean
the same, the tests compare them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kvcache.backend import Scope
from kvcache.trace.steps import Step

__all__ = ["Bound", "Requests", "read_requests"]

_STORE, _LOOKUP = range(2)
_Request = tuple[int, int]  # (what, key)


@dataclass(frozen=True)
class Bound:
    """Lookups that find their own key, at best.

    Attributes:
        found: of ``lookups``; whether a key's history is the right one is not asked.
        lookups: of the whole trace, roots included.
    """

    found: int
    lookups: int

    @property
    def rate(self) -> float | None:
        """Found, % of lookups; None without any."""
        return 100 * self.found / self.lookups if self.lookups else None


class Requests:
    """What a trace asks of its recurrent pool once init pools, which are taken to be without bounds, have answered.

    Args:
        epochs: stores and lookups of the recurrent pool between two clears.
        by_init: lookups that init pools answer.
        lookups: all of them.
    """

    def __init__(self, epochs: list[list[_Request]], by_init: int, lookups: int) -> None:
        self._epochs = epochs
        self._by_init = by_init
        self._lookups = lookups

    def unbounded(self) -> Bound:
        """Of a recurrent pool that never evicts."""
        return Bound(self._by_init + sum(_unbounded(epoch) for epoch in self._epochs), self._lookups)

    def belady(self, slots: int) -> Bound:
        """Of the best pool of so many entries, which knows the future.

        It keeps what is looked up soonest, and may refuse an entry, or take one in again after a miss, at no cost: no
        real pool of that size finds more.
        """
        return Bound(self._by_init + sum(_belady(epoch, slots) for epoch in self._epochs), self._lookups)


def read_requests(steps: Iterable[Step]) -> Requests:
    """The requests of a trace's steps."""
    epochs: list[list[_Request]] = [[]]
    init: dict[int, set[int]] = {}
    by_init = lookups = 0
    for step in steps:
        for env, parent in zip(step.envs, step.parents, strict=True):
            if parent is None:
                continue
            lookups += 1
            if parent in init.get(env, ()):
                by_init += 1
            elif step.scope is Scope.NODE:
                epochs[-1].append((_LOOKUP, parent))
        for env, key in zip(step.envs, step.keys, strict=False):  # a batch that stores nothing has no keys
            if step.scope is Scope.ROOT:
                init.setdefault(env, set()).add(key)
            else:
                epochs[-1].append((_STORE, key))
        if {"init", "all"} & set(step.clears):
            init.clear()
        if {"recur", "all"} & set(step.clears) and epochs[-1]:
            epochs.append([])
    return Requests(epochs, by_init, lookups)


def _unbounded(epoch: list[_Request]) -> int:
    stored: set[int] = set()
    found = 0
    for what, key in epoch:
        if what == _STORE:
            stored.add(key)
        else:
            found += key in stored
    return found


def _belady(epoch: list[_Request], slots: int) -> int:
    """Each stretch from a request of a key to its next lookup is worth one find; at most ``slots`` are kept at a time.

    Keeping those that end soonest keeps the most of them.
    """
    found = 0
    kept: set[int] = set()  # by the place of the lookup that each is kept for
    latest: list[int] = []  # heap of the same, furthest first
    for place, following in enumerate(_next_lookups(epoch)):
        if place in kept:
            kept.remove(place)
            found += 1
        if following is not None:
            kept.add(following)
            heapq.heappush(latest, -following)
            if len(kept) > slots:
                # What was found lies before this place: the furthest is one that is still kept.
                kept.remove(-heapq.heappop(latest))
    return found


def _next_lookups(epoch: list[_Request]) -> Iterator[int | None]:
    """For each request the place of the lookup that finds its key next; None where a store of the key comes first.

    A lookup of a key that was never stored starts nothing.
    """
    following: list[int | None] = [None] * len(epoch)
    last: dict[int, int] = {}
    for place, (what, key) in enumerate(epoch):
        before = last.get(key)
        if what == _LOOKUP:
            if before is None:
                continue
            following[before] = place
        last[key] = place
    return iter(following)
