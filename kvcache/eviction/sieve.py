"""SIEVE: first in, first out, but what was used since the last look stays where it is."""

from __future__ import annotations

from collections import OrderedDict

from kvcache.eviction.base import EvictionPolicy
from kvcache.eviction.entries import EntryInfo

__all__ = ["SievePolicy"]


class SievePolicy(EvictionPolicy):
    """Evicts the oldest key first that was not used since a hand passed it (Zhang et al. 2024, "SIEVE", NSDI).

    The hand goes from the oldest key to the newest one and begins again. It evicts the first key that was not used
    since it was there, and stays at the next one. Lookups and updates are uses; they move nothing.
    """

    sees_entries = False

    def __init__(self, size: int) -> None:
        super().__init__(size)
        # Slot by slot, oldest first, whether it was used; all that was passed is older than what is ahead.
        self._passed: OrderedDict[int, bool] = OrderedDict()
        self._ahead: OrderedDict[int, bool] = OrderedDict()

    def insert(self, slot: int, info: EntryInfo) -> None:
        self._ahead[slot] = False

    def touch(self, slot: int) -> None:
        (self._ahead if slot in self._ahead else self._passed)[slot] = True

    def update(self, slot: int, info: EntryInfo) -> None:
        self.touch(slot)

    def remove(self, slot: int) -> None:
        del self._ahead[slot]
        self._wrap()

    def victim(self, incoming: EntryInfo) -> int:
        while True:
            slot, is_used = next(iter(self._ahead.items()))
            if not is_used:
                return slot
            del self._ahead[slot]
            self._passed[slot] = False
            self._wrap()

    def _wrap(self) -> None:
        """Behind the newest key the hand begins again."""
        if not self._ahead:
            self._passed, self._ahead = self._ahead, self._passed
