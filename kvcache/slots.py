"""The slots of a pool: which key has which, which are free, and which is evicted next.

``_slots.c`` is the same in C for FIFO, LRU and PRIORITY, where it was compiled.
"""

from __future__ import annotations

from collections.abc import Hashable
from operator import itemgetter
from typing import Any, Protocol

from kvcache.eviction import (
    EntryInfo,
    EvictionPolicy,
    EvictionStrategy,
    FifoPolicy,
    LruPolicy,
    PriorityPolicy,
    make_policy,
)

try:
    from kvcache._slots import Slots as _Compiled
except ImportError:  # it could not be compiled
    _Compiled = None  # type: ignore[misc, assignment]

__all__ = ["PolicySlots", "Slots", "make_slots"]

_STRATEGIES = (EvictionStrategy.FIFO, EvictionStrategy.LRU, EvictionStrategy.PRIORITY)  # as numbered in _slots.c
_POLICIES = (FifoPolicy, LruPolicy, PriorityPolicy)

_UNKNOWN = EntryInfo()

Occupied = list[tuple[int, Any, int, "float | None"]]  # age, key, slot and priority of each


class Slots(Protocol):
    """Slots ``0..size - 1``. Free ones are given first: those that were evicted from, then the lowest unused one.

    Attributes:
        evicted: the key that was evicted last.
        unused: number of slots that no key had since the last clear.
        sees_entries: whether the order depends on what is known of an entry beside its key and priority.
    """

    sees_entries: bool

    @property
    def evicted(self) -> Any:
        """As above."""

    @property
    def unused(self) -> int:
        """As above."""

    def find(self, key: Hashable) -> int | None:
        """The slot of ``key``, or None. A use of the key, for LRU."""

    def peek(self, key: Hashable) -> int | None:
        """As ``find``, but no use of the key."""

    def claim(self, key: Hashable, priority: float | None, info: EntryInfo | None = None) -> int:
        """Give ``key`` a slot, which it keeps if it has one. Returns ``~slot`` where ``evicted`` lost it for that.

        ``info`` is all that is known, key and priority too; None is these two.
        """

    def evict(self, incoming: EntryInfo | None = None) -> int:
        """Free the slot that is evicted next, and return it. At least one is occupied.

        ``incoming`` is what it is evicted for, where that is known.
        """

    def clear(self) -> None:
        """Free all slots, in O(1). What they kept of former keys is freed by claims."""

    def keys(self) -> list[Any]:
        """All keys."""

    def free_slots(self) -> list[int]:
        """The free slots below the unused ones; the last is given first."""

    def restore(self, occupied: Occupied, free: list[int], unused: int) -> None:
        """Make fresh slots what others were, given their keys in order of age."""

    def __len__(self) -> int:
        """Number of keys."""


class PolicySlots:
    """``Slots`` in the order of a policy."""

    def __init__(self, strategy: EvictionStrategy, size: int) -> None:
        self._size = size
        self._owners: list[Hashable | None] = [None] * size
        self.evicted: Hashable | None = None
        self._former: Any = None
        self._start_anew(make_policy(strategy, size))
        self.sees_entries = self._policy.sees_entries

    def _start_anew(self, policy: EvictionPolicy) -> None:
        self._slots: dict[Hashable, int] = {}
        self._policy = policy
        self._free: list[int] = []
        self.unused = self._size

    def find(self, key: Hashable) -> int | None:
        slot = self._slots.get(key)
        if slot is None:
            self._policy.miss(key)
        else:
            self._policy.touch(slot)
        return slot

    def peek(self, key: Hashable) -> int | None:
        return self._slots.get(key)

    def claim(self, key: Hashable, priority: float | None, info: EntryInfo | None = None) -> int:
        if info is None:
            info = EntryInfo(key, priority)
        slot = self._slots.get(key)
        if slot is not None:
            self._policy.update(slot, info)
            return slot
        evicts = False
        if self._free:
            slot = self._free.pop()
        elif self.unused:
            if self.unused == self._size:
                self._former = None
            slot = self._size - self.unused
            self.unused -= 1
        else:
            evicts, slot = True, self._take_victim(info)
        self._slots[key] = slot
        self._owners[slot] = key
        self._policy.insert(slot, info)
        return ~slot if evicts else slot

    def evict(self, incoming: EntryInfo | None = None) -> int:
        slot = self._take_victim(_UNKNOWN if incoming is None else incoming)
        self._free.append(slot)
        return slot

    def _take_victim(self, incoming: EntryInfo) -> int:
        """Take the slot that is evicted next from its key."""
        slot = self._policy.victim(incoming)
        self.evicted = self._owners[slot]
        del self._slots[self.evicted]
        self._policy.remove(slot)
        return slot

    def clear(self) -> None:
        if self.unused < self._size:
            # Kept until the next claim: to free it takes as long as it is large.
            self._former = self._slots, self._policy, self._free
            self._start_anew(self._policy.successor())

    def keys(self) -> list[Hashable]:
        return list(self._slots)

    def free_slots(self) -> list[int]:
        return self._free.copy()

    def restore(self, occupied: Occupied, free: list[int], unused: int) -> None:
        self._free, self.unused = free.copy(), unused
        for _, key, slot, priority in occupied:
            self._slots[key] = slot
            self._owners[slot] = key
            self._policy.insert(slot, EntryInfo(key, priority))

    def __len__(self) -> int:
        return len(self._slots)


def make_slots(strategy: EvictionStrategy, size: int) -> Slots:
    """That many slots, in the order of a strategy."""
    policy = type(make_policy(strategy, size))
    if _Compiled is None or policy not in _POLICIES:
        return PolicySlots(strategy, size)
    return CompiledSlots(_POLICIES.index(policy), size)


def _restored(strategy: EvictionStrategy, size: int, *state: Any) -> Slots:
    slots = make_slots(strategy, size)
    slots.restore(*state)
    return slots


if _Compiled is not None:

    class CompiledSlots(_Compiled):
        """Slots in C, with a copy that does not need them."""

        __slots__ = ()
        sees_entries = False

        def __reduce__(self) -> tuple[Any, ...]:
            occupied = sorted(self.occupied(), key=itemgetter(0))
            return _restored, (_STRATEGIES[self.kind], self.size, occupied, self.free_slots(), self.unused)
