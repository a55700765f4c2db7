"""Counters of a pool or of the hierarchy, one meaning each."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["CacheStats"]


@dataclass(slots=True)
class CacheStats:
    """Counters since a pool was made or last reset.

    Attributes:
        hits: lookups that found their key. A legacy pool's hits include stale ones, which only a replay can find.
        misses: lookups that did not find their key.
        evictions: entries that lost their slot to another key. Updating a key is no eviction, nor is clearing a pool.
        total_queries: lookups answered.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    total_queries: int = 0

    @property
    def hit_rate(self) -> float:
        """``hits / total_queries``; 0.0 without queries."""
        return self.hits / self.total_queries if self.total_queries else 0.0

    @property
    def miss_rate(self) -> float:
        """``1 - hit_rate``; 1.0 without queries."""
        return 1.0 - self.hit_rate

    def count(self, hits: int, misses: int) -> None:
        """Count answered lookups."""
        self.hits += hits
        self.misses += misses
        self.total_queries += hits + misses

    def reset(self) -> None:
        """Set every counter to zero."""
        self.hits = self.misses = self.evictions = self.total_queries = 0

    def to_dict(self) -> dict[str, float]:
        """Counters and rates by name."""
        return asdict(self) | {"hit_rate": self.hit_rate, "miss_rate": self.miss_rate}
