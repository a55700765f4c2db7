"""What a policy for search trees learns, and keeps when its pool is cleared."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

__all__ = ["Lessons", "Trial"]

_ENOUGH = 16  # entries that were extended as often as any: then no entry is extended more often
_DOUBT = 4  # times as many, after the opposite was seen
_FADING = 0.98  # how much a result still counts after one more
_MARGIN = 2.0  # by which the other order must be better before it is followed


class Lessons:
    """How often entries are extended at most, and which of two orders evicts the right ones.

    Attributes:
        most_children: of an entry, as far as it is known; None where it is not.
        follows_recency: whether the first order (recency) is followed, and not the second (depth).
    """

    def __init__(self) -> None:
        self.most_children: int | None = None
        self.follows_recency = True
        self._balance = 0.0  # above 0: recency evicted the right ones more often
        self._most, self._times, self._needed = 0, 0, _ENOUGH

    def begin(self) -> None:
        """A new search begins: what was counted in those before is used."""
        self.most_children = self._most if self._times >= self._needed else None

    def extended(self, times: int) -> None:
        """An entry has been extended so often."""
        if times > self._most:
            self._most, self._times = times, 0
        self._times += times == self._most

    def asked_again(self) -> None:
        """An entry was extended as often as any, was evicted for that, and was needed after all."""
        self.most_children = None
        self._needed *= _DOUBT

    def judged(self, result: int) -> None:
        """One more result: 1 where recency was right, -1 where depth was."""
        self._balance = self._balance * _FADING + result
        if self.follows_recency:
            self.follows_recency = self._balance >= -_MARGIN
        else:
            self.follows_recency = self._balance > _MARGIN


class Trial:
    """Pairs of entries: one that recency would evict, and one that depth would. Which of them is asked for first?

    Args:
        limit: pairs that are kept; the oldest one is dropped for another.
    """

    def __init__(self, lessons: Lessons, limit: int) -> None:
        self._lessons, self._limit = lessons, limit
        self._pairs: OrderedDict[Hashable, tuple[Hashable, int]] = OrderedDict()  # key -> rival, result if asked for

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._pairs) // 2

    def nominate(self, by_recency: Hashable, by_depth: Hashable) -> None:
        """Each order would evict one of these now."""
        if by_recency == by_depth:
            return
        for key in (by_recency, by_depth):
            self._drop(key)
        self._pairs[by_recency] = by_depth, -1
        self._pairs[by_depth] = by_recency, 1
        if len(self) > self._limit:
            self._drop(next(iter(self._pairs)))

    def asked(self, key: Hashable) -> None:
        """``key`` is asked for, whether it is still there or not."""
        result = self._drop(key)
        if result:
            self._lessons.judged(result)

    def _drop(self, key: Hashable) -> int:
        rival, result = self._pairs.pop(key, (None, 0))
        if result:
            self._pairs.pop(rival, None)  # it is gone already where a lookup was interrupted
        return result
