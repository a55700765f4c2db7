"""A pool: a fixed number of slots, the key that owns each, and eviction when none is free."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from typing import Any

from torch import Tensor

from kvcache.eviction import EvictionStrategy, check_priority, make_policy
from kvcache.geometry import is_whole
from kvcache.integrity import Integrity
from kvcache.stats import CacheStats
from kvcache.storage import DEFAULT_STORAGE, EntrySpec, Storage, make_storage

__all__ = ["KVCachePool"]

_log = logging.getLogger(__name__)


class KVCachePool:
    """Entries by key, at most ``pool_size`` of them.

    A key owns at most one slot, and a slot belongs to at most one key. So an entry found under a key was stored under
    it. With the default storage entries are copied in and out.

    Args:
        pool_size: number of slots.
        eviction_strategy: which entry is evicted when the pool is full.
        enable_stats: whether lookups and evictions are counted in ``stats``.
        name: of the pool in errors, logs and reports.
        storage: a name from ``kvcache.storage.STORAGES``, or a storage with ``pool_size`` slots.
        spec: of all entries; None takes that of the first one.

    Raises:
        ValueError: ``pool_size`` is not a positive integer; an unknown strategy or storage.
    """

    def __init__(
        self,
        pool_size: int,
        eviction_strategy: EvictionStrategy | str = EvictionStrategy.FIFO,
        enable_stats: bool = True,
        name: str = "default",
        *,
        storage: str | Storage = DEFAULT_STORAGE,
        spec: EntrySpec | None = None,
    ) -> None:
        if not is_whole(pool_size) or pool_size <= 0:
            raise ValueError(f"pool {name!r}: pool_size must be a positive integer, got {pool_size!r}")
        self.pool_size = pool_size = int(pool_size)
        self.eviction_strategy = EvictionStrategy.parse(eviction_strategy)
        self.name = name
        self.stats_enabled = enable_stats
        self.stats = CacheStats()
        self.storage = make_storage(storage, pool_size, spec) if isinstance(storage, str) else storage
        self.join(Integrity())
        self.writes = 0  # claims and clears so far: after one, a slot found before may be another key's
        self._policy = make_policy(self.eviction_strategy)
        self._slots: dict[Hashable, int] = {}
        self._owners: list[Hashable | None] = [None] * pool_size
        # After every clear the lowest slots are used first, so the same memory is used again.
        self._all_slots = list(range(pool_size - 1, -1, -1))
        self._free = self._all_slots.copy()

    def join(self, integrity: Integrity) -> None:
        """Share the fate of the pools that share the storage's memory."""
        self.integrity = integrity
        integrity.members.append(self)

    def get(self, key: Hashable) -> Any | None:
        """The value stored under ``key``, or None. Counts one query."""
        self.integrity.take()
        slot = self.find(key)
        return None if slot is None else self.storage.read(slot)

    def set(self, key: Hashable, value: Any, priority: float | None = None) -> int:
        """Store ``value`` under ``key`` and return its slot.

        A stored key keeps its slot. A new one takes a free slot, or that of an evicted entry.

        Args:
            key: any hashable.
            value: ``KeysValues`` of one row, or any object for ``storage="reference"``.
            priority: for PRIORITY, which evicts the lowest first; the other strategies ignore it. None is
                ``DEFAULT_PRIORITY`` for a new key and leaves a stored key's priority as it is.

        Raises:
            TypeError, ValueError: the value, key or priority cannot be stored. The pool is unchanged then. After any
                other error the next call empties the pool (see ``Integrity``).
        """
        integrity = self.integrity
        integrity.take()
        self.storage.check(value)
        self.check(key, priority)
        integrity.changing = True  # as ``begin`` does, which would check all of ``take`` again
        slot = self.claim(key, priority, getattr(value, "size", 0))
        self.storage.write(slot, value)
        integrity.changing = False
        return slot

    def find(self, key: Hashable) -> int | None:
        """The slot of ``key``, or None: ``get`` without the copy, for callers that have checked the integrity."""
        slot = self._slots.get(key)
        if slot is None:
            if self.stats_enabled:
                self.stats.count(0, 1)
            return None
        if self.stats_enabled:
            self.stats.count(1, 0)
        self._policy.touch(slot)
        return slot

    def save_tokens(
        self, key: Hashable, row: Tensor, first: int, count: int, shift: Tensor | None, priority: float | None = None
    ) -> int:
        """``set`` from a row of the batch, as a part of a change: the caller has checked everything and marks it.

        Arguments as in ``Storage.save_tokens``.
        """
        slot = self.claim(key, priority, count)
        self.storage.save_tokens(slot, row, first, count, shift)
        return slot

    def set_priority(self, key: Hashable, priority: float) -> None:
        """Change the priority of a stored key; its age stays.

        Raises:
            ValueError: the pool's strategy is not PRIORITY, or the priority is NaN.
            KeyError: the key is not stored.
        """
        if self.eviction_strategy is not EvictionStrategy.PRIORITY:
            raise ValueError(f"pool {self.name!r} evicts by {self.eviction_strategy.name}: it keeps no priorities")
        self.check(key, priority)
        slot = self._keys()[key]
        self.integrity.begin()
        self._policy.update(slot, priority)
        self.integrity.end()

    def clear(self) -> None:
        """Remove all keys. Slot memory and statistics stay."""
        self.integrity.begin()
        self.empty()
        self.integrity.end()

    def empty(self) -> None:
        """``clear`` as a part of a change, which the caller marks."""
        self.writes += 1
        self._slots.clear()
        self._policy.clear()
        self._free = self._all_slots.copy()
        self.storage.clear()

    def reset(self) -> None:
        """As in ``Member``."""
        self.writes += 1
        self._slots = {}
        self._owners = [None] * self.pool_size
        self._policy = make_policy(self.eviction_strategy)
        self._free = self._all_slots.copy()
        self.storage.reset()

    def _keys(self) -> dict[Hashable, int]:
        """The slot of each key."""
        self.integrity.check()
        return self._slots

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._keys())

    def __contains__(self, key: Hashable) -> bool:
        """Whether ``key`` is stored. Counts no query, and is no use of the entry for the eviction strategy."""
        return key in self._keys()

    def __iter__(self) -> Iterator[Hashable]:
        """The stored keys, in any order."""
        return iter(list(self._keys()))

    def __repr__(self) -> str:
        return (
            f"KVCachePool({self.name!r}, {len(self)}/{self.pool_size} entries, {self.eviction_strategy.name}, "
            f"{type(self.storage).__name__})"
        )

    @property
    def slots_allocated(self) -> int:
        """Allocations of memory for a slot since the pool was made."""
        self.integrity.check()
        return self.storage.slots_allocated

    @property
    def bytes_reserved(self) -> int:
        """Bytes of tensor memory that the pool holds."""
        self.integrity.check()
        return self.storage.bytes_reserved

    def claim(self, key: Hashable, priority: float | None = None, tokens: int = 0) -> int:
        """Give ``key`` a slot, which must then be written to: a part of a change.

        Args:
            key: as in ``set``.
            priority: as in ``set``.
            tokens: number of new tokens to be stored; entries are evicted where the storage has no room for them.
        """
        self.writes += 1
        if self.storage.is_limited:
            self.free_memory(key)
            while self.evict_for(tokens):
                pass
        slot = self._slots.get(key)
        if slot is not None:
            self._policy.update(slot, priority)
            return slot
        slot = self._free.pop() if self._free else self._evict()
        self._slots[key] = slot
        self._owners[slot] = key
        self._policy.insert(slot, priority)
        return slot

    def free_memory(self, key: Hashable) -> None:
        """Free the entry's memory but keep its slot; call ``claim`` next."""
        slot = self._slots.get(key)
        if slot is not None:
            self.storage.release(slot)

    def evict_for(self, tokens: int) -> bool:
        """Evict one entry if the storage has no room for that many new tokens. Returns whether one was evicted."""
        if not self.storage.is_limited or not self._slots or not self.storage.lacks_room(tokens):
            return False
        self.writes += 1
        self._free.append(self._evict())
        return True

    def _evict(self) -> int:
        slot = self._policy.victim()
        owner = self._owners[slot]
        assert self._slots[owner] == slot, f"slot {slot} of pool {self.name!r} has two owners"
        del self._slots[owner]
        self._policy.remove(slot)
        self.storage.release(slot)
        if self.stats_enabled:
            self.stats.evictions += 1
        _log.debug("pool %s: key %s lost slot %d", self.name, owner, slot)
        return slot

    def owns(self, key: Hashable, slot: int) -> bool:
        """Whether ``slot`` belongs to ``key``."""
        return self._slots.get(key) == slot

    def check(self, key: Hashable, priority: float | None) -> None:
        """Raise TypeError or ValueError if nothing can be stored under ``key`` with that priority."""
        try:
            hash(key)
        except TypeError:
            raise TypeError(f"pool {self.name!r}: a key must be hashable, got {type(key).__name__}") from None
        if priority is not None:
            self.check_priority(priority)

    def check_priority(self, priority: float) -> None:
        """Raise TypeError or ValueError if entries cannot be ordered by ``priority``."""
        check_priority(priority, f"pool {self.name!r}")
