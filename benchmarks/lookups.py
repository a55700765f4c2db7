"""A cache's lookups watched, and made to miss: by them it is told apart what a cache lost from what it gave wrongly."""

from __future__ import annotations

from collections.abc import Sequence

from kvcache import MISS, CacheBackend, LegacyCache, Scope

__all__ = ["Misses", "miss_like", "miss_where_stale", "watch_misses"]

# Rows that missed, lookup by lookup.
Misses = list[list[int]]

_NOBODYS = -1  # hashes are not negative: a key under which nothing is ever stored


def watch_misses(cache: CacheBackend) -> Misses:
    """Which rows miss in every lookup of ``cache`` from now on: the list grows as they come."""
    lookup, misses = cache.lookup, Misses()

    def watched(envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> list[int]:
        found = lookup(envs, keys, scope)
        misses.append([row for row, size in enumerate(found) if size == MISS])
        return found

    cache.lookup = watched  # type: ignore[method-assign]
    return misses


def miss_like(cache: CacheBackend, misses: Misses) -> None:
    """Let every lookup of ``cache`` from now on miss in these rows, whatever is there."""
    lookup, told = cache.lookup, iter(misses)

    def missing(envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> list[int]:
        return lookup(envs, _without(keys, next(told)), scope)

    cache.lookup = missing  # type: ignore[method-assign]


def miss_where_stale(cache: LegacyCache) -> Misses:
    """Let ``cache`` miss from now on where it would find what is another key's; which rows these are, as they come."""
    lookup, stale = cache.lookup, Misses()

    def missing(envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> list[int]:
        rows = zip(envs, keys, strict=True)
        stale.append(
            [row for row, (env, key) in enumerate(rows) if key is not None and cache.is_stale(env, key, scope)]
        )
        return lookup(envs, _without(keys, stale[-1]), scope)

    cache.lookup = missing  # type: ignore[method-assign]
    return stale


def _without(keys: Sequence[int | None], rows: Sequence[int]) -> list[int | None]:
    return [_NOBODYS if row in rows else key for row, key in enumerate(keys)]
