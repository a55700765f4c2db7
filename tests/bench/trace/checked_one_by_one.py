"""The rules of a trace, event by event and without NumPy: what the checker of whole row groups is judged by."""

from __future__ import annotations

from array import array
from pathlib import Path

from kvbench.trace.limits import out_of_bounds
from kvbench.trace.schema import (
    ASSEMBLE,
    CLEAR,
    GENERATE,
    KINDS,
    LOOKUP,
    NO_ENV,
    ROOT_SIMULATION,
    SCHEMA_VERSION,
    SCOPES,
    STORE,
    WITH_CLEARS_OF_ONE,
    WITH_LEAVES,
    Event,
    TraceError,
    TraceHeader,
)

# Columns that an event of a kind must fill; all others that may be null stay null.
_NEEDED = {LOOKUP: ("key",), GENERATE: ("key",), ASSEMBLE: ("size",), STORE: ("key", "tokens"), CLEAR: ()}

_FREE_CLEARS = 1000  # of a batch, beside one for each environment: somebody may clear what is clear


def _an(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


class OneByOne:
    """Checks the events of the trace at ``path`` in order: each on its own, and its place among the others."""

    def __init__(self, path: Path, header: TraceHeader) -> None:
        self._path = path
        self._geometry, self._version = header.geometry, header.schema_version
        self._keys, self._stores = array("Q"), bytearray()  # of each row: the key that it stores, and whether it does
        self._begin_batch(-1, 0)
        self.reach = 0

    def _begin_batch(self, batch: int, row: int) -> None:
        self._batch, self._first_row = batch, row
        self._phase = self._clears = 0
        # Of this batch: kind -> row -> event.
        self._events: dict[str, dict[tuple[int, int], Event]] = {kind: {} for kind in KINDS}

    def check(self, row: int, event: Event) -> None:
        """Raise TraceError, with the row, if this next event breaks a rule."""
        fault = self._shape(event) or self._values(event) or self._order(row, event)
        if fault:
            raise TraceError(self._path, fault, row)
        if event["kind"] == LOOKUP and event["node"] is not None:
            self.reach = max(self.reach, row - event["node"])
        stores = event["kind"] == STORE
        self._keys.append(event["key"] if stores else 0)
        self._stores.append(stores)

    def _shape(self, event: Event) -> str | None:
        kind, scope = event["kind"], event["scope"]
        if kind not in KINDS:
            return f"unknown kind {kind!r}: one of {', '.join(KINDS)}"
        if scope not in SCOPES[kind]:
            return f"{_an(kind)} has scope {scope!r}: one of {', '.join(SCOPES[kind])}"
        for name in ("env", "batch", "search", "simulation", *_NEEDED[kind]):
            if event[name] is None:
                return f"{_an(kind)} without a value in column {name!r}"
        return None

    def _values(self, event: Event) -> str | None:
        geometry = self._geometry
        kind = event["kind"]
        of_all = kind == CLEAR and event["env"] == NO_ENV
        if not of_all and not 0 <= event["env"] < geometry.env_num:
            return f"env {event['env']}: the header has environments 0 to {geometry.env_num - 1}"
        if kind == CLEAR and not of_all and (event["scope"] != "init" or self._version == SCHEMA_VERSION):
            return (
                f"a clear of env {event['env']} alone is one of init, in schema version {WITH_CLEARS_OF_ONE} and later"
            )
        if event["batch"] < 0 or event["search"] < 0 or event["simulation"] < ROOT_SIMULATION:
            return "a negative batch, search or simulation number"
        for name in ("size", "depth"):
            if event[name] is not None and event[name] < 0:
                return f"{name} {event[name]} is negative"
        size, tokens = event["size"], event["tokens"]
        if size is not None and size > geometry.context_length:
            return f"size {size} is over the context_length of {geometry.context_length}"
        if tokens is not None and not 0 < tokens <= geometry.context_length:
            return f"{tokens} new tokens: a store has 1 to {geometry.context_length}"
        return out_of_bounds(event)

    def _order(self, row: int, event: Event) -> str | None:
        kind, batch = event["kind"], event["batch"]
        if batch < self._batch:
            return f"batch {batch} after batch {self._batch}: batches come in order"
        if batch > self._batch:
            self._end_batch()
            self._begin_batch(batch, row)
        phase = KINDS.index(kind)
        if phase < self._phase:
            return f"{_an(kind)} after {_an(KINDS[self._phase])} of the same batch"
        self._phase = phase
        self._clears += kind == CLEAR
        if self._clears > self._geometry.env_num + _FREE_CLEARS:
            return f"{self._clears} clears in batch {batch}: more than there is to clear"
        place = self._place(event)
        if kind != CLEAR and place in self._events[kind]:
            of_one = f" and simulation {place[1]}" if self._version == WITH_LEAVES else ""
            return f"a second {kind} of env {place[0]}{of_one} in batch {batch}"
        if kind in (LOOKUP, STORE) and self._version == WITH_LEAVES and self._skips(kind, *place):
            return (
                f"simulation {place[1]} of env {place[0]} in batch {batch}: its leaves are numbered one after another"
            )
        self._events[kind][place] = event
        if kind == LOOKUP:
            return self._lookup(event)
        if kind == GENERATE and self._parent(place) != event["key"]:
            return f"generates key {event['key']:#018x}, which env {place[0]} did not look up in this batch"
        if kind == STORE:
            return self._store(event)
        return None

    def _place(self, event: Event) -> tuple[int, int]:
        """Which row of its batch an event is of: environment, and simulation where there are several leaves."""
        return event["env"], event["simulation"] if self._version == WITH_LEAVES else 0

    def _skips(self, kind: str, env: int, simulation: int) -> bool:
        """Whether this leaf of an environment is neither the batch's first one nor the next one."""
        events = self._events[kind]
        first = next(iter(events), (env, simulation))[1]
        return simulation != first and (env, simulation - 1) not in events

    def _end_batch(self) -> None:
        """A batch stores all its rows or, at a context_length with no room for a past, none."""
        stores = self._events[STORE]
        for row, place in enumerate(self._events[LOOKUP], self._first_row):  # lookups are a batch's first rows
            if stores and place not in stores:
                of_batch = f"in batch {self._batch}, whose other environments store, but stores nothing"
                raise TraceError(self._path, f"env {place[0]} looks up {of_batch}", row)

    def _parent(self, place: tuple[int, int]) -> int | None:
        """The key that was looked up for a row of this batch."""
        lookup = self._events[LOOKUP].get(place)
        return None if lookup is None else lookup["key"]

    def _lookup(self, event: Event) -> str | None:
        node, key = event["node"], event["key"]
        if node is None:
            return None
        if not 0 <= node < len(self._stores) or not self._stores[node]:
            return f"the node it means, row {node}, is no store before this row"
        if self._keys[node] != key:
            return f"it looks up key {key:#018x} but means row {node}, which stored {self._keys[node]:#018x}"
        return None

    def _store(self, event: Event) -> str | None:
        parent, tokens, place = event["parent"], event["tokens"], self._place(event)
        env = place[0]
        others = next(iter(self._events[STORE].values()))["tokens"]
        if tokens != others:
            return f"{tokens} new tokens, but the batch's rows get {others}: one batch appends alike"
        if parent != self._parent(place):
            named = "no parent" if parent is None else f"the parent key {parent:#018x}"
            return f"the store names {named}, which no lookup of env {env} in this batch defines"
        assembled = self._events[ASSEMBLE]
        longest, limit = max((each["size"] for each in assembled.values()), default=0), self._geometry.context_length
        if longest + tokens > limit:
            return f"{tokens} new tokens on a batch of {longest} exceed the context_length of {limit}"
        if assembled and place not in assembled:
            return f"env {env} stores in batch {event['batch']} but was not assembled in it"
        return None
