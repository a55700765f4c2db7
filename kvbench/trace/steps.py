"""A trace as the inferences it is made of: what a replay drives a backend with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise, takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from kvbench.trace.columns import SCOPE_NAMES, Columns, whole_inferences
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import CLEAR, COLUMNS, KINDS, LOOKUP, NO_ENV, ROOT_SIMULATION, STORE, Event
from kvcache import Scope

if TYPE_CHECKING:
    from kvcache import SearchInfo

__all__ = ["Step", "TraceSteps", "reach_of", "read_steps", "steps_of"]


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
    # Of each store, as in ``EVENT_SCHEMA``; empty where nothing of it was recorded. And of the whole search.
    visits: list[int | None] = field(default_factory=list)
    priors: list[float | None] = field(default_factory=list)
    actions: int | None = field(default=None, compare=False)  # events do not say it, their header does
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
        from kvcache import SearchInfo  # an older library, as a sweep of commits has it, knows none and asks for none

        is_root = self.scope is Scope.ROOT
        depths = [0 if is_root else depth or None for depth in self.depths]
        return SearchInfo(depths, self.visits or None, self.priors or None, self.actions)

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

    What comes after them is then neither read nor checked. These steps lack the trace's number of actions, which those
    of ``TraceSteps`` have.
    """
    wanted = takewhile(lambda row: searches is None or row[1]["search"] < searches, enumerate(events))
    for _, numbered in groupby(wanted, key=lambda row: row[1]["batch"]):
        rows, inference = zip(*numbered, strict=True)
        yield _step(rows, {name: [event[name] for event in inference] for name in COLUMNS})


def steps_of(columns: Columns, rows: Sequence[int], actions: int | None = None) -> Iterator[Step]:
    """The steps of whole inferences.

    Args:
        columns: their events.
        rows: row numbers of these in the trace.
        actions: as in ``TraceHeader``.
    """
    batch = columns.values["batch"]
    begins = np.flatnonzero(batch[1:] != batch[:-1]) + 1
    lists: dict[str, list[Any]] = {name: columns.list_of(name) for name in columns.values}
    lists["kind"] = [KINDS[each] for each in columns.kind.tolist()]
    lists["scope"] = [SCOPE_NAMES[each] for each in columns.scope.tolist()]
    for begin, end in pairwise([0, *begins.tolist(), len(columns)]):
        step = _step(rows[begin:end], {name: each[begin:end] for name, each in lists.items()})
        step.actions = actions
        yield step


def _step(numbers: Sequence[int], events: Mapping[str, Sequence[Any]]) -> Step:
    """Of the events of one inference, by column; ``numbers`` are their rows in the trace."""
    simulation = events["simulation"][0]
    step = Step(Scope.ROOT if simulation == ROOT_SIMULATION else Scope.NODE, events["search"][0], simulation)
    rows: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for row, kind in enumerate(events["kind"]):
        rows[kind].append(row)
    lookups, stores = rows[LOOKUP], rows[STORE]
    places = list(zip(events["env"], events["simulation"], strict=True))
    at = {places[row]: row for row in lookups}
    # A batch that stores names its rows by its stores; one that does not (context_length 2) by its lookups.
    named = [places[row] for row in stores or lookups]
    step.envs = [env for env, _ in named]
    asked = [at.get(place) for place in named]
    for name, column in (("key", step.parents), ("node", step.nodes), ("hit", step.recorded_hits)):
        values = events[name]
        column.extend([None if row is None else values[row] for row in asked])
    depths = events["depth"]
    step.depths = [0 if row is None else depths[row] or 0 for row in asked]
    if stores:
        step.keys = [events["key"][row] for row in stores]
        step.stores = [numbers[row] for row in stores]
        step.tokens = events["tokens"][stores[-1]]
        for name, known in (("visits", step.visits), ("prior", step.priors)):
            values = [events[name][row] for row in stores]
            if any(value is not None for value in values):
                known.extend(values)
    for row in rows[CLEAR]:
        if events["env"][row] == NO_ENV:
            step.clears.append(events["scope"][row])
        else:
            step.cleared_envs.append(events["env"][row])
    return step


def reach_of(steps: Iterable[Step]) -> int | None:
    """Most rows from a lookup back to the store whose node it means; None where the steps do not say."""
    return getattr(steps, "reach", None)


class TraceSteps(Collection[Step]):
    """The steps of a trace, or of its first ``searches``: read from the file each time that they are gone through.

    So a long trace takes no more memory than a row group and an inference of it. All of it is checked at once.

    Attributes:
        reach: most rows from a lookup back to the store whose node it means.

    Raises:
        TraceError: the trace is not sound.
    """

    def __init__(self, reader: TraceReader, searches: int | None = None) -> None:
        self._reader, self._searches = reader, searches
        self._events = self._count = 0  # until the last one of a search that is wanted; steps
        checker, read, last = reader.checker(), 0, -1
        for batch in reader.sound(checker):
            inference, search = (batch.column(name).to_numpy() for name in ("batch", "search"))
            begins = np.diff(inference, prepend=last) != 0
            wanted = np.ones(len(search), dtype=bool) if searches is None else search < searches
            self._count += int((begins & wanted).sum())
            if wanted.any():
                self._events = read + int(np.flatnonzero(wanted)[-1]) + 1
            read, last = read + len(search), inference[-1] if len(inference) else last
        self.reach = checker.reach

    def __len__(self) -> int:
        return self._count

    def __contains__(self, step: object) -> bool:
        return any(each == step for each in self)

    def __iter__(self) -> Iterator[Step]:
        for first, columns in whole_inferences(self._reader.batches()):
            if first >= self._events:
                return
            for step in steps_of(columns, range(first, first + len(columns)), self._reader.header.actions):
                if self._searches is None or step.search < self._searches:
                    yield step
