"""A pool: a fixed number of slots, the key that owns each, and eviction when none is free."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from math import isnan
from threading import get_ident
from typing import Any

from kvcache.eviction import EntryInfo, EvictionStrategy, check_known, check_priority
from kvcache.geometry import is_whole
from kvcache.keys_values import KeysValues
from kvcache.pool_parts import PoolParts, has_own
from kvcache.slots import Slots
from kvcache.stats import CacheStats
from kvcache.storage import DEFAULT_STORAGE, EntrySpec, Storage, make_storage

__all__ = ["KVCachePool"]


class KVCachePool(PoolParts):
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
        pool_size = int(pool_size)
        self.name = name
        self.stats_enabled = enable_stats
        self.stats = CacheStats()
        strategy = EvictionStrategy.parse(eviction_strategy)
        made = make_storage(storage, pool_size, spec) if isinstance(storage, str) else storage
        super().__init__(pool_size, strategy, made)
        self._checks_values = has_own(made, Storage, "check")
        self._claims_by_key = not (self.sees_entries or self.storage.is_limited)

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

    def set(self, key: Hashable, value: Any, priority: float | None = None, info: EntryInfo | None = None) -> int:
        """Store ``value`` under ``key`` and return its slot.

        A stored key keeps its slot. A new one takes a free slot, or that of an evicted entry.

        Args:
            key: any hashable.
            value: ``KeysValues`` of one row, or any object for ``storage="reference"``.
            priority: for PRIORITY, which evicts the lowest first; the other strategies ignore it. None is
                ``DEFAULT_PRIORITY`` for a new key and leaves a stored key's priority as it is.
            info: what else is known, for strategies that use it. Its key, priority and tokens are those of the other
                arguments, whatever it says; its tokens are its own where the value is no ``KeysValues``.

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
        if info is not None:
            check_known(info, f"pool {self.name!r}")
        integrity.changing = True  # as ``begin`` does, which would check all of ``take`` again
        if not self._claims_by_key:
            tokens = value.size if isinstance(value, KeysValues) else 0  # by reference anything can be stored
            known = _completed(info, key, priority, tokens) if self.sees_entries else None
            slot = self.claim(key, priority, tokens, known)
        else:
            self.writes += 1
            slot = self._slots.claim(key, priority)
            if slot < 0:
                slot = ~slot
                self._lost(slot)
        storage.write(slot, value)
        integrity.changing = False
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


def _completed(info: EntryInfo | None, key: Hashable, priority: float | None, tokens: int) -> EntryInfo:
    """What is known of an entry that shares no tokens; 0 tokens are not known."""
    known = (info or EntryInfo())._replace(key=key, priority=priority)
    return known.sized(tokens, tokens) if tokens else known
