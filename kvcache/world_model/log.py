"""The line that a world model logs about its cache."""

from __future__ import annotations

from kvcache.backend import CacheBackend

__all__ = ["cache_line"]


def cache_line(cache: CacheBackend) -> str:
    """A cache's counters in one line: rates below the roots, and bytes.

    A legacy cache counts its stale hits as hits; only with a shadow they are known.
    """
    stats, reserved = cache.hierarchy_stats, sum(cache.bytes_reserved.values())
    queries = max(1, stats.total_queries)
    stale_hits = cache.stale_hits
    if stale_hits is None:
        stale = "unknown"
    else:
        stale = "0 %" if cache.report is None else f"{100 * stale_hits / queries:.2f} %"
    collisions = "" if cache.collisions is None else f"; {cache.collisions} collisions of keys"
    return (
        f"{cache.name}: hits {100 * (stats.hits - (stale_hits or 0)) / queries:.2f} %, stale {stale}, "
        f"misses {100 * stats.misses / queries:.2f} % of {stats.total_queries} lookups; "
        f"{reserved / 1e6:.1f} MB reserved{collisions}"
    )
