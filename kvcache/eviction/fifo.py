"""First in, first out."""

from __future__ import annotations

from collections import OrderedDict

from kvcache.eviction.base import EvictionPolicy
from kvcache.eviction.entries import EntryInfo

__all__ = ["FifoPolicy"]


class FifoPolicy(EvictionPolicy):
    """Evicts the oldest key first. Neither lookups nor updates make a key younger."""

    sees_entries = False

    def __init__(self, size: int) -> None:
        super().__init__(size)
        # An OrderedDict rather than a dict: its oldest key is found in O(1) after any number of removals.
        self._order: OrderedDict[int, None] = OrderedDict()

    def insert(self, slot: int, info: EntryInfo) -> None:
        self._order[slot] = None

    def update(self, slot: int, info: EntryInfo) -> None:
        pass

    def remove(self, slot: int) -> None:
        del self._order[slot]

    def victim(self, incoming: EntryInfo) -> int:
        return next(iter(self._order))
