"""What all backends check before they change anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kvcache.backend import MISS, Scope
from kvcache.eviction import check_info, check_priority
from kvcache.geometry import Geometry, is_whole

__all__ = [
    "OrderError",
    "check_context",
    "check_environments",
    "check_hashable",
    "check_info",
    "check_position_shift",
    "check_priorities",
    "check_rows",
    "check_supplied",
]


class OrderError(RuntimeError):
    """A call that is not this batch's turn: lookup, supply, assemble, store (see ``CacheBackend``)."""


def check_hashable(keys: Sequence[Any]) -> None:
    """Raise TypeError unless all keys can be keys."""
    try:
        distinct = set(keys)
    except TypeError as error:
        raise TypeError(f"every key must be hashable: {error}") from None
    if None in distinct:
        raise TypeError("None is no key: a lookup takes it for a row that begins empty")


def check_rows(scope: Scope, rows: int, **columns: Sequence[Any]) -> None:
    """Raise TypeError or ValueError unless ``scope`` is one and all other arguments have an element for each row."""
    if type(scope) is not Scope:  # its value would be taken for NODE
        raise TypeError(f"scope must be Scope.ROOT or Scope.NODE, got {scope!r}")
    for name, column in columns.items():
        if len(column) != rows:
            raise ValueError(
                f"there must be one of {', '.join(columns)} for each of {rows} rows, got {len(column)} {name}"
            )


def check_priorities(scope: Scope, rows: int, priorities: Sequence[float | None] | None) -> None:
    """Raise TypeError or ValueError unless they are None, or a number or None for each row."""
    if priorities is not None:
        check_rows(scope, rows, priorities=priorities)
        for priority in priorities:
            if priority is not None:
                check_priority(priority, "store")


def check_environments(envs: Sequence[int], count: int) -> None:
    """Raise ValueError unless all environments are there: a negative number would be another one."""
    unknown = [env for env in envs if not is_whole(env) or not 0 <= env < count]
    if unknown:
        raise ValueError(f"there are environments 0..{count - 1}, got {unknown}")


def check_position_shift(geometry: Geometry, shift: Any) -> None:
    """Raise TypeError or ValueError unless it is None or a tensor ``[L, 2, H, context_length - 3, D]``."""
    if shift is None:
        return
    if not isinstance(shift, Tensor):
        raise TypeError(f"a position shift is a tensor or None, got {type(shift).__name__}")
    wanted = geometry.num_layers, 2, geometry.num_heads, geometry.slid_size, geometry.head_dim
    if tuple(shift.shape) != wanted:
        raise ValueError(
            f"a position shift of this geometry is [L, 2, H, T - 3, D] = {list(wanted)}, got {list(shift.shape)}"
        )


def check_context(given: tuple[int, ...], size: int, wanted: tuple[int, ...]) -> None:
    """Raise ValueError unless a context of ``size`` tokens fits a row: both shapes are ``(L, 2, H, T_max, D)``."""
    if (given[:3], given[4]) != (wanted[:3], wanted[4]):  # a copy would broadcast
        raise ValueError(f"a context of {given} does not fit a row of {wanted}")
    if size > wanted[3]:
        raise ValueError(f"a context of {size} tokens does not fit one of {wanted[3]}")


def check_supplied(sizes: Sequence[int]) -> None:
    """Raise OrderError if a row missed and got no context."""
    if MISS in sizes:
        raise OrderError(f"row {sizes.index(MISS)} missed and nothing was supplied for it: call supply, then assemble")
