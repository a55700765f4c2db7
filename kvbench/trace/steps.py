"""A trace as the inferences it is made of: what a replay drives a backend with."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from typing import overload

from kvbench.trace.schema import CLEAR, LOOKUP, NO_ENV, ROOT_SIMULATION, STORE, Event
from kvcache import Scope, SearchInfo

__all__ = ["PackedSteps", "Step", "read_steps"]

_NONE = -1  # in place of a node or a hit


@dataclass(slots=True)
class Step:
    """One inference of a trace: its rows, side by side, and what is cleared after it."""

    scope: Scope  # root or recurrent inference
    search: int
    simulation: int  # of the search; ``ROOT_SIMULATION`` for the root inference; of several leaves the first
    envs: list[int] = field(default_factory=list)  # of each row
    parents: list[int | None] = field(default_factory=list)  # key of the context that a row extends; None: of none
    nodes: list[int | None] = field(default_factory=list)  # row number of the store event that a lookup means, or None
    recorded_hits: list[bool | None] = field(default_factory=list)  # of the recorded run; None: not recorded
    keys: list[int] = field(default_factory=list)  # that rows are stored under; empty where nothing was stored
    stores: list[int] = field(default_factory=list)  # row number of each row's store event
    depths: list[int] = field(default_factory=list)  # steps of each new latent below its root; 0: not recorded
    tokens: int = 0  # that the model appends to every row
    # Cleared after the inference: ``recur``, ``init``, ``all``; and environments whose init cache alone is.
    clears: list[str] = field(default_factory=list)
    cleared_envs: list[int] = field(default_factory=list)

    @property
    def is_recurrent(self) -> bool:
        """Whether this is a recurrent step: a simulation of a search, with rows."""
        return self.scope is Scope.NODE and bool(self.envs)

    @property
    def info(self) -> SearchInfo:
        """What the search knew of the rows."""
        is_root = self.scope is Scope.ROOT
        return SearchInfo(depths=[0 if is_root else depth or None for depth in self.depths])

    @property
    def simulations(self) -> list[int]:
        """Of each row: further leaves of an environment have the next numbers."""
        if self.scope is Scope.ROOT or len(set(self.envs)) == len(self.envs):
            return [self.simulation] * len(self.envs)
        leaves: Counter[int] = Counter()
        simulations = []
        for env in self.envs:
            simulations.append(self.simulation + leaves[env])
            leaves[env] += 1
        return simulations


def read_steps(events: Iterable[Event], searches: int | None = None) -> Iterator[Step]:
    """Group checked events (``TraceReader.events``) into steps; with ``searches`` those of the first so many only.

    What comes after them is then neither read nor checked.
    """
    wanted = takewhile(lambda row: searches is None or row[1]["search"] < searches, enumerate(events))
    for _, rows in groupby(wanted, key=lambda row: row[1]["batch"]):
        yield _step(list(rows))


def _step(rows: list[tuple[int, Event]]) -> Step:
    _, first = rows[0]
    scope = Scope.ROOT if first["simulation"] == ROOT_SIMULATION else Scope.NODE
    step = Step(scope, first["search"], first["simulation"])
    lookups = {(event["env"], event["simulation"]): event for _, event in rows if event["kind"] == LOOKUP}
    stores = [(row, event) for row, event in rows if event["kind"] == STORE]
    # A batch that stores names its rows by its stores; one that does not (context_length 2) by its lookups.
    for env, simulation in [(event["env"], event["simulation"]) for _, event in stores] or lookups:
        lookup = lookups.get((env, simulation), {})
        step.envs.append(env)
        step.parents.append(lookup.get("key"))
        step.nodes.append(lookup.get("node"))
        step.recorded_hits.append(lookup.get("hit"))
        step.depths.append(lookup.get("depth") or 0)
    for row, event in stores:
        step.keys.append(event["key"])
        step.stores.append(row)
        step.tokens = event["tokens"]
    clears = [event for _, event in rows if event["kind"] == CLEAR]
    step.clears = [event["scope"] for event in clears if event["env"] == NO_ENV]
    step.cleared_envs = [event["env"] for event in clears if event["env"] != NO_ENV]
    return step


class PackedSteps(Sequence[Step]):
    """Steps as columns of numbers: some ten bytes an event. Each step is made anew when it is asked for."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._scopes: list[Scope] = []
        self._searches, self._simulations, self._tokens = array("q"), array("q"), array("q")
        self._clears: dict[int, tuple[list[str], list[int]]] = {}  # of steps that clear something
        self._rows, self._stores_from = array("q", [0]), array("q", [0])  # where each step's rows and stores begin
        self._envs, self._depths, self._nodes, self._hits = array("i"), array("i"), array("q"), array("b")
        self._parents, self._asks = array("Q"), array("b")  # the key is one, and not None
        self._keys, self._stores = array("Q"), array("q")
        for step in steps:
            self._add(step)

    def _add(self, step: Step) -> None:
        if step.clears or step.cleared_envs:
            self._clears[len(self)] = step.clears, step.cleared_envs
        self._scopes.append(step.scope)
        self._searches.append(step.search)
        self._simulations.append(step.simulation)
        self._tokens.append(step.tokens)
        self._envs.extend(step.envs)
        self._depths.extend(step.depths)
        self._nodes.extend([_NONE if node is None else node for node in step.nodes])
        self._hits.extend([_NONE if hit is None else hit for hit in step.recorded_hits])
        self._parents.extend([0 if parent is None else parent for parent in step.parents])
        self._asks.extend([parent is not None for parent in step.parents])
        self._keys.extend(step.keys)
        self._stores.extend(step.stores)
        self._rows.append(len(self._envs))
        self._stores_from.append(len(self._keys))

    def __len__(self) -> int:
        return len(self._scopes)

    @overload
    def __getitem__(self, place: int) -> Step: ...
    @overload
    def __getitem__(self, place: slice) -> list[Step]: ...
    def __getitem__(self, place: int | slice) -> Step | list[Step]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        rows = slice(self._rows[number], self._rows[number + 1])
        stores = slice(self._stores_from[number], self._stores_from[number + 1])
        asked = zip(self._parents[rows], self._asks[rows], strict=True)
        clears, cleared_envs = self._clears.get(number, ([], []))
        return Step(
            self._scopes[number],
            self._searches[number],
            self._simulations[number],
            self._envs[rows].tolist(),
            [parent if asks else None for parent, asks in asked],
            [None if node == _NONE else node for node in self._nodes[rows]],
            [None if hit == _NONE else bool(hit) for hit in self._hits[rows]],
            self._keys[stores].tolist(),
            self._stores[stores].tolist(),
            self._depths[rows].tolist(),
            self._tokens[number],
            list(clears),
            list(cleared_envs),
        )
