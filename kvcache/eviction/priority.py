"""The lowest priority first."""

from __future__ import annotations

import heapq

from kvcache.eviction.base import EvictionPolicy
from kvcache.eviction.entries import DEFAULT_PRIORITY, EntryInfo

__all__ = ["PriorityPolicy"]


class PriorityPolicy(EvictionPolicy):
    """Evicts the lowest priority first, and the oldest key among equals.

    A heap with lazy deletion: a change of priority pushes a new record, and stale records are dropped when they come
    to the top. The heap is rebuilt when most records are stale, so every call is O(log n) amortised.
    """

    sees_entries = False

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._current: dict[int, tuple[float, int]] = {}  # slot -> (priority, age)
        self._heap: list[tuple[float, int, int]] = []  # (priority, age, slot)
        self._next_age = 0

    def insert(self, slot: int, info: EntryInfo) -> None:
        self._push(slot, DEFAULT_PRIORITY if info.priority is None else info.priority, self._next_age)
        self._next_age += 1

    def update(self, slot: int, info: EntryInfo) -> None:
        old, age = self._current[slot]
        if info.priority is not None and info.priority != old:
            self._push(slot, info.priority, age)

    def remove(self, slot: int) -> None:
        del self._current[slot]

    def victim(self, incoming: EntryInfo) -> int:
        while True:
            priority, age, slot = self._heap[0]
            if self._current.get(slot) == (priority, age):
                return slot
            heapq.heappop(self._heap)

    def _push(self, slot: int, priority: float, age: int) -> None:
        self._current[slot] = (priority, age)
        if len(self._heap) > 2 * len(self._current):
            self._heap = [(p, a, s) for s, (p, a) in self._current.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (priority, age, slot))
