"""The rules that the events of a trace keep, one by one and in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kvbench.trace.schema import (
    ASSEMBLE,
    CLEAR,
    GENERATE,
    KINDS,
    LOOKUP,
    ROOT_SIMULATION,
    SCOPES,
    STORE,
    TraceError,
    TraceHeader,
)

__all__ = ["Event", "EventChecker"]

Event = dict[str, Any]

# Columns that an event of a kind must fill; all others that may be null stay null.
_NEEDED: dict[str, tuple[str, ...]] = {
    LOOKUP: ("key",),
    GENERATE: ("key",),
    ASSEMBLE: ("size",),
    STORE: ("key", "tokens"),
    CLEAR: (),
}


def _an(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


class EventChecker:
    """Checks events in order: each on its own, and its place among the others.

    Args:
        path: of the trace, for errors.
        header: of the trace.
    """

    def __init__(self, path: Path, header: TraceHeader) -> None:
        self._path = path
        self._geometry = header.geometry
        self._stored: dict[int, int] = {}  # row of a store -> its key
        self._batch = -1
        self._phase = 0
        self._parents: dict[int, int] = {}  # env -> key looked up in this batch
        self._lookups: dict[int, int] = {}  # env -> row of its lookup in this batch
        self._storing: set[int] = set()  # envs that store in this batch
        self._sizes: dict[int, int] = {}  # env -> size assembled in this batch
        self._seen: set[tuple[str, int]] = set()  # (kind, env) of this batch
        self._tokens: int | None = None

    def check(self, row: int, event: Event) -> None:
        """Raise TraceError, with the row, if this next event breaks a rule."""
        fault = self._shape(event) or self._values(event) or self._order(row, event)
        if fault:
            raise TraceError(self._path, fault, row)

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
        if kind != CLEAR and not 0 <= event["env"] < geometry.env_num:
            return f"env {event['env']}: the header has environments 0 to {geometry.env_num - 1}"
        if event["batch"] < 0 or event["search"] < 0 or event["simulation"] < ROOT_SIMULATION:
            return "a negative batch, search or simulation number"
        size, tokens, depth = event["size"], event["tokens"], event["depth"]
        if size is not None and size < 0:
            return f"size {size} is negative"
        if size is not None and size > geometry.context_length:
            return f"size {size} is over the context_length of {geometry.context_length}"
        if tokens is not None and not 0 < tokens <= geometry.context_length:
            return f"{tokens} new tokens: a store has 1 to {geometry.context_length}"
        if depth is not None and depth < 0:
            return f"depth {depth} is negative"
        return None

    def _order(self, row: int, event: Event) -> str | None:
        kind, env, batch = event["kind"], event["env"], event["batch"]
        if batch < self._batch:
            return f"batch {batch} after batch {self._batch}: batches come in order"
        if batch > self._batch:
            self._begin_batch(batch)
        phase = KINDS.index(kind)
        if phase < self._phase:
            return f"{_an(kind)} after {_an(KINDS[self._phase])} of the same batch"
        self._phase = phase
        if kind != CLEAR:
            if (kind, env) in self._seen:
                return f"a second {kind} of env {env} in batch {batch}"
            self._seen.add((kind, env))
        return {
            LOOKUP: self._lookup,
            GENERATE: self._generate,
            ASSEMBLE: self._assemble,
            STORE: self._store,
            CLEAR: self._clear,
        }[kind](row, event)

    def _begin_batch(self, batch: int) -> None:
        self._end_batch()
        self._batch, self._phase, self._tokens = batch, 0, None
        for each in (self._parents, self._lookups, self._storing, self._sizes, self._seen):
            each.clear()

    def _end_batch(self) -> None:
        """A batch stores all its rows or, at a context_length with no room for a past, none."""
        for env, row in self._lookups.items():
            if self._storing and env not in self._storing:
                fault = f"env {env} looks up in batch {self._batch}, whose other environments store, but stores nothing"
                raise TraceError(self._path, fault, row)

    def _lookup(self, row: int, event: Event) -> str | None:
        node = event["node"]
        if node is not None and node not in self._stored:
            return f"the node it means, row {node}, is no store before this row"
        if node is not None and self._stored[node] != event["key"]:
            return f"it looks up key {event['key']:#018x} but means row {node}, which stored {self._stored[node]:#018x}"
        self._parents[event["env"]] = event["key"]
        self._lookups[event["env"]] = row
        return None

    def _generate(self, row: int, event: Event) -> str | None:
        if self._parents.get(event["env"]) != event["key"]:
            return f"generates key {event['key']:#018x}, which env {event['env']} did not look up in this batch"
        return None

    def _assemble(self, row: int, event: Event) -> str | None:
        self._sizes[event["env"]] = event["size"]
        return None

    def _store(self, row: int, event: Event) -> str | None:
        parent, env, tokens = event["parent"], event["env"], event["tokens"]
        if self._tokens is not None and tokens != self._tokens:
            return f"{tokens} new tokens, but the batch's rows get {self._tokens}: one batch appends alike"
        self._tokens = tokens
        if parent != self._parents.get(env):
            named = "no parent" if parent is None else f"the parent key {parent:#018x}"
            return f"the store names {named}, which no lookup of env {env} in this batch defines"
        longest = max(self._sizes.values(), default=0)
        if longest + tokens > self._geometry.context_length:
            return (
                f"{tokens} new tokens on a batch of {longest} exceed the context_length of "
                f"{self._geometry.context_length}"
            )
        if self._sizes and env not in self._sizes:
            return f"env {env} stores in batch {event['batch']} but was not assembled in it"
        self._stored[row] = event["key"]
        self._storing.add(env)
        return None

    def _clear(self, row: int, event: Event) -> str | None:
        return None
