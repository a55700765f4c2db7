"""The rules that the events of one inference keep among each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kvbench.trace.columns import Columns
from kvbench.trace.event_rules import Rule, an
from kvbench.trace.schema import ASSEMBLE, CLEAR, GENERATE, KINDS, LOOKUP, STORE, WITH_LEAVES, Event, TraceHeader

__all__ = ["Inferences"]

_FREE_CLEARS = 1000  # of an inference, beside one for each environment: somebody may clear what is clear
_KINDS, _ENVS, _SIMULATIONS, _SIZES = 2**3, 2**17, 2**21, 2**17  # more than there are of each

_LOOKUP, _GENERATE, _ASSEMBLE, _STORE, _CLEAR = map(KINDS.index, (LOOKUP, GENERATE, ASSEMBLE, STORE, CLEAR))


class Inferences:
    """Events in order, the first of which begins an inference.

    A rule is judged by an event and the ones before it. What is said after the first broken rule means nothing.
    """

    def __init__(self, columns: Columns, header: TraceHeader) -> None:
        self._columns, self._values = columns, columns.values
        self._geometry, self._has_leaves = header.geometry, header.schema_version == WITH_LEAVES
        self._kind = np.maximum(columns.kind, 0)
        self._rows = np.arange(len(columns))
        batch = self._values["batch"]
        begins = np.concatenate([np.ones(min(1, len(batch)), dtype=bool), batch[1:] != batch[:-1]])
        self._number = np.cumsum(begins) - 1  # of each event's inference
        self.first = np.flatnonzero(begins)  # event of each inference
        self._simulation = self._values["simulation"].astype(np.int64) if self._has_leaves else np.zeros_like(batch)
        self._codes = self._coded(self._number, self._kind, self._values["env"], self._simulation)
        self._order = np.argsort(self._codes, kind="stable")
        self._sorted = self._codes[self._order]

    def rules(self) -> Iterator[Rule]:
        """In the order in which they are told."""
        batch = self._values["batch"]
        before = np.concatenate([batch[:1], batch[:-1]])
        yield Rule(
            batch < before,
            lambda event, row: f"batch {event['batch']} after batch {before[row]}: batches come in order",
        )
        yield self._left_out()
        yield from self._order_within()
        if self._has_leaves:
            yield self._skipped()
        yield self._generated()
        yield from self._stored()

    def _coded(self, number: np.ndarray, kind: np.ndarray | int, env: np.ndarray, simulation: np.ndarray) -> np.ndarray:
        """A number for each row of an inference: of its environment, and its simulation where there are several."""
        env, simulation = np.clip(env, -1, _ENVS - 2) + 1, np.clip(simulation, -2, _SIMULATIONS - 3) + 2
        coded: np.ndarray = ((number * _KINDS + kind) * _ENVS + env) * _SIMULATIONS + simulation
        return coded

    def _rows_at(self, codes: np.ndarray) -> np.ndarray:
        """The first event with each code; as large as their number where there is none."""
        places = np.searchsorted(self._sorted, codes)
        inside = np.minimum(places, len(self._sorted) - 1)
        rows: np.ndarray = np.where(self._sorted[inside] == codes, self._order[inside], len(self._rows))
        return rows

    def _of_same(self, kind: int, rows: np.ndarray) -> np.ndarray:
        """The event of a kind, and of the row of the inference, that each of the events is of."""
        number, env, simulation = (each[rows] for each in (self._number, self._values["env"], self._simulation))
        return self._rows_at(self._coded(number, kind, env, simulation))

    def _marked(self, rows: np.ndarray) -> np.ndarray:
        marked = np.zeros(len(self._rows), dtype=bool)
        marked[rows] = True
        return marked

    def _count(self, kind: int) -> np.ndarray:
        """Events of a kind in the inference, up to each event."""
        counts = np.cumsum(self._kind == kind)
        before = np.concatenate([[0], counts[:-1]])[self.first]
        counted: np.ndarray = counts - before[self._number]
        return counted

    def _left_out(self) -> Rule:
        """An inference stores all its rows or, at a context_length with no room for a past, none."""
        stores = np.bincount(self._number[self._kind == _STORE], minlength=len(self.first))
        over = self._number < len(self.first) - 1
        lookups = np.flatnonzero((self._kind == _LOOKUP) & (stores[self._number] > 0) & over)
        lookups = lookups[self._of_same(_STORE, lookups) == len(self._rows)]
        numbers, places = np.unique(self._number[lookups], return_index=True)
        shows, left_out = self.first[numbers + 1], np.zeros(len(self._rows), dtype=np.int64)
        left_out[shows] = lookups[places]
        env, batch = self._values["env"], self._values["batch"]

        def describe(_: Event, row: int) -> str:
            at = left_out[row]
            of_batch = f"in batch {batch[at]}, whose other environments store, but stores nothing"
            return f"env {env[at]} looks up {of_batch}"

        return Rule(self._marked(shows), describe, left_out)

    def _order_within(self) -> Iterator[Rule]:
        phase = np.maximum.accumulate(self._number * _KINDS + self._kind) - self._number * _KINDS
        yield Rule(
            self._kind < phase,
            lambda event, row: f"{an(event['kind'])} after {an(KINDS[phase[row]])} of the same batch",
        )
        clears = self._count(_CLEAR)
        yield Rule(
            clears > self._geometry.env_num + _FREE_CLEARS,
            lambda event, row: f"{clears[row]} clears in batch {event['batch']}: more than there is to clear",
        )

        def describe(event: Event, _: int) -> str:
            of_one = f" and simulation {event['simulation']}" if self._has_leaves else ""
            return f"a second {event['kind']} of env {event['env']}{of_one} in batch {event['batch']}"

        again = np.empty(len(self._rows), dtype=bool)
        again[self._order] = np.concatenate([[False], self._sorted[1:] == self._sorted[:-1]])[: len(again)]
        yield Rule(again & (self._kind != _CLEAR), describe)

    def _skipped(self) -> Rule:
        """Each leaf of an environment is the inference's first one or the next one."""
        rows = np.flatnonzero((self._kind == _LOOKUP) | (self._kind == _STORE))
        number, kind, env = (each[rows] for each in (self._number, self._kind, self._values["env"]))
        simulation = self._simulation[rows]
        _, firsts, of = np.unique(number * _KINDS + kind, return_index=True, return_inverse=True)
        before = self._rows_at(self._coded(number, kind, env, simulation - 1))
        return Rule(
            self._marked(rows[(simulation != simulation[firsts][of]) & (before >= rows)]),
            lambda event, _: (
                f"simulation {event['simulation']} of env {event['env']} in batch {event['batch']}: "
                "its leaves are numbered one after another"
            ),
        )

    def _asked(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether there is a lookup of the same row before each of the events, and its key."""
        lookups = self._of_same(_LOOKUP, rows)
        return lookups < rows, self._values["key"][np.minimum(lookups, rows)]

    def _generated(self) -> Rule:
        rows = np.flatnonzero(self._kind == _GENERATE)
        asked, keys = self._asked(rows)
        return Rule(
            self._marked(rows[~asked | (keys != self._values["key"][rows])]),
            lambda event, _: (
                f"generates key {event['key']:#018x}, which env {event['env']} did not look up in this batch"
            ),
        )

    def _stored(self) -> Iterator[Rule]:
        rows, limit = np.flatnonzero(self._kind == _STORE), self._geometry.context_length
        tokens = np.zeros(len(self._rows), dtype=np.int64)  # of the inference's first store
        _, firsts, of = np.unique(self._number[rows], return_index=True, return_inverse=True)
        tokens[rows] = self._values["tokens"][rows][firsts][of]
        yield Rule(
            self._marked(rows[self._values["tokens"][rows] != tokens[rows]]),
            lambda event, row: (
                f"{event['tokens']} new tokens, but the batch's rows get {tokens[row]}: one batch appends alike"
            ),
        )
        asked, keys = self._asked(rows)
        parent, has_none = self._values["parent"][rows], self._columns.nulls["parent"][rows]
        yield Rule(self._marked(rows[np.where(has_none, asked, ~asked | (keys != parent))]), _unknown_parent)
        assembled = self._kind == _ASSEMBLE
        sizes = np.where(assembled, np.clip(self._values["size"], 0, _SIZES - 1), 0)
        longest = np.maximum.accumulate(self._number * _SIZES + sizes) - self._number * _SIZES
        yield Rule(
            (self._kind == _STORE) & (longest + self._values["tokens"] > limit),
            lambda event, row: (
                f"{event['tokens']} new tokens on a batch of {longest[row]} exceed the context_length of {limit}"
            ),
        )
        yield Rule(
            self._marked(rows[(self._count(_ASSEMBLE)[rows] > 0) & (self._of_same(_ASSEMBLE, rows) >= rows)]),
            lambda event, _: f"env {event['env']} stores in batch {event['batch']} but was not assembled in it",
        )


def _unknown_parent(event: Event, _: int) -> str:
    parent = event["parent"]
    named = "no parent" if parent is None else f"the parent key {parent:#018x}"
    return f"the store names {named}, which no lookup of env {event['env']} in this batch defines"
