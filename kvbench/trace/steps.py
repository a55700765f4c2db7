"""A trace as the inferences it is made of: what a replay drives a backend with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kvbench.trace.schema import CLEAR, LOOKUP, ROOT_SIMULATION, STORE
from kvcache import Scope

__all__ = ["Step", "read_steps"]


@dataclass(slots=True)
class Step:
    """One inference of a trace: its rows, side by side, and what is cleared after it.

    Attributes:
        scope: root or recurrent inference.
        search: number of the search.
        simulation: number of the simulation; ``ROOT_SIMULATION`` for the root inference.
        envs: environment of each row.
        parents: key whose context each row extends; None for a row that starts from nothing.
        nodes: row number of the store event that each lookup means; None where it means nothing stored.
        recorded_hits: what the recorded run saw; None where nothing was recorded.
        keys: key that each row is stored under; empty where the batch stored nothing.
        stores: row number of each row's store event.
        depths: steps of each row's new latent below its root; 0 where the trace does not say.
        tokens: new tokens that the model appends to every row.
        clears: what is forgotten after the inference: ``recur``, ``init``, ``all``.
    """

    scope: Scope
    search: int
    simulation: int
    envs: list[int] = field(default_factory=list)
    parents: list[int | None] = field(default_factory=list)
    nodes: list[int | None] = field(default_factory=list)
    recorded_hits: list[bool | None] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    stores: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    tokens: int = 0
    clears: list[str] = field(default_factory=list)

    @property
    def is_recurrent(self) -> bool:
        """Whether this is a recurrent step: a simulation of a search, with rows."""
        return self.scope is Scope.NODE and bool(self.envs)


def read_steps(events: Iterable[dict[str, Any]], searches: int | None = None) -> Iterator[Step]:
    """Group checked events (``TraceReader.events``) into steps; with ``searches`` those of the first so many only.

    What comes after them is then neither read nor checked.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    for row, event in enumerate(events):
        if searches is not None and event["search"] >= searches:
            break
        if rows and event["batch"] != rows[0][1]["batch"]:
            yield _step(rows)
            rows = []
        rows.append((row, event))
    if rows:
        yield _step(rows)


def _step(rows: list[tuple[int, dict[str, Any]]]) -> Step:
    first = rows[0][1]
    step = Step(
        Scope.ROOT if first["simulation"] == ROOT_SIMULATION else Scope.NODE, first["search"], first["simulation"]
    )
    lookups = {event["env"]: event for _, event in rows if event["kind"] == LOOKUP}
    stores = [(row, event) for row, event in rows if event["kind"] == STORE]
    # A batch that stores names its rows by its stores; one that does not (context_length 2) by its lookups.
    step.envs = [event["env"] for _, event in stores] or list(lookups)
    for env in step.envs:
        lookup = lookups.get(env, {})
        step.parents.append(lookup.get("key"))
        step.nodes.append(lookup.get("node"))
        step.recorded_hits.append(lookup.get("hit"))
        step.depths.append(lookup.get("depth") or 0)
    for row, event in stores:
        step.keys.append(event["key"])
        step.stores.append(row)
        step.tokens = event["tokens"]
    step.clears = [event["scope"] for _, event in rows if event["kind"] == CLEAR]
    return step
