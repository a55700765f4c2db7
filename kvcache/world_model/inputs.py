"""What callers hand to the model, checked before torch sees it: errors name the argument, and what it may be."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["environments", "whole_numbers"]

_LATEST = 2**52  # its tokens' positions are whole numbers in float64, by which rotary angles are computed


def whole_numbers(
    name: str, values: Any, rows: int, lowest: int = 0, highest: int = _LATEST, one_for_all: bool = False
) -> np.ndarray:
    """``values`` as ``[rows]``, int64.

    Args:
        name: of the argument.
        values: one for each row.
        rows: how many there are.
        lowest: that a value may be.
        highest: likewise.
        one_for_all: whether a single number may stand for all rows.

    Raises:
        ValueError: they are no integers, not as many as rows, or out of range.
    """
    try:
        array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    except ValueError:  # rows of different lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {values!r}")
    if array.shape != (rows,) and not (one_for_all and array.shape == ()):
        wanted = f"{name} must be one for each of {rows} rows" + ", or one for all" * one_for_all
        raise ValueError(f"{wanted}, got {list(array.shape)}")
    if array.min() < lowest or array.max() > highest:
        raise ValueError(f"{name} must be from {lowest} to {highest}, got {array.tolist()}")
    return np.broadcast_to(array.astype(np.int64), rows)


def environments(envs: Any, rows: int, count: int) -> list[int]:
    """The environment of each row, among ``count``: None is the first ones in order.

    Raises:
        ValueError: there is no row, or environments are not as many as rows, or one does not exist.
    """
    if rows < 1:
        raise ValueError("a batch has at least one row, got none")
    # Legacy would take a negative number for one from the end.
    return list(map(int, whole_numbers("envs", np.arange(rows) if envs is None else envs, rows, highest=count - 1)))
