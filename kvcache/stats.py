"""Counters of a pool or of the hierarchy, one meaning each."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheStats"]


@dataclass(slots=True)
class CacheStats:
    """What a pool was asked and what it answered since it was made or last reset.

    Attributes:
        hits: lookups that found their key. What a pool returns under a key is that key's; a legacy pool's hits
            include its stale ones, which only a replay can tell.
        misses: lookups that did not.
        evictions: entries that lost their slot to another key. Updating a key and clearing a pool are none.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0

    @property
    def total_queries(self) -> int:
        """Lookups answered: hits and misses."""
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float:
        """Hits over queries, 0.0 where there was no query."""
        return self.hits / self.total_queries if self.total_queries else 0.0

    @property
    def miss_rate(self) -> float:
        """Misses over queries, 0.0 where there was no query."""
        return self.misses / self.total_queries if self.total_queries else 0.0

    def reset(self) -> None:
        self.hits = self.misses = self.evictions = 0

    def to_dict(self) -> dict[str, float]:
        return {
            "hits": self.hits,
            "misses": self.misses,
            "evictions": self.evictions,
            "total_queries": self.total_queries,
            "hit_rate": self.hit_rate,
            "miss_rate": self.miss_rate,
        }
