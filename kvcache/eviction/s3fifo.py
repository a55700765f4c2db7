"""S3-FIFO: a small queue lets in what is used again soon, a main queue keeps it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from kvcache.eviction.base import EvictionPolicy
from kvcache.eviction.entries import EntryInfo

__all__ = ["S3FifoPolicy"]

# Of a small queue, as one over its share of the entries; of the ghost queue, as tenths of the slots.
_SMALL, _GHOSTS = 10, 9
_USES_TO_STAY = 2
_MOST_USES = 3


class S3FifoPolicy(EvictionPolicy):
    """Three queues, each first in, first out (Yang et al. 2023, "FIFO queues are all you need for cache eviction").

    New keys go into the small queue, which gets a tenth of the entries. What was used twice when it comes out goes
    into the main queue; the rest is evicted, and its key goes into the ghost queue. A key that is stored again while it
    is there goes into the main queue. What comes out of that one goes in again once for each of its last three uses,
    and is evicted when none is left. Lookups and updates are uses.

    Before anything is evicted the main queue takes what the small one has no room for, as in libCacheSim, by the same
    authors. All queues are counted in entries, also where bytes are limited.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        # Uses of each slot's key, slot by slot, oldest first.
        self._small: OrderedDict[int, int] = OrderedDict()
        self._main: OrderedDict[int, int] = OrderedDict()
        self._keys: dict[int, Hashable] = {}  # of the small queue's slots
        self._ghosts: OrderedDict[Hashable, None] = OrderedDict()
        self._has_evicted = False
        self._returning: set[Hashable] = set()  # the ghost that is about to be stored

    def insert(self, slot: int, info: EntryInfo) -> None:
        self._recall(info.key)
        has_no_room = not self._has_evicted and len(self._small) >= _tenth(self._size)
        if info.key in self._returning or has_no_room:
            self._main[slot] = 0
        else:
            self._small[slot] = 0
            self._keys[slot] = info.key
        self._returning.clear()

    def touch(self, slot: int) -> None:
        queue = self._small if slot in self._small else self._main
        queue[slot] = min(queue[slot] + 1, _MOST_USES)

    def update(self, slot: int, info: EntryInfo) -> None:
        self.touch(slot)

    def remove(self, slot: int) -> None:
        if self._main.pop(slot, None) is not None:
            return
        del self._small[slot]
        most = _GHOSTS * self._size // 10
        if most:
            if len(self._ghosts) == most:
                self._ghosts.popitem(last=False)
            self._ghosts[self._keys.pop(slot)] = None

    def victim(self, incoming: EntryInfo) -> int:
        self._recall(incoming.key)
        self._has_evicted = True
        held = len(self._small) + len(self._main)
        if self._small and len(self._main) <= held - _tenth(held):
            slot = self._next_of_small()
            if slot is not None:
                return slot
        return self._next_of_main()

    def _recall(self, key: Hashable) -> None:
        """Take a key that is about to be stored out of the ghost queue, which evictions for it would take it out of."""
        if key in self._ghosts:
            del self._ghosts[key]
            self._returning.add(key)

    def _next_of_small(self) -> int | None:
        """The next slot to evict; what comes out before goes into the main queue. None where all of it does."""
        while self._small:
            slot, uses = next(iter(self._small.items()))
            if uses < _USES_TO_STAY:
                return slot
            del self._small[slot], self._keys[slot]
            self._main[slot] = 0
        return None

    def _next_of_main(self) -> int:
        """The next slot to evict; what comes out before goes in again."""
        while True:
            slot, uses = next(iter(self._main.items()))
            if not uses:
                return slot
            self._main[slot] = uses - 1
            self._main.move_to_end(slot)


def _tenth(entries: int) -> int:
    return max(1, entries // _SMALL)
