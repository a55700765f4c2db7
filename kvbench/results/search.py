"""The file that ``kvbench search --json`` writes."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from kvbench.results.decode import Scalars
from kvcache import Geometry

__all__ = ["MADE_BY", "SearchResults", "SearchedBackend"]

MADE_BY = "'kvbench search --json'"


class SearchedBackend(Struct, frozen=True, kw_only=True):
    """The searches of one backend beside those of the first; times in their names' unit, medians over searches.

    A search is divided into forward (inferences without the cache), cache, tree and rest; older files have only cache.
    """

    name: str
    search_ms_median: float
    times_faster_median: float
    cache_share_median: float
    cache_ms_median: float
    bytes_reserved: int
    hits: int
    misses: int
    searches_with_the_same_actions: int
    searches_with_the_same_visits: int
    largest_difference_of_values: float
    validation: dict[str, Any] | None
    forward_ms_median: float | None = None
    tree_ms_median: float | None = None
    rest_ms_median: float | None = None


class SearchResults(Struct, frozen=True, kw_only=True):
    """The whole file. Files without a schema version are of version 1."""

    format: Literal["kvcache-search"] = "kvcache-search"
    schema_version: Literal[1] = 1
    geometry: Geometry
    searches: int
    seed: int
    recur_slots: int | None
    validated: bool
    machine: Scalars
    backends: list[SearchedBackend]
    leaves: int = 1  # of each environment in one forward pass
    eviction: str = "fifo"  # of the new caches
    command: list[str] = []  # after kvbench's name; older files do not have it
