"""The interface of eviction policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

from kvcache.eviction.entries import EntryInfo

__all__ = ["EvictionPolicy"]


class EvictionPolicy(ABC):
    """The order in which occupied slots are evicted. A pool takes its ``successor`` when it is cleared.

    Args:
        size: slots of the pool.

    Attributes:
        sees_entries: whether it uses more of an entry than its key and priority. Otherwise nothing else is collected.
    """

    sees_entries = True

    def __init__(self, size: int) -> None:
        self._size = size

    def successor(self) -> EvictionPolicy:
        """The policy of the same pool after it was cleared. It may keep what was learned."""
        return type(self)(self._size)

    @abstractmethod
    def insert(self, slot: int, info: EntryInfo) -> None:
        """``slot`` has been given to a new key."""

    def touch(self, slot: int) -> None:  # noqa: B027 - most policies ignore lookups
        """``slot`` has been looked up."""

    def miss(self, key: Hashable) -> None:  # noqa: B027 - most policies ignore lookups
        """``key`` has been looked up, and no slot has it."""

    @abstractmethod
    def update(self, slot: int, info: EntryInfo) -> None:
        """The key in ``slot`` has been stored again. Its ``priority`` None keeps the old one."""

    @abstractmethod
    def remove(self, slot: int) -> None:
        """``slot`` has been evicted."""

    @abstractmethod
    def victim(self, incoming: EntryInfo) -> int:
        """The slot to evict, so that ``incoming`` can be stored: ``remove`` of it follows. At least one is occupied.

        Several may have to be evicted for one entry, where bytes are limited.
        """
