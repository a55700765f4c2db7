"""What is known of the entries that are stored."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

from kvcache.geometry import is_whole

__all__ = ["DEFAULT_PRIORITY", "EntryInfo", "SearchInfo", "check_info", "check_known", "check_priority"]

DEFAULT_PRIORITY = 0.0

_MAKE = tuple.__new__  # of a row as it is: the class would name each element first
_LEAST = {"depth": 0, "depths": 0, "env": 0, "visits": 0, "actions": 1}


class EntryInfo(NamedTuple):
    """What is known of an entry that is stored. None is not known.

    Attributes:
        key: of the entry.
        priority: as it was given to ``store`` or ``set``.
        tokens: live tokens of its context.
        new_tokens: those that take memory of their own. The others are in pages of the context that it grew from.
        parent: key of the context that it extends. It need not be in this pool.
        depth: steps below the root of the search, which is at 0.
        env: environment, from 0.
        visits: simulations that had gone on from the parent's state before this one.
        prior: probability that the search's policy gave to the action that leads here, from 0 to 1.
        actions: number of actions: each state has so many children at most.
    """

    key: Hashable = None
    priority: float | None = None
    tokens: int | None = None
    new_tokens: int | None = None
    parent: Hashable = None
    depth: int | None = None
    env: int | None = None
    visits: int | None = None
    prior: float | None = None
    actions: int | None = None

    def sized(self, tokens: int, new_tokens: int) -> EntryInfo:
        """The same with so many tokens."""
        return _MAKE(EntryInfo, (self.key, self.priority, tokens, new_tokens, *self[4:]))  # `_replace` takes longer


@dataclass(frozen=True, slots=True)
class SearchInfo:
    """What a search knows of the rows of a batch: ``EntryInfo``'s attributes, row by row. None is not known.

    Attributes:
        depths: of each row, or None.
        visits: of each row, or None.
        priors: of each row, or None.
        actions: of the search.
    """

    depths: Sequence[int | None] | None = None
    visits: Sequence[int | None] | None = None
    priors: Sequence[float | None] | None = None
    actions: int | None = None

    def columns(self) -> dict[str, Sequence[Any]]:
        """The attributes that have an element for each row, by name; those that are None left out."""
        named = {"depths": self.depths, "visits": self.visits, "priors": self.priors}
        return {name: column for name, column in named.items() if column is not None}

    def entries(
        self,
        keys: Sequence[Hashable],
        priorities: Sequence[float | None],
        parents: Sequence[Hashable],
        envs: Sequence[int],
        tokens: Sequence[int | None] | None = None,
        new_tokens: Sequence[int | None] | None = None,
    ) -> list[EntryInfo]:
        """What is known of the rows' new entries, given the other columns of the batch; None is not known."""
        unknown = [None] * len(keys)
        known = (tokens, new_tokens, self.depths, self.visits, self.priors)
        sizes, new_sizes, depths, visits, priors = (unknown if each is None else each for each in known)
        rows = zip(
            keys, priorities, sizes, new_sizes, parents, depths, envs, visits, priors, [self.actions] * len(keys),
            strict=True,
        )  # fmt: skip
        return [_MAKE(EntryInfo, row) for row in rows]


def check_priority(priority: float, where: str) -> None:
    """Raise TypeError or ValueError if entries cannot be ordered by ``priority``; ``where`` begins the message."""
    try:
        is_number = not math.isnan(priority)
    except (TypeError, OverflowError):
        raise TypeError(f"{where}: a priority must be a number that a float holds, got {priority!r:.40}") from None
    if not is_number:
        raise ValueError(f"{where}: a priority must not be NaN")


def check_known(info: EntryInfo, where: str) -> None:
    """Raise TypeError or ValueError if what is known of an entry cannot be; ``where`` begins the message."""
    if type(info) is not EntryInfo:
        raise TypeError(f"{where}: what is known of an entry is an EntryInfo, got {type(info).__name__}")
    try:
        hash(info.parent)
    except TypeError:
        raise TypeError(
            f"{where}: a parent is a key, which must be hashable, got {type(info.parent).__name__}"
        ) from None
    for name in ("depth", "env", "visits", "actions"):
        _check_whole(name, getattr(info, name), where)
    _check_prior(info.prior, where)


def check_info(info: SearchInfo, rows: int, where: str) -> None:
    """Raise TypeError or ValueError if a search cannot know this of so many rows; ``where`` begins the message."""
    if type(info) is not SearchInfo:
        raise TypeError(f"{where}: what a search knows is a SearchInfo, got {type(info).__name__}")
    for name, column in info.columns().items():
        if len(column) != rows:
            raise ValueError(f"{where}: there must be one of {name} for each of {rows} rows, got {len(column)}")
        if not _is_plain(name, column):
            for value in column:
                if name == "priors":
                    _check_prior(value, where)
                else:
                    _check_whole(name, value, where)
    _check_whole("actions", info.actions, where)


def _is_plain(name: str, column: Sequence[Any]) -> bool:
    """Whether all of a column is of the usual types and in range: much faster than to check each value by itself."""
    kinds = set(map(type, column))
    if name == "priors":
        return kinds == {float} and all(0 <= value <= 1 for value in column)
    return kinds == {int} and min(column) >= _LEAST[name]


def _check_whole(name: str, value: Any, where: str) -> None:
    if value is not None and (not is_whole(value) or value < _LEAST[name]):
        raise ValueError(f"{where}: {name} must be an integer from {_LEAST[name]} on, or None, got {value!r:.40}")


def _check_prior(value: Any, where: str) -> None:
    if value is not None and (not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1):
        raise ValueError(f"{where}: a prior must be a number from 0 to 1, or None, got {value!r:.40}")
