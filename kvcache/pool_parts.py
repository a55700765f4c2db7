"""What a pool's calls, and those of a batch, are made of: to find, claim and evict slots."""

from __future__ import annotations

import logging
from collections.abc import Hashable

from torch import Tensor

from kvcache.eviction import EntryInfo, EvictionStrategy
from kvcache.integrity import Integrity
from kvcache.slots import make_slots
from kvcache.stats import CacheStats
from kvcache.storage import Storage

__all__ = ["PoolParts", "has_own"]

_log = logging.getLogger("kvcache.pool")


class PoolParts:
    """Slots and their contents. The callers of these methods check arguments and mark changes (see ``Integrity``).

    Args:
        pool_size: number of slots.
        strategy: which entry is evicted when no slot is free.
        storage: of the slots' contents.

    Attributes:
        integrity: of the pools that share the storage's memory.
        sees_entries: whether the strategy uses what is known of an entry beside its key and priority.
        writes: claims and clears so far. After one, a slot found before may be another key's.
    """

    name: str
    stats: CacheStats
    stats_enabled: bool

    def __init__(self, pool_size: int, strategy: EvictionStrategy, storage: Storage) -> None:
        self.pool_size, self.eviction_strategy, self.storage = pool_size, strategy, storage
        self._releases_slots = has_own(storage, Storage, "release")
        self.join(Integrity())
        self.writes = 0
        self._slots = make_slots(strategy, pool_size)
        self.sees_entries = self._slots.sees_entries

    def join(self, integrity: Integrity) -> None:
        """Share the fate of the pools that share the storage's memory."""
        self.integrity = integrity
        integrity.members.append(self)

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
        self,
        key: Hashable,
        row: Tensor,
        first: int,
        count: int,
        shift: Tensor | None,
        priority: float | None = None,
        info: EntryInfo | None = None,
    ) -> int:
        """``set`` from a row of the batch, as a part of a change: the caller has checked everything and marks it.

        Arguments as in ``Storage.save_tokens``.
        """
        slot = self.claim(key, priority, count, info)
        self.storage.save_tokens(slot, row, first, count, shift)
        return slot

    def claim(
        self, key: Hashable, priority: float | None = None, tokens: int = 0, info: EntryInfo | None = None
    ) -> int:
        """Give ``key`` a slot, which must then be written to: a part of a change.

        Args:
            key: as in ``set``.
            priority: as in ``set``.
            tokens: number of new tokens to be stored; entries are evicted where the storage has no room for them.
            info: what is known of it, for a pool that ``sees_entries``; None is key and priority.
        """
        self.writes += 1
        if self.storage.is_limited:
            self.free_memory(key)
            while self.evict_for(tokens, info):
                pass
        slot = self._slots.claim(key, priority, info)
        if slot < 0:
            slot = ~slot
            self._lost(slot)
        return slot

    def free_memory(self, key: Hashable) -> None:
        """Free the entry's memory but keep its slot; call ``claim`` next."""
        slot = self._slots.peek(key)
        if slot is not None:
            self.storage.release(slot)

    def evict_for(self, tokens: int, incoming: EntryInfo | None = None) -> bool:
        """Evict one entry if the storage has no room for that many new tokens. Returns whether one was evicted.

        ``incoming`` is what is known of the entry that they are of.
        """
        if not self.storage.is_limited or not len(self._slots) or not self.storage.lacks_room(tokens):
            return False
        self.writes += 1
        self._lost(self._slots.evict(incoming))
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


def has_own(part: object, kind: type, name: str) -> bool:
    """Whether a part of that kind has a method of its own of that name, and not the one that does nothing."""
    return getattr(type(part), name) is not getattr(kind, name)
