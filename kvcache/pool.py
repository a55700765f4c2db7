"""A pool: a fixed number of slots, the key that owns each, and eviction when none is free."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from math import isnan
from threading import get_ident
from typing import Any

from torch import Tensor

from kvcache.eviction import EvictionStrategy, check_priority
from kvcache.geometry import is_whole
from kvcache.integrity import Integrity
from kvcache.slots import Slots, make_slots
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
        self._checks_values = _has_own(self.storage, Storage, "check")
        self._releases_slots = _has_own(self.storage, Storage, "release")
        self.join(Integrity())
        self.writes = 0  # claims and clears so far: after one, a slot found before may be another key's
        self._slots = make_slots(self.eviction_strategy, pool_size)

    def join(self, integrity: Integrity) -> None:
        """Share the fate of the pools that share the storage's memory."""
        self.integrity = integrity
        integrity.members.append(self)

    def get(self, key: Hashable) -> Any | None:
        """The value stored under ``key``, or None. Counts one query."""
        integrity = self.integrity
        if integrity.changing or get_ident() != integrity.ident:
            integrity.take()
        slot = self._slots.find(key)
        if self.stats_enabled:  # as in ``find``: a call less
            stats = self.stats
            stats.total_queries += 1
            if slot is None:
                stats.misses += 1
            else:
                stats.hits += 1
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
        if integrity.changing or get_ident() != integrity.ident:
            integrity.take()
        storage = self.storage
        if self._checks_values:
            storage.check(value)
        try:
            hash(key)
        except TypeError:
            self.check(key, None)
        if priority is not None and (type(priority) is not float or isnan(priority)):
            self.check_priority(priority)
        integrity.changing = True  # as ``begin`` does, which would check all of ``take`` again
        if storage.is_limited:
            slot = self.claim(key, priority, value.size)
        else:
            self.writes += 1
            slot = self._slots.claim(key, priority)
            if slot < 0:
                slot = ~slot
                self._lost(slot)
        storage.write(slot, value)
        integrity.changing = False
        return slot

    def find(self, key: Hashable) -> int | None:
        """The slot of ``key``, or None: ``get`` without the copy, for callers that have checked the integrity."""
        slot = self._slots.find(key)
        if self.stats_enabled:
            stats = self.stats
            stats.total_queries += 1
            if slot is None:
                stats.misses += 1
            else:
                stats.hits += 1
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
        if self._keys().peek(key) is None:
            raise KeyError(key)
        self.integrity.begin()
        self._slots.claim(key, priority)
        self.integrity.end()

    def clear(self) -> None:
        """Remove all keys: in O(1), but that ``reference`` frees each object. Slot memory and statistics stay."""
        integrity = self.integrity
        if integrity.changing or get_ident() != integrity.ident:
            integrity.check()
        integrity.changing = True
        self.empty()
        integrity.changing = False

    def empty(self) -> None:
        """``clear`` as a part of a change, which the caller marks."""
        self.writes += 1
        self._slots.clear()
        self.storage.clear()

    def reset(self) -> None:
        """As in ``Member``."""
        self.writes += 1
        self._slots = make_slots(self.eviction_strategy, self.pool_size)
        self.storage.reset()

    def _keys(self) -> Slots:
        """The slots, as they are after what an interrupted change has left."""
        self.integrity.check()
        return self._slots

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._keys())

    def __contains__(self, key: Hashable) -> bool:
        """Whether ``key`` is stored. Counts no query, and is no use of the entry for the eviction strategy."""
        return self._keys().peek(key) is not None

    def __iter__(self) -> Iterator[Hashable]:
        """The stored keys, in any order."""
        return iter(self._keys().keys())

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
        self.integrity.begin()  # to count what is left after a clear may change the storage
        held = self.storage.bytes_reserved
        self.integrity.end()
        return held

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
        slot = self._slots.claim(key, priority)
        if slot < 0:
            slot = ~slot
            self._lost(slot)
        return slot

    def free_memory(self, key: Hashable) -> None:
        """Free the entry's memory but keep its slot; call ``claim`` next."""
        slot = self._slots.peek(key)
        if slot is not None:
            self.storage.release(slot)

    def evict_for(self, tokens: int) -> bool:
        """Evict one entry if the storage has no room for that many new tokens. Returns whether one was evicted."""
        if not self.storage.is_limited or not len(self._slots) or not self.storage.lacks_room(tokens):
            return False
        self.writes += 1
        self._lost(self._slots.evict())
        return True

    def _lost(self, slot: int) -> None:
        """A key was evicted from ``slot``."""
        if self._releases_slots:
            self.storage.release(slot)
        if self.stats_enabled:
            self.stats.evictions += 1
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("pool %s: key %s lost slot %d", self.name, self._slots.evicted, slot)

    def owns(self, key: Hashable, slot: int) -> bool:
        """Whether ``slot`` belongs to ``key``."""
        return self._slots.peek(key) == slot

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


def _has_own(part: object, kind: type, name: str) -> bool:
    """Whether a part of that kind has a method of its own of that name, and not the one that does nothing."""
    return getattr(type(part), name) is not getattr(kind, name)
