"""The keys that the stores of a trace wrote: those of the last rows, and older ones from the file again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kvbench.trace.columns import Columns
from kvbench.trace.schema import KINDS, STORE

__all__ = ["StoredKeys"]

_REMEMBERED = 2**18  # rows: a lookup means a store of its own search, or of the one before


class StoredKeys:
    """By row of a trace: whether it is a store, and its key.

    Args:
        read_group: the columns of the row group that has a row, and that group's first row.
    """

    def __init__(self, read_group: Callable[[int], tuple[int, Columns]]) -> None:
        self._read_group = read_group
        self._first = 0  # row that is remembered
        self._keys, self._is_store = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=bool)

    def add(self, columns: Columns) -> None:
        """The events that follow the ones before."""
        forgotten = max(0, len(self._keys) - _REMEMBERED)
        self._first += forgotten
        self._keys = np.concatenate([self._keys[forgotten:], columns.values["key"]])
        self._is_store = np.concatenate([self._is_store[forgotten:], _is_store(columns)])

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each of these rows is a store, and its key; they were added."""
        places = np.maximum(rows - self._first, 0)
        is_store, keys = self._is_store[places], self._keys[places]
        old = np.flatnonzero(rows < self._first)
        old = old[np.argsort(rows[old])]
        while len(old):
            first, columns = self._read_group(int(rows[old[0]]))
            count = int(np.searchsorted(rows[old], first + len(columns)))
            here, old = old[:count], old[count:]
            is_store[here] = _is_store(columns)[rows[here] - first]
            keys[here] = columns.values["key"][rows[here] - first]
        return is_store, keys


def _is_store(columns: Columns) -> np.ndarray:
    stores: np.ndarray = columns.kind == KINDS.index(STORE)
    return stores
