"""What all backends check before they change anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvcache.backend import MISS, Scope
from kvcache.geometry import is_whole

__all__ = ["OrderError", "check_environments", "check_hashable", "check_row", "check_rows", "check_supplied"]


class OrderError(RuntimeError):
    """A call that is not this batch's turn: lookup, supply, assemble, store (see ``CacheBackend``)."""


def check_hashable(keys: Sequence[Any]) -> None:
    """Raise TypeError unless all keys can be keys."""
    try:
        set(keys)
    except TypeError as error:
        raise TypeError(f"every key must be hashable: {error}") from None


def check_rows(scope: Scope, rows: int, **columns: Sequence[Any]) -> None:
    """Raise TypeError or ValueError unless ``scope`` is one and all other arguments have an element for each row."""
    if type(scope) is not Scope:  # its value would be taken for NODE
        raise TypeError(f"scope must be Scope.ROOT or Scope.NODE, got {scope!r}")
    for name, column in columns.items():
        if len(column) != rows:
            raise ValueError(
                f"there must be one of {', '.join(columns)} for each of {rows} rows, got {len(column)} {name}"
            )


def check_environments(envs: Sequence[int]) -> None:
    """Raise ValueError for a negative number: as an index it would be another environment's."""
    if min(envs, default=0) < 0:
        raise ValueError(f"environments are numbered from 0, got {list(envs)}")


def check_row(row: int, rows: int) -> None:
    """Raise IndexError unless the batch has that row: a negative one would be another."""
    if not is_whole(row) or not 0 <= row < rows:
        raise IndexError(f"the batch has rows 0..{rows - 1}, got {row!r}")


def check_supplied(sizes: Sequence[int]) -> None:
    """Raise OrderError if a row missed and got no context."""
    if MISS in sizes:
        raise OrderError(f"row {sizes.index(MISS)} missed and nothing was supplied for it: call supply, then assemble")
