"""Checks of the model's arguments: errors name the argument and its allowed values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from kvcache.geometry import TOKENS_PER_STEP

__all__ = ["environments", "numbers", "positions", "whole_numbers"]

_LATEST = 2**52  # position of a token: a whole number in float64, in which rotary angles are computed


def numbers(name: str, values: Any, row: Sequence[int | None], rows: int | None = None) -> Tensor | np.ndarray:
    """``values`` as an array ``[B, *row]`` of real numbers, where it lives.

    Args:
        name: of the argument.
        values: one of ``row`` for each row.
        row: the shape of each; None is any size but 0.
        rows: how many there are; None is any number but 0.

    Raises:
        ValueError: they are no real numbers, or of another shape.
    """
    array = values if isinstance(values, Tensor) else _array(values)
    if array.is_complex() if isinstance(array, Tensor) else array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be real numbers, got {array.dtype}")
    wanted, shape = (rows, *row), tuple(array.shape)
    if len(shape) != len(wanted) or any(size not in (None, given) for size, given in zip(wanted, shape, strict=True)):
        sizes = ("any" if size is None else str(size) for size in wanted)
        raise ValueError(f"{name} must be [{', '.join(sizes)}], got {list(shape)}")
    if 0 in shape:
        raise ValueError(f"{name} is empty, {list(shape)}: a batch has at least one row")
    return array


def whole_numbers(
    name: str, values: Any, shape: Sequence[int], lowest: int = 0, highest: int = _LATEST, one_for_all: bool = False
) -> np.ndarray:
    """``values`` as an array of that shape, int64, on the host.

    Args:
        name: of the argument.
        values: integers.
        shape: that they have.
        lowest: that a value may be.
        highest: likewise.
        one_for_all: whether a single number is allowed, for all.

    Raises:
        ValueError: they are no integers, of another shape, or out of range.
    """
    array = _array(values.cpu() if isinstance(values, Tensor) else values)
    if array.dtype.kind not in "iu" and array.size:
        raise ValueError(f"{name} must be integers, got {values!r}")
    if array.shape != tuple(shape) and not (one_for_all and array.shape == ()):
        raise ValueError(f"{name} must be {list(shape)}{', or one for all' * one_for_all}, got {list(array.shape)}")
    if array.size and (array.min() < lowest or array.max() > highest):
        raise ValueError(f"{name} must be from {lowest} to {highest}, got {array.tolist()}")
    return np.full(tuple(shape), array, dtype=np.int64)


def _array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        return np.array([None])


def positions(timesteps: Any, rows: int) -> np.ndarray:
    """Positions of observations in their episodes, in tokens: ``[rows]``, int64.

    Args:
        timesteps: one for each row, or one for all.
        rows: how many there are.

    Raises:
        ValueError: as ``whole_numbers``.
    """
    latest = _LATEST // TOKENS_PER_STEP
    return TOKENS_PER_STEP * whole_numbers("timesteps", timesteps, [rows], highest=latest, one_for_all=True)


def environments(envs: Any, rows: int, count: int) -> list[int]:
    """The environment of each row, among ``count``: None is the first ones in order.

    Raises:
        ValueError: environments are not as many as rows, or one does not exist.
    """
    # Legacy would take a negative number for one from the end.
    return list(map(int, whole_numbers("envs", np.arange(rows) if envs is None else envs, [rows], highest=count - 1)))
