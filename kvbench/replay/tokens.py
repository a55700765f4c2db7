"""The tokens of a replay: each has a number, which its content says, and belongs to a history."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from kvbench.replay.content import NO_CONTEXT, Contents, extend_context, generated_context, mix_rows
from kvcache import TOKENS_PER_STEP, Geometry

__all__ = ["EMPTY_CONTEXT", "Histories", "Tokens"]

EMPTY_CONTEXT = 0
_NO_TOKEN = 0
_REMEMBERED = 4096  # tokens, and contexts
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
        self._places = np.zeros(_REMEMBERED, dtype=np.int32)  # number -> row of what is remembered, or 0
        self._remembered = np.zeros((_REMEMBERED, contents.width), dtype=np.int8)  # row 0: no token
        self._used = 1

    def __len__(self) -> int:
        return self._count

    def add(self, count: int) -> np.ndarray:
        """Numbers of so many new tokens."""
        first, self._count = self._count, self._count + count
        if self._count > len(self._places):
            self._places = np.concatenate([self._places, np.zeros(self._count, dtype=np.int32)])
        return np.arange(first, self._count)

    def contents(self, numbers: np.ndarray) -> np.ndarray:
        """``[..., N]``, int8, of an array of numbers; zeros where there is no token."""
        places = self._places.take(numbers)
        if not places.all():
            missing = np.unique(numbers[(places == 0) & (numbers != _NO_TOKEN)])
            if len(missing):
                self._remember(missing, numbers)
                places = self._places.take(numbers)
        found: np.ndarray = self._remembered.take(places, axis=0)
        return found

    def _remember(self, missing: np.ndarray, wanted: np.ndarray) -> None:
        if self._used + len(missing) > len(self._remembered):  # forget all others
            self._places[:] = 0
            self._used, missing = 1, np.unique(wanted[wanted != _NO_TOKEN])
            if len(missing) >= len(self._remembered):
                self._remembered = np.zeros((2 * len(missing), self._contents.width), dtype=np.int8)
        places = np.arange(self._used, self._used + len(missing))
        made = self._contents.tokens(mix_rows(missing.astype(np.uint64)))
        made[:, : self.digits] = missing[:, None] // self._powers % _BASE - _BASE // 2
        self._remembered[places], self._places[missing] = made, places
        self._used += len(missing)

    def numbers(self, elements: np.ndarray) -> np.ndarray:
        """Numbers of the tokens whose first elements these seem to be, ``[..., digits]``; 0 where it is no token's."""
        with np.errstate(invalid="ignore"):  # NaN
            found = (elements + float(_BASE // 2)) @ self._powers.astype(np.float64)  # exact: they are below 2^53
            known: np.ndarray = np.where((found > 0) & (found < self._count), found, _NO_TOKEN).astype(np.int64)
        return known


class Histories:
    """Numbered contexts: the tokens of each, and what it is the context of.

    A few numbers are kept of each, however long it is: its parent, and what was appended.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.identities, self.keys = array("Q", [NO_CONTEXT]), array("Q", [0])
        self._parents, self._windows = array("i", [EMPTY_CONTEXT]), array("i", [0])  # tokens cut off in front
        self._first, self._appended = array("q", [0]), array("i", [0])
        self.sizes = array("i", [0])
        self._by_last_token = np.zeros(_REMEMBERED, dtype=np.int32)
        self._slides_at = next(size for size in range(1, geometry.context_length + 1) if geometry.window(size)[0])
        self._slid_size = max(geometry.slid_size, 0)
        self._columns = np.arange(geometry.context_length)
        # The tokens of the newest contexts, from the left on, each at its number's remainder.
        self._recent = np.zeros((_REMEMBERED, geometry.context_length), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, keys: Sequence[int], before: np.ndarray, sizes: np.ndarray, appended: np.ndarray) -> np.ndarray:
        """Contexts of ``keys``, as a cache stores them; their numbers. ``trace`` says what they grew out of.

        Args:
            keys: of each.
            before: tokens that others are appended to, ``[n, T]``: from the left on, and zeros.
            sizes: of these.
            appended: tokens, ``[n, count]``: zeros behind them where there are fewer.
        """
        counts = (appended != _NO_TOKEN).sum(axis=1)
        whole = sizes + counts
        first = np.where(whole >= self._slides_at, TOKENS_PER_STEP, 0)
        kept = np.where(first > 0, self._slid_size, whole)
        return self._add(keys, self._joined(before, sizes, appended, first, kept), first, kept, appended[:, 0], counts)

    def add_generated(self, key: int, token: int) -> int:
        """The context of one token that a model makes after a miss, never cut."""
        tokens = np.zeros((1, len(self._columns)), dtype=np.int64)
        tokens[0, 0] = token
        one = np.ones(1, dtype=np.int64)
        number = int(self._add([key], tokens, one * 0, one, one * token, one)[0])
        self._parents.append(EMPTY_CONTEXT)
        self.identities.append(generated_context(key))
        return number

    def trace(self, parents: Sequence[int]) -> None:
        """What the contexts that were added last grew out of, in their order."""
        keys, identities = self.keys[-len(parents) :] if parents else (), self.identities
        self._parents.extend(parents)
        for parent, key in zip(parents, keys, strict=True):
            identities.append(extend_context(identities[parent], key))

    def _add(
        self, keys: Sequence[int], tokens: np.ndarray, first: np.ndarray, kept: np.ndarray, *appended: np.ndarray
    ) -> np.ndarray:
        numbers = np.arange(len(self), len(self) + len(keys))
        self.keys.extend(keys)
        columns = (self._windows, self.sizes, self._first, self._appended)
        for column, values in zip(columns, (first, kept, *appended), strict=True):
            column.frombytes(values.astype(column.typecode).tobytes())
        self._recent[numbers % len(self._recent)] = tokens
        last = tokens[np.arange(len(tokens)), np.maximum(kept - 1, 0)]
        if last.max(initial=0) >= len(self._by_last_token):
            self._by_last_token = np.concatenate([self._by_last_token, np.zeros(last.max() + 1, dtype=np.int32)])
        self._by_last_token[last] = numbers
        self._by_last_token[_NO_TOKEN] = EMPTY_CONTEXT
        return numbers

    def _joined(
        self, before: np.ndarray, sizes: np.ndarray, appended: np.ndarray, first: np.ndarray, kept: np.ndarray
    ) -> np.ndarray:
        """Tokens ``[n, T]`` of windows: ``kept`` of them from the ``first`` on, of contexts and what was appended."""
        width, count = before.shape[1], appended.shape[1]
        joined = np.zeros((len(before), width + max(count, TOKENS_PER_STEP)), dtype=np.int64)
        joined[:, :width] = before
        joined[np.arange(len(before))[:, None], sizes[:, None] + np.arange(count)] = appended
        if not first.any():
            return joined[:, :width]
        windows: np.ndarray = np.take_along_axis(joined, self._columns + first[:, None], axis=1)
        windows[self._columns >= kept[:, None]] = _NO_TOKEN
        return windows

    def forget(self, contexts: np.ndarray) -> None:
        """Contexts that no row is any more: they are damaged."""
        lost = self._by_last_token
        lost[np.isin(lost, contexts)] = EMPTY_CONTEXT

    def ending_with(self, tokens: np.ndarray) -> np.ndarray:
        """The newest contexts whose last tokens these are; 0 where there is none."""
        found: np.ndarray = self._by_last_token.take(tokens, mode="clip")
        if tokens.max(initial=0) >= len(self._by_last_token):
            found[tokens >= len(self._by_last_token)] = EMPTY_CONTEXT
        return found

    def sizes_of(self, contexts: np.ndarray) -> np.ndarray:
        """Tokens of each."""
        sizes: np.ndarray = np.frombuffer(self.sizes, dtype=np.int32).take(contexts)
        return sizes

    def entries(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The keys that contexts are of, and their identities."""
        keys, identities = (np.frombuffer(each, dtype=np.uint64) for each in (self.keys, self.identities))
        return keys.take(contexts), identities.take(contexts)

    def tokens(self, contexts: np.ndarray) -> np.ndarray:
        """Numbers of the contexts' tokens, ``[n, T]``: from the left on, and zeros."""
        tokens: np.ndarray = self._recent.take(contexts % len(self._recent), axis=0)
        oldest = len(self) - len(self._recent)
        if oldest > 0:
            for row in np.flatnonzero(contexts < oldest):
                tokens[row] = self._older(int(contexts[row]))
        tokens[contexts == EMPTY_CONTEXT] = _NO_TOKEN
        return tokens

    def _older(self, context: int) -> np.ndarray:
        """The tokens of a context that is not among the newest: those of its parents, and its own."""
        above = []
        while context != EMPTY_CONTEXT:
            above.append(context)
            context = self._parents[context]
        tokens: list[int] = []
        for each in reversed(above):
            appended = range(self._first[each], self._first[each] + self._appended[each])
            first = self._windows[each]
            tokens = [*tokens, *appended][first : first + self.sizes[each]]
        return np.array(tokens + [_NO_TOKEN] * (len(self._columns) - len(tokens)), dtype=np.int64)
