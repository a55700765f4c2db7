"""The rules that each event of a trace keeps on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from kvbench.trace.columns import SCOPE_NAMES, Columns
from kvbench.trace.limits import out_of_bounds, rows_out_of_bounds
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
    Event,
    TraceHeader,
)

__all__ = ["Rule", "an", "event_rules"]

# Columns that an event of a kind must fill; all others that may be null stay null.
_NEEDED = {LOOKUP: ("key",), GENERATE: ("key",), ASSEMBLE: ("size",), STORE: ("key", "tokens"), CLEAR: ()}
_ALWAYS = ("env", "batch", "search", "simulation")

# By kind and scope: whether they go together. The last row and column are of unknown names.
_ALLOWED = np.array([[scope in SCOPES[kind] for scope in (*SCOPE_NAMES, "")] for kind in KINDS] + [[True] * 6])


class Rule(NamedTuple):
    """A rule, and the events that break it.

    Attributes:
        broken: whether each event is the first at which that shows.
        describe: what is wrong with such an event, of its values and its place among the events.
        rows: of which event that is said; None where it is said of the event itself.
    """

    broken: np.ndarray
    describe: Callable[[Event, int], str]
    rows: np.ndarray | None = None


def an(kind: str) -> str:
    """A kind with its article."""
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def event_rules(columns: Columns, header: TraceHeader) -> Iterator[Rule]:
    """In the order in which they are told."""
    yield from _shape(columns)
    yield from _values(columns, header)
    yield Rule(rows_out_of_bounds(columns.values, columns.nulls), lambda event, _: str(out_of_bounds(event)))


def _shape(columns: Columns) -> Iterator[Rule]:
    yield Rule(columns.kind < 0, lambda event, _: f"unknown kind {event['kind']!r}: one of {', '.join(KINDS)}")
    yield Rule(
        ~_ALLOWED[columns.kind, columns.scope],
        lambda event, _: f"{an(event['kind'])} has scope {event['scope']!r}: one of {', '.join(SCOPES[event['kind']])}",
    )
    for name in (*_ALWAYS, "key", "size", "tokens"):
        needed = np.array([name in _ALWAYS or name in _NEEDED[kind] for kind in KINDS] + [False])
        yield Rule(columns.nulls[name] & needed[columns.kind], _without(name))


def _without(name: str) -> Callable[[Event, int], str]:
    return lambda event, _: f"{an(event['kind'])} without a value in column {name!r}"


def _values(columns: Columns, header: TraceHeader) -> Iterator[Rule]:
    envs, context, values = header.geometry.env_num, header.geometry.context_length, columns.values
    env, size, tokens = values["env"], values["size"], values["tokens"]
    is_clear = columns.kind == KINDS.index(CLEAR)
    of_one = ~(is_clear & (env == NO_ENV))
    yield Rule(
        of_one & ((env < 0) | (env >= envs)),
        lambda event, _: f"env {event['env']}: the header has environments 0 to {envs - 1}",
    )
    others = (columns.scope != SCOPE_NAMES.index("init")) | (header.schema_version == SCHEMA_VERSION)
    yield Rule(
        is_clear & of_one & others,
        lambda event, _: (
            f"a clear of env {event['env']} alone is one of init, in schema version {WITH_CLEARS_OF_ONE} and later"
        ),
    )
    yield Rule(
        (values["batch"] < 0) | (values["search"] < 0) | (values["simulation"] < ROOT_SIMULATION),
        lambda event, _: "a negative batch, search or simulation number",
    )
    yield Rule(size < 0, lambda event, _: f"size {event['size']} is negative")
    yield Rule(values["depth"] < 0, lambda event, _: f"depth {event['depth']} is negative")
    yield Rule(size > context, lambda event, _: f"size {event['size']} is over the context_length of {context}")
    yield Rule(
        ~columns.nulls["tokens"] & ((tokens <= 0) | (tokens > context)),
        lambda event, _: f"{event['tokens']} new tokens: a store has 1 to {context}",
    )
