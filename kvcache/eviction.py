"""Which entry of a full pool is evicted: FIFO, LRU, PRIORITY."""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from enum import Enum

__all__ = ["DEFAULT_PRIORITY", "EvictionPolicy", "EvictionStrategy", "check_priority", "make_policy"]

DEFAULT_PRIORITY = 0.0


def check_priority(priority: float, where: str) -> None:
    """Raise TypeError or ValueError if entries cannot be ordered by ``priority``; ``where`` begins the message."""
    try:
        is_number = not math.isnan(priority)
    except (TypeError, OverflowError):
        raise TypeError(f"{where}: a priority must be a number that a float holds, got {priority!r:.40}") from None
    if not is_number:
        raise ValueError(f"{where}: a priority must not be NaN")


class EvictionStrategy(Enum):
    """Names of the policies, as configurations spell them."""

    FIFO = "fifo"
    LRU = "lru"
    PRIORITY = "priority"

    @classmethod
    def parse(cls, strategy: EvictionStrategy | str) -> EvictionStrategy:
        """The strategy of that name, in any case. Raises ValueError, naming the choices, for any other."""
        if isinstance(strategy, cls):
            return strategy
        try:
            return cls(str(strategy).lower())
        except ValueError:
            choices = ", ".join(member.value for member in cls)
            raise ValueError(f"unknown eviction strategy {strategy!r}: choose one of {choices}") from None


class EvictionPolicy(ABC):
    """The order in which occupied slots are evicted. It uses slot numbers, never keys or contents."""

    @abstractmethod
    def insert(self, slot: int, priority: float | None) -> None:
        """``slot`` has been given to a new key; ``priority`` None means ``DEFAULT_PRIORITY``."""

    def touch(self, slot: int) -> None:  # noqa: B027 - most policies ignore lookups
        """``slot`` has been looked up."""

    @abstractmethod
    def update(self, slot: int, priority: float | None) -> None:
        """The key in ``slot`` has been stored again; ``priority`` None keeps the old one."""

    @abstractmethod
    def remove(self, slot: int) -> None:
        """``slot`` is no longer occupied."""

    @abstractmethod
    def victim(self) -> int:
        """The slot to evict next. At least one slot is occupied."""

    @abstractmethod
    def clear(self) -> None:
        """All slots are free."""


class FifoPolicy(EvictionPolicy):
    """Evicts the oldest key first. Neither lookups nor updates make a key younger."""

    def __init__(self) -> None:
        # An OrderedDict rather than a dict: its oldest key is found in O(1) after any number of removals.
        self._order: OrderedDict[int, None] = OrderedDict()

    def insert(self, slot: int, priority: float | None) -> None:
        self._order[slot] = None

    def update(self, slot: int, priority: float | None) -> None:
        pass

    def remove(self, slot: int) -> None:
        del self._order[slot]

    def victim(self) -> int:
        return next(iter(self._order))

    def clear(self) -> None:
        self._order.clear()


class LruPolicy(FifoPolicy):
    """Evicts the key first that was neither looked up nor stored for the longest time."""

    def touch(self, slot: int) -> None:
        self._order.move_to_end(slot)

    def update(self, slot: int, priority: float | None) -> None:
        self._order.move_to_end(slot)


class PriorityPolicy(EvictionPolicy):
    """Evicts the lowest priority first, and the oldest key among equals.

    A heap with lazy deletion: a change of priority pushes a new record, and stale records are dropped when they come
    to the top. The heap is rebuilt when most records are stale, so every call is O(log n) amortised.
    """

    def __init__(self) -> None:
        self._current: dict[int, tuple[float, int]] = {}  # slot -> (priority, age)
        self._heap: list[tuple[float, int, int]] = []  # (priority, age, slot)
        self._next_age = 0

    def insert(self, slot: int, priority: float | None) -> None:
        self._push(slot, DEFAULT_PRIORITY if priority is None else priority, self._next_age)
        self._next_age += 1

    def update(self, slot: int, priority: float | None) -> None:
        old, age = self._current[slot]
        if priority is not None and priority != old:
            self._push(slot, priority, age)

    def remove(self, slot: int) -> None:
        del self._current[slot]

    def victim(self) -> int:
        while True:
            priority, age, slot = self._heap[0]
            if self._current.get(slot) == (priority, age):
                return slot
            heapq.heappop(self._heap)

    def clear(self) -> None:
        self._current.clear()
        self._heap.clear()

    def _push(self, slot: int, priority: float, age: int) -> None:
        self._current[slot] = (priority, age)
        if len(self._heap) > 2 * len(self._current):
            self._heap = [(p, a, s) for s, (p, a) in self._current.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (priority, age, slot))


_POLICIES: dict[EvictionStrategy, type[EvictionPolicy]] = {
    EvictionStrategy.FIFO: FifoPolicy,
    EvictionStrategy.LRU: LruPolicy,
    EvictionStrategy.PRIORITY: PriorityPolicy,
}


def make_policy(strategy: EvictionStrategy) -> EvictionPolicy:
    """A fresh policy for one pool."""
    return _POLICIES[strategy]()
