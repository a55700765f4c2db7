"""Least recently used."""

from __future__ import annotations

from kvcache.eviction.entries import EntryInfo
from kvcache.eviction.fifo import FifoPolicy

__all__ = ["LruPolicy"]


class LruPolicy(FifoPolicy):
    """Evicts the key first that was neither looked up nor stored for the longest time."""

    def touch(self, slot: int) -> None:
        self._order.move_to_end(slot)

    def update(self, slot: int, info: EntryInfo) -> None:
        self._order.move_to_end(slot)
