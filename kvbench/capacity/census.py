"""What a pass over a trace's columns counts, before anything is replayed: how much there is, and how far it reaches.

Times between two clears of the recurrent pool are *periods*: of a recorded search, the searches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kvbench.replay.hierarchy import INIT, RECUR
from kvbench.trace.schema import CLEAR, LOOKUP, NO_ENV, ROOT_SIMULATION, STORE
from kvcache import Scope

__all__ = ["Census", "Rows", "number_rows"]


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a trace, ``[n]`` each.

    Attributes:
        first: row number of the first.
        batch: their columns.
        period: of each row: how many clears of the recurrent pool come before it.
        is_kind: by kind of event, whether each row is one.
    """

    first: int
    batch: pa.RecordBatch
    period: np.ndarray
    is_kind: dict[str, np.ndarray]

    def column(self, name: str) -> np.ndarray:
        """A column of numbers; null is -1 as a node, and 0 elsewhere."""
        return np.asarray(pc.fill_null(self.batch.column(name), -1 if name == "node" else 0).to_numpy())

    def scope_is(self, *names: str) -> np.ndarray:
        """Whether each row's scope is one of the names."""
        return _is(self.batch.column("scope"), *names)

    @property
    def is_root(self) -> np.ndarray:
        """Whether each row is of an initial inference."""
        return np.asarray(self.column("simulation") == ROOT_SIMULATION)


def number_rows(batches: Iterable[pa.RecordBatch], searches: int | None = None) -> Iterator[Rows]:
    """The rows of all batches, or of a trace's first searches: up to the first row of a later one."""
    first = period = 0
    for whole in batches:
        batch = whole if searches is None else _until(whole, searches)
        kinds = {kind: _is(batch.column("kind"), kind) for kind in (LOOKUP, STORE, CLEAR)}
        clears = kinds[CLEAR] & _is(batch.column("scope"), RECUR, "all")
        until = period + np.cumsum(clears)
        yield Rows(first, batch, until - clears, kinds)
        if batch.num_rows < whole.num_rows:
            return
        first, period = first + batch.num_rows, int(until[-1]) if len(until) else period


def _until(batch: pa.RecordBatch, searches: int) -> pa.RecordBatch:
    """The rows before the first one of a later search."""
    later = np.flatnonzero(batch.column("search").to_numpy() >= searches)
    return batch.slice(0, int(later[0])) if len(later) else batch


def _is(column: pa.DictionaryArray, *names: str) -> np.ndarray:
    """Whether each of a column's values is one of the names."""
    return np.asarray(pc.is_in(column.cast(pa.string()), pa.array(names)).to_numpy(zero_copy_only=False))


@dataclass
class Census:
    """What there is in a trace.

    Attributes:
        events: rows.
        searches: different ones.
        lookups: by scope.
        periods: numbers of those with a lookup of a recurrent inference; ascending.
        reach: how many rows before its own the furthest node lies that a lookup means.
        least_tokens: that a store appends, by kind of pool; 1 without any.
        crosses: whether a recurrent inference means a node that was stored in the recurrent pool, and cleared since.
        most_entries: by kind: of one pool at a time, if it never evicts.
    """

    events: int = 0
    searches: int = 0
    lookups: dict[Scope, int] = field(default_factory=lambda: dict.fromkeys(Scope, 0))
    periods: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    reach: int = 0
    least_tokens: dict[str, int] = field(default_factory=dict)
    crosses: bool = False
    most_entries: dict[str, int] = field(default_factory=lambda: dict.fromkeys((INIT, RECUR), 0))

    @classmethod
    def of(cls, parts: Iterable[Rows]) -> Census:
        """Count over all rows of a trace."""
        census, reaches, pools, searches = cls(), _Reaches(), _Pools(), set[int]()
        for rows in parts:
            census.events += rows.batch.num_rows
            searches.update(np.unique(rows.column("search")).tolist())
            is_lookup, is_root = rows.is_kind[LOOKUP], rows.is_root
            census.lookups[Scope.ROOT] += int((is_lookup & is_root).sum())
            census.lookups[Scope.NODE] += int((is_lookup & ~is_root).sum())
            reaches.add(rows)
            pools.add(rows)
        census.periods = np.unique(np.concatenate([*reaches.periods, census.periods]))
        census.reach, census.crosses, census.searches = reaches.reach, reaches.crosses, len(searches)
        census.most_entries = pools.most
        census.least_tokens = {kind: least or 1 for kind, least in pools.least_tokens.items()}
        return census


class _Reaches:
    """How far back the nodes lie that lookups mean."""

    def __init__(self) -> None:
        self.periods: list[np.ndarray] = []  # with a recurrent lookup, of each part
        self.reach, self.crosses = 0, False
        self._starts = [0]  # row numbers at which periods begin
        self._roots = np.empty(0, dtype=np.int64)  # row numbers of stores into init pools

    def add(self, rows: Rows) -> None:
        numbers = rows.first + np.arange(rows.batch.num_rows)
        new = np.flatnonzero(np.diff(rows.period, prepend=len(self._starts) - 1))
        self._starts += numbers[new].tolist()
        self._roots = np.append(self._roots, numbers[rows.is_kind[STORE] & rows.scope_is(INIT)])
        of_node = rows.is_kind[LOOKUP] & ~rows.is_root
        self.periods.append(np.unique(rows.period[of_node]))
        node = rows.column("node")
        means = rows.is_kind[LOOKUP] & (node >= 0)
        if means.any():
            self.reach = max(self.reach, int((numbers - node)[means].max()))
        earlier = node[means & of_node & (node < np.array(self._starts)[rows.period])]
        self.crosses |= not np.isin(earlier, self._roots).all()


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
            tokens = rows.column("tokens")[rows.is_kind[STORE] & rows.scope_is(kind)]
            if len(tokens):
                self.least_tokens[kind] = min(least or int(tokens[0]), int(tokens.min()))
        self._add_recurrent(rows)
        is_store = rows.is_kind[STORE] & rows.scope_is(INIT)
        wanted = np.flatnonzero(is_store | (rows.is_kind[CLEAR] & rows.scope_is(INIT, "all")))
        envs, keys = rows.column("env")[wanted].tolist(), rows.column("key")[wanted].tolist()
        for env, key, stored in zip(envs, keys, is_store[wanted].tolist(), strict=True):
            self._init(env, key if stored else None)

    def _add_recurrent(self, rows: Rows) -> None:
        stores = rows.is_kind[STORE] & rows.scope_is(RECUR)
        keys, periods = rows.column("key")[stores], rows.period[stores]
        for period in np.unique(periods):
            before = self._recurrent if period == self._period else self._recurrent[:0]
            self._recurrent, self._period = np.union1d(before, keys[periods == period]), int(period)
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
