"""Observers of a cache's lookups: which rows miss, and misses made on purpose.

With them a comparison tells lost contexts from wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kvcache import MISS, CacheBackend, Scope

__all__ = ["CountMisses", "MissLike", "MissWhereStale", "Misses"]

# Rows that missed, lookup by lookup.
Misses = list[list[int]]

_UNUSED_KEY = -1  # hashes are not negative: nothing is ever stored under it


class CountMisses:
    """An observer that notes which rows miss.

    Attributes:
        misses: of every lookup so far.
    """

    def __init__(self) -> None:
        self.misses: Misses = []

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        found = call(*args)
        if operation == "lookup":
            self.misses.append([row for row, size in enumerate(found) if size == MISS])
        return found


class MissLike:
    """An observer that makes each lookup miss in given rows, whatever is cached.

    Args:
        misses: of every lookup.
    """

    def __init__(self, misses: Misses) -> None:
        self._misses = iter(misses)

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        if operation != "lookup":
            return call(*args)
        envs, keys, scope = args
        return call(envs, _without(keys, next(self._misses)), scope)


class MissWhereStale:
    """An observer that makes a cache miss where it would return another key's content.

    Args:
        cache: the observed cache.

    Attributes:
        misses: rows where it did so, lookup by lookup.
    """

    def __init__(self, cache: CacheBackend) -> None:
        self._cache = cache
        self.misses: Misses = []

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        return self._lookup(call, *args) if operation == "lookup" else call(*args)

    def _lookup(
        self, call: Callable[..., Any], envs: Sequence[int], keys: Sequence[int | None], scope: Scope
    ) -> list[int]:
        rows = enumerate(zip(envs, keys, strict=True))
        self.misses.append(
            [row for row, (env, key) in rows if key is not None and self._cache.is_stale(env, key, scope)]
        )
        found: list[int] = call(envs, _without(keys, self.misses[-1]), scope)
        return found


def _without(keys: Sequence[int | None], rows: Sequence[int]) -> list[int | None]:
    return [_UNUSED_KEY if row in rows else key for row, key in enumerate(keys)]
