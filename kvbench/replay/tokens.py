"""The tokens of a replay: each has a number, which its content says."""

from __future__ import annotations

import numpy as np

from kvbench.replay.content import Contents, mix_rows

__all__ = ["Tokens"]

_NO_TOKEN = 0
_REMEMBERED = 4096  # tokens
_PLACES = 2**16  # for their numbers
_DIGITS, _BASE = 6, 128  # a token's number, in its first elements: [-64, 64) each


class Tokens:
    """Contents of numbered tokens, made again of their numbers where they are not among the last thousands.

    The first elements of a token are its number, the others follow from it: no two tokens are alike.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.digits = min(_DIGITS, contents.width)
        self._powers = _BASE ** np.arange(self.digits, dtype=np.int64)
        self._count = 1
        # Row of what is remembered, and of which number, at that number's remainder.
        self._rows, self._numbers = np.zeros(_PLACES, dtype=np.int32), np.zeros(_PLACES, dtype=np.int64)
        self._remembered = np.zeros((_REMEMBERED, contents.width), dtype=np.int8)  # row 0: no token
        self._used = 1

    def __len__(self) -> int:
        return self._count

    def add(self, count: int) -> np.ndarray:
        """Numbers of so many new tokens."""
        first, self._count = self._count, self._count + count
        return np.arange(first, self._count)

    def contents(self, numbers: np.ndarray) -> np.ndarray:
        """``[..., N]``, int8, of an array of numbers; zeros where there is no token."""
        rows = self._rows_of(numbers)
        missing = (rows == 0) & (numbers != _NO_TOKEN)
        if missing.any():
            self._remember(np.unique(numbers[missing]), numbers)
            rows = self._rows_of(numbers)
        found: np.ndarray = self._remembered.take(rows, axis=0)
        crowded = (rows == 0) & (numbers != _NO_TOKEN)  # another number took the place
        if crowded.any():
            found[crowded] = self._made(numbers[crowded])
        return found

    def _rows_of(self, numbers: np.ndarray) -> np.ndarray:
        """Rows of what is remembered; 0 of what is not."""
        places = numbers % _PLACES
        rows: np.ndarray = np.where(self._numbers.take(places) == numbers, self._rows.take(places), 0)
        return rows

    def _remember(self, missing: np.ndarray, wanted: np.ndarray) -> None:
        if self._used + len(missing) > len(self._remembered):  # forget all others
            self._numbers[:], self._rows[:] = _NO_TOKEN, 0
            self._used, missing = 1, np.unique(wanted[wanted != _NO_TOKEN])
            if len(missing) >= len(self._remembered):
                self._remembered = np.zeros((2 * len(missing), self._contents.width), dtype=np.int8)
        rows = np.arange(self._used, self._used + len(missing))
        self._remembered[rows] = self._made(missing)
        self._rows[missing % _PLACES], self._numbers[missing % _PLACES] = rows, missing
        self._used += len(missing)

    def _made(self, numbers: np.ndarray) -> np.ndarray:
        """``[n, N]``, int8."""
        made = self._contents.tokens(mix_rows(numbers.astype(np.uint64)))
        made[:, : self.digits] = numbers[:, None] // self._powers % _BASE - _BASE // 2
        return made

    def numbers(self, elements: np.ndarray) -> np.ndarray:
        """Numbers of the tokens whose first elements these seem to be, ``[..., digits]``; 0 where it is no token's."""
        with np.errstate(invalid="ignore"):  # NaN
            found = (elements + float(_BASE // 2)) @ self._powers.astype(np.float64)  # exact: they are below 2^53
            known: np.ndarray = np.where((found > 0) & (found < self._count), found, _NO_TOKEN).astype(np.int64)
        return known
