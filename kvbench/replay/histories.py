"""The contexts of a replay: which tokens each has, and what it is the context of."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kvbench.replay.content import NO_CONTEXT, extend_context, generated_context
from kvcache import TOKENS_PER_STEP, Geometry

__all__ = ["EMPTY_CONTEXT", "NEWEST", "Histories"]

EMPTY_CONTEXT = 0
_NO_TOKEN = 0
_REMEMBERED = 4096  # contexts whose tokens are at hand
NEWEST = 2**15  # contexts that are kept in any case


class _Kept(NamedTuple):
    """What is kept of an old context."""

    key: int
    identity: int
    tokens: np.ndarray  # their numbers


_NOTHING = _Kept(0, NO_CONTEXT, np.zeros(0, dtype=np.int64))


class Histories:
    """Numbered contexts: the tokens of each, and what it is the context of.

    A few numbers are kept of each, however long it is: its parent, and what was appended. Of old ones, which ``keep``
    names, their tokens are kept. So memory does not grow with their number.
    """

    def __init__(self, geometry: Geometry) -> None:
        # Of the contexts that are not old, from the one after ``_old`` on. In front is the empty one.
        self._identities, self._keys = array("Q", [NO_CONTEXT]), array("Q", [0])
        self._parents, self._windows = array("q", [EMPTY_CONTEXT]), array("i", [0])  # tokens cut off in front
        self._first, self._appended = array("q", [0]), array("i", [0])
        self._sizes = array("i", [0])
        self._old, self._kept = 0, dict[int, _Kept]()  # the last old context, and those that are kept
        # Contexts by their last token's number, from the one after ``_old_tokens`` on, and those of older tokens.
        self._by_last_token = np.zeros(_REMEMBERED, dtype=np.int64)
        self._old_tokens, self._by_old_token = 0, dict[int, int]()
        self._slides_at = next(size for size in range(1, geometry.context_length + 1) if geometry.window(size)[0])
        self._slid_size = max(geometry.slid_size, 0)
        self._columns = np.arange(geometry.context_length)
        # The tokens of the newest contexts, from the left on, each at its number's remainder.
        self._recent = np.zeros((_REMEMBERED, geometry.context_length), dtype=np.int64)

    def __len__(self) -> int:
        return self._old + len(self._sizes)

    def _rows(self, contexts: np.ndarray) -> np.ndarray:
        """Rows of contexts that are not old."""
        rows: np.ndarray = np.maximum(contexts - self._old, 0)
        return rows

    def _old_of(self, contexts: np.ndarray) -> Iterator[tuple[int, _Kept]]:
        """Which of the contexts are old, each with what is kept of it."""
        for row in np.flatnonzero((contexts <= self._old) & (contexts != EMPTY_CONTEXT)).tolist():
            yield row, self._kept.get(int(contexts[row]), _NOTHING)

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
        self._identities.append(generated_context(key))
        return number

    def trace(self, parents: Sequence[int]) -> None:
        """What the contexts that were added last grew out of, in their order."""
        keys, identities = self._keys[-len(parents) :] if parents else (), self._identities
        self._parents.extend(parents)
        for parent, key in zip(parents, keys, strict=True):
            if 0 < parent <= self._old:
                before = self._kept.get(parent, _NOTHING).identity
            else:
                before = identities[max(parent - self._old, 0)]
            identities.append(extend_context(before, key))

    def _add(
        self, keys: Sequence[int], tokens: np.ndarray, first: np.ndarray, kept: np.ndarray, *appended: np.ndarray
    ) -> np.ndarray:
        numbers = np.arange(len(self), len(self) + len(keys))
        self._keys.extend(keys)
        columns = (self._windows, self._sizes, self._first, self._appended)
        for column, values in zip(columns, (first, kept, *appended), strict=True):
            column.frombytes(values.astype(column.typecode).tobytes())
        self._recent[numbers % len(self._recent)] = tokens
        last = np.maximum(tokens[np.arange(len(tokens)), np.maximum(kept - 1, 0)] - self._old_tokens, 0)
        if last.max(initial=0) >= len(self._by_last_token):
            self._by_last_token = np.concatenate([self._by_last_token, np.zeros(last.max() + 1, dtype=np.int64)])
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

    @property
    def are_many(self) -> bool:
        """Whether it is time to forget some: see ``keep``."""
        return len(self._sizes) > 2 * NEWEST

    def keep(self, wanted: Iterable[int]) -> None:
        """Forget the contexts that are neither wanted nor among the newest."""
        old = len(self) - NEWEST - 1
        above = np.unique(np.frombuffer(self._parents, dtype=np.int64)[old + 1 - self._old :]).tolist()
        needed = {each for each in (*wanted, *above) if EMPTY_CONTEXT < each <= old}
        kept = {each: self._kept.get(each) or self._described(each) for each in needed}
        tokens = int(np.frombuffer(self._first, dtype=np.int64)[old + 1 - self._old :].min()) - 1
        by_old_token = {end: each for end, each in self._by_end(kept) if end <= tokens}
        columns = (
            self._identities, self._keys, self._parents, self._windows, self._first, self._appended, self._sizes
        )  # fmt: skip
        for column in columns:
            del column[1 : 1 + old - self._old]
        by_token = self._by_last_token[tokens - self._old_tokens :].copy()
        by_token[_NO_TOKEN] = EMPTY_CONTEXT
        for place in np.flatnonzero((by_token <= old) & (by_token != EMPTY_CONTEXT)).tolist():
            if int(by_token[place]) not in kept:
                by_token[place] = EMPTY_CONTEXT
        self._old, self._kept = old, kept
        self._old_tokens, self._by_old_token, self._by_last_token = tokens, by_old_token, by_token

    def _by_end(self, kept: Mapping[int, _Kept]) -> Iterator[tuple[int, int]]:
        """Contexts by their last tokens, where these name them."""
        ends = [(int(about.tokens[-1]), each) for each, about in kept.items() if len(about.tokens)]
        named = self.ending_with(np.array([end for end, _ in ends], dtype=np.int64)).tolist()
        yield from (pair for pair, context in zip(ends, named, strict=True) if context == pair[1])

    def _described(self, context: int) -> _Kept:
        row = context - self._old
        tokens = self.tokens(np.array([context]))[0, : self._sizes[row]].copy()
        return _Kept(self._keys[row], self._identities[row], tokens)

    def forget(self, contexts: np.ndarray) -> None:
        """Contexts that no row is any more: they are damaged."""
        lost = self._by_last_token
        lost[np.isin(lost, contexts)] = EMPTY_CONTEXT
        for _, about in self._old_of(contexts):
            self._by_old_token.pop(int(about.tokens[-1]) if len(about.tokens) else _NO_TOKEN, None)

    def ending_with(self, tokens: np.ndarray) -> np.ndarray:
        """The newest contexts whose last tokens these are; 0 where there is none."""
        places = np.maximum(tokens - self._old_tokens, 0)
        found: np.ndarray = self._by_last_token.take(places, mode="clip")
        if places.max(initial=0) >= len(self._by_last_token):
            found[places >= len(self._by_last_token)] = EMPTY_CONTEXT
        for row in np.flatnonzero((tokens <= self._old_tokens) & (tokens != _NO_TOKEN)):
            found[row] = self._by_old_token.get(int(tokens[row]), EMPTY_CONTEXT)
        return found

    def sizes_of(self, contexts: np.ndarray) -> np.ndarray:
        """Tokens of each."""
        sizes: np.ndarray = np.frombuffer(self._sizes, dtype=np.int32).take(self._rows(contexts))
        for row, about in self._old_of(contexts):
            sizes[row] = len(about.tokens)
        return sizes

    def entries(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The keys that contexts are of, and their identities."""
        columns = (np.frombuffer(each, dtype=np.uint64) for each in (self._keys, self._identities))
        keys, identities = (each.take(self._rows(contexts)) for each in columns)
        for row, about in self._old_of(contexts):
            keys[row], identities[row] = about.key, about.identity
        return keys, identities

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
        while context > self._old:
            above.append(context - self._old)
            context = self._parents[context - self._old]
        tokens: list[int] = self._kept.get(context, _NOTHING).tokens.tolist()
        for row in reversed(above):
            appended = range(self._first[row], self._first[row] + self._appended[row])
            first = self._windows[row]
            tokens = [*tokens, *appended][first : first + self._sizes[row]]
        return np.array(tokens + [_NO_TOKEN] * (len(self._columns) - len(tokens)), dtype=np.int64)
