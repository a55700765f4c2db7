"""The tokens of a replay: each has a number, which its content says, and belongs to a history."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from kvbench.replay.content import NO_CONTEXT, Contents

__all__ = ["EMPTY_CONTEXT", "Histories", "Tokens"]

EMPTY_CONTEXT = 0
_NO_TOKEN = 0
_REMEMBERED = 4096  # tokens, and contexts
_DIGITS, _BASE = 6, 128  # a token's number, in its first elements: [-64, 64) each


class Tokens:
    """Contents of numbered tokens, made again of their seeds where they are not among the last thousands.

    The first elements of a token are its number, the others follow from its seed: no two tokens are alike.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.digits = min(_DIGITS, contents.width)
        self._powers = _BASE ** np.arange(self.digits, dtype=np.int64)
        self._seeds = array("Q", [0])  # by number
        self._places = np.zeros(_REMEMBERED, dtype=np.int32)  # number -> row of what is remembered, or 0
        self._remembered = np.zeros((_REMEMBERED, contents.width), dtype=np.int8)  # row 0: no token
        self._used = 1

    def __len__(self) -> int:
        return len(self._seeds)

    def add(self, seeds: Sequence[int]) -> np.ndarray:
        """Numbers of new tokens."""
        first = len(self._seeds)
        self._seeds.extend(seeds)
        if len(self._seeds) > len(self._places):
            self._places = np.concatenate([self._places, np.zeros(len(self._seeds), dtype=np.int32)])
        return np.arange(first, len(self._seeds))

    def contents(self, numbers: np.ndarray) -> np.ndarray:
        """``[..., N]``, int8, of an array of numbers; zeros where there is no token."""
        places = self._places[numbers]
        missing = numbers[(places == 0) & (numbers != _NO_TOKEN)]
        if len(missing):
            self._remember(missing, numbers)
            places = self._places[numbers]
        found: np.ndarray = self._remembered.take(places, axis=0)
        return found

    def _remember(self, missing: np.ndarray, wanted: np.ndarray) -> None:
        if self._used + len(missing) > len(self._remembered):  # forget all others
            self._places[:] = 0
            self._used, missing = 1, np.unique(wanted[wanted != _NO_TOKEN])
            if len(missing) >= len(self._remembered):
                self._remembered = np.zeros((2 * len(missing), self._contents.width), dtype=np.int8)
        places = np.arange(self._used, self._used + len(missing))
        made = self._contents.tokens(np.frombuffer(self._seeds, dtype=np.uint64)[missing])
        made[:, : self.digits] = missing[:, None] // self._powers % _BASE - _BASE // 2
        self._remembered[places], self._places[missing] = made, places
        self._used += len(missing)

    def numbers(self, elements: np.ndarray) -> np.ndarray:
        """Numbers of the tokens whose first elements these seem to be, ``[n, digits]``; 0 where it is no token's."""
        with np.errstate(invalid="ignore"):  # NaN
            found = (elements + _BASE // 2).astype(np.int64) @ self._powers
        known: np.ndarray = np.where((found > 0) & (found < len(self._seeds)), found, _NO_TOKEN)
        return known


class Histories:
    """Numbered contexts: the tokens of each, and what it is the context of.

    A few numbers are kept of each, however long it is: its parent, and what was appended.
    """

    def __init__(self) -> None:
        self.identities, self.keys = array("Q", [NO_CONTEXT]), array("Q", [0])
        self._parents, self._windows = array("i", [EMPTY_CONTEXT]), array("i", [0])  # tokens cut off in front
        self._first, self._appended = array("q", [0]), array("i", [0])
        self.sizes = array("i", [0])
        self._by_last_token = np.zeros(_REMEMBERED, dtype=np.int32)
        self._recent: dict[int, list[int]] = {}

    def add(self, parent: int, identity: int, key: int, appended: list[int], window: tuple[int, int]) -> None:
        """A context: ``window`` is (first, count) of the parent's tokens and the appended ones that it has."""
        number, (first, count) = len(self.sizes), window
        tokens = (self.tokens(parent) + appended)[first : first + count]
        self.identities.append(identity)
        self.keys.append(key)
        self._parents.append(parent)
        self._windows.append(first)
        self._first.append(appended[0])
        self._appended.append(len(appended))
        self.sizes.append(len(tokens))
        self._remember(number, tokens)
        if tokens:
            last = tokens[-1]
            if last >= len(self._by_last_token):
                self._by_last_token = np.concatenate([self._by_last_token, np.zeros(last + 1, dtype=np.int32)])
            self._by_last_token[last] = number

    def ending_with(self, tokens: np.ndarray) -> np.ndarray:
        """The newest contexts whose last tokens these are; 0 where there is none."""
        known = tokens < len(self._by_last_token)
        found: np.ndarray = np.where(known, self._by_last_token[np.where(known, tokens, 0)], EMPTY_CONTEXT)
        return found

    def sizes_of(self, contexts: np.ndarray) -> np.ndarray:
        """Tokens of each."""
        sizes: np.ndarray = np.frombuffer(self.sizes, dtype=np.int32)[contexts]
        return sizes

    def tokens(self, context: int) -> list[int]:
        """Numbers of the context's tokens."""
        above = []
        while context not in self._recent and context != EMPTY_CONTEXT:
            above.append(context)
            context = self._parents[context]
        tokens = self._recent.get(context, [])
        for each in reversed(above):
            appended = range(self._first[each], self._first[each] + self._appended[each])
            first = self._windows[each]
            tokens = [*tokens, *appended][first : first + self.sizes[each]]
            self._remember(each, tokens)
        return tokens

    def _remember(self, context: int, tokens: list[int]) -> None:
        self._recent[context] = tokens
        if len(self._recent) > _REMEMBERED:
            del self._recent[next(iter(self._recent))]
