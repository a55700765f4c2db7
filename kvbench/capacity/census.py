"""What a pass over a trace's columns counts, before anything is replayed: how much there is, and how far it reaches.

Times between two clears of the recurrent pool are *periods*: of a recorded search, the searches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from kvbench.replay.hierarchy import INIT, RECUR
from kvbench.trace.columns import SCOPE_NAMES, Columns
from kvbench.trace.schema import CLEAR, KINDS, LOOKUP, NO_ENV, ROOT_SIMULATION, STORE
from kvcache import Scope

__all__ = ["Census", "Rows", "number_rows"]


@dataclass(frozen=True)
class Rows:
    """Some events of a trace, ``n`` of them.

    Attributes:
        columns: of the events.
        numbers: of their rows in the trace, ``[n]``.
        period: of each event, ``[n]``: how many clears of the recurrent pool come before it.
    """

    columns: Columns
    numbers: np.ndarray
    period: np.ndarray

    def __getitem__(self, wanted: np.ndarray) -> Rows:
        return Rows(self.columns[wanted], self.numbers[wanted], self.period[wanted])

    def are(self, kind: str, *scopes: str) -> np.ndarray:
        """Whether each event is of that kind, and of one of the scopes if any are given."""
        return _are(self.columns, kind, *scopes)

    @property
    def is_root(self) -> np.ndarray:
        """Whether each event is of an initial inference."""
        return np.asarray(self.columns.values["simulation"] == ROOT_SIMULATION)


def _are(columns: Columns, kind: str, *scopes: str) -> np.ndarray:
    is_kind = columns.kind == KINDS.index(kind)
    if scopes:
        is_kind &= np.isin(columns.scope, [SCOPE_NAMES.index(each) for each in scopes])
    return np.asarray(is_kind)


def number_rows(parts: Iterable[tuple[int, Columns]], searches: int | None = None) -> Iterator[Rows]:
    """All events, or those of the first searches; ``parts`` are consecutive, each with the row number of its first."""
    period = 0
    for first, columns in parts:
        clears = _are(columns, CLEAR, RECUR, "all") & (columns.values["env"] == NO_ENV)
        until = period + np.cumsum(clears)
        period = int(until[-1]) if len(until) else period
        rows = Rows(columns, np.arange(first, first + len(columns)), until - clears)
        yield rows if searches is None else rows[columns.values["search"] < searches]


@dataclass
class Census:
    """What there is in a trace.

    Attributes:
        reach: as in ``TraceSteps``.
        events: rows.
        searches: different ones.
        lookups: by scope.
        periods: numbers of those with a lookup of a recurrent inference; ascending.
        crosses: whether a recurrent inference means a node that was stored in the recurrent pool, and cleared since.
        least_tokens: that a store appends, by kind of pool; 1 without any.
        most_entries: by kind: of one pool at a time, if it never evicts.
    """

    reach: int = 0
    events: int = 0
    searches: int = 0
    lookups: dict[Scope, int] = field(default_factory=lambda: dict.fromkeys(Scope, 0))
    periods: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    crosses: bool = False
    least_tokens: dict[str, int] = field(default_factory=dict)
    most_entries: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Iterable[Rows]) -> Census:
        """Count over all rows of a trace."""
        census, periods, pools, searches = cls(), _Periods(), _Pools(), set[int]()
        for rows in parts:
            census.events += len(rows.numbers)
            searches.update(np.unique(rows.columns.values["search"]).tolist())
            is_lookup, is_root = rows.are(LOOKUP), rows.is_root
            census.lookups[Scope.ROOT] += int((is_lookup & is_root).sum())
            census.lookups[Scope.NODE] += int((is_lookup & ~is_root).sum())
            periods.add(rows)
            pools.add(rows)
        census.periods = np.unique(np.concatenate([*periods.looked_up, census.periods]))
        census.crosses, census.searches = periods.crosses, len(searches)
        census.most_entries = pools.most
        census.least_tokens = {kind: least or 1 for kind, least in pools.least_tokens.items()}
        return census


class _Periods:
    """Which periods have lookups, and whether these mean nodes of earlier ones."""

    def __init__(self) -> None:
        self.looked_up: list[np.ndarray] = []  # of each part
        self.crosses = False
        self._starts = [0]  # row numbers at which periods begin
        self._roots = [np.empty(0, dtype=np.int64)]  # row numbers of stores into init pools

    def add(self, rows: Rows) -> None:
        new = np.diff(rows.period, prepend=len(self._starts) - 1)
        for place in np.flatnonzero(new):
            self._starts += [int(rows.numbers[place])] * int(new[place])
        self._roots.append(rows.numbers[rows.are(STORE, INIT)])
        asks = rows.are(LOOKUP) & ~rows.is_root
        self.looked_up.append(np.unique(rows.period[asks]))
        node, means = rows.columns.values["node"], asks & ~rows.columns.nulls["node"]
        earlier = node[means & (node < np.array(self._starts)[rows.period])]
        if len(earlier):
            self._roots = [np.concatenate(self._roots)]
            self.crosses |= not np.isin(earlier, self._roots[0]).all()


class _Pools:
    """Stores into pools that never evict.

    Attributes:
        most: entries of one pool at a time, by kind.
        least_tokens: of a store, by kind; 0 before the first.
    """

    def __init__(self) -> None:
        self._keys: dict[int, set[int]] = {}  # of each environment's init pool
        self._recurrent = np.empty(0, dtype=np.uint64)  # of the period that is not over
        self._period = 0
        self.most, self.least_tokens = dict.fromkeys((INIT, RECUR), 0), dict.fromkeys((INIT, RECUR), 0)

    def add(self, rows: Rows) -> None:
        for kind, least in self.least_tokens.items():
            tokens = rows.columns.values["tokens"][rows.are(STORE, kind)]
            if len(tokens):
                self.least_tokens[kind] = min(least or int(tokens[0]), int(tokens.min()))
        self._add_recurrent(rows[rows.are(STORE, RECUR)])
        is_store = rows.are(STORE, INIT)
        wanted = np.flatnonzero(is_store | rows.are(CLEAR, INIT, "all"))
        envs, keys = (rows.columns.values[name][wanted].tolist() for name in ("env", "key"))
        for env, key, stored in zip(envs, keys, is_store[wanted].tolist(), strict=True):
            self._init(env, key if stored else None)

    def _add_recurrent(self, stores: Rows) -> None:
        keys = stores.columns.values["key"]
        for period in np.unique(stores.period):
            before = self._recurrent if period == self._period else self._recurrent[:0]
            self._recurrent, self._period = np.union1d(before, keys[stores.period == period]), int(period)
            self.most[RECUR] = max(self.most[RECUR], len(self._recurrent))

    def _init(self, env: int, key: int | None) -> None:
        """A store into an environment's pool, or a clear of that or of all."""
        if key is not None:
            keys = self._keys.setdefault(env, set())
            keys.add(key)
            self.most[INIT] = max(self.most[INIT], len(keys))
        elif env == NO_ENV:
            self._keys.clear()
        else:
            self._keys.pop(env, None)
