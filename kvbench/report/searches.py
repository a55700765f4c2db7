"""The search as it ran: depths, tree shapes and how long entries wait until they are asked for, from a trace."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvbench.capacity.bounds import Future
from kvbench.replay.hierarchy import RECUR
from kvbench.report.text import clean
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceHeader
from kvbench.trace.steps import Step, read_steps
from kvcache import Scope

__all__ = ["Searches", "Tree", "read_searches"]


@dataclass
class Tree:
    """One environment's tree of one search.

    Attributes:
        simulations: in which each node was added; the root's is -1.
        depths: of each node below the root.
        parents: place of each node's parent in these lists; None for the root.
    """

    simulations: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    parents: list[int | None] = field(default_factory=list)


@dataclass
class Searches:
    """A trace's searches.

    Attributes:
        path: of the trace.
        header: of the trace, its texts fit to be shown.
        sha256: of the file.
        events, searches: how many.
        depth_by_simulation: depths of new nodes, counted, by simulation.
        reuse: stores into the recurrent pool between a node's own and each lookup of it, counted: the entries that a
            pool which evicts in order needs to still hold it.
        never_asked: nodes stored into the recurrent pool that no lookup means.
        children: nodes by how often they were extended, counted; roots included.
        tree: of the first search's first environment.
        future: its requests of the recurrent pool, for bounds.
    """

    path: Path
    header: TraceHeader
    sha256: str
    events: int
    searches: int = 0
    depth_by_simulation: dict[int, Counter[int]] = field(default_factory=dict)
    reuse: Counter[int] = field(default_factory=Counter)
    never_asked: int = 0
    children: Counter[int] = field(default_factory=Counter)
    tree: Tree = field(default_factory=Tree)
    future: Future = field(default_factory=lambda: Future([], RECUR))

    @property
    def name(self) -> str:
        """Of the file, fit to be shown."""
        return str(clean(self.path.name))


def read_searches(path: str | Path, sha256: str, searches: int | None = None) -> Searches:
    """Read a trace, all of it or its first searches.

    Raises:
        TraceError: as ``TraceReader``.
    """
    reader = TraceReader(path)
    steps = [step for step in read_steps(reader.events()) if searches is None or step.search < searches]
    header = TraceHeader(
        reader.header.geometry,
        _cleaned(reader.header.source),
        reader.header.synthetic,
        clean(reader.header.backend),
        _cleaned(reader.header.pools),
        clean(reader.header.created),
        clean(reader.header.recorder),
    )
    found = Searches(reader.path, header, sha256, reader.rows, len({step.search for step in steps}))
    found.future = Future(steps, RECUR)
    _Walk(found).through(steps)
    return found


def _cleaned(values: dict[str, Any]) -> dict[str, Any]:
    return {clean(key): clean(value) for key, value in values.items()}


class _Walk:
    """Fills a ``Searches`` step by step."""

    def __init__(self, found: Searches) -> None:
        self._found = found
        self._stored = 0  # into the recurrent pool
        self._when: dict[int, int] = {}  # row of a store into the recurrent pool -> how many came before it
        self._children: Counter[int] = Counter()  # by row of a store
        self._places: dict[int, int] = {}  # row of a store -> its place in the tree
        self._drawn: tuple[int, int] | None = None  # search and environment of the tree

    def through(self, steps: list[Step]) -> None:
        for step in steps:
            self._lookups(step)
            self._stores(step)
        self._found.children = Counter(self._children.values())
        self._found.never_asked = sum(not self._children[row] for row in self._when)

    def _lookups(self, step: Step) -> None:
        if step.scope is not Scope.NODE:
            return
        for node in step.nodes:
            if node is not None:
                self._children[node] += 1
                if node in self._when:
                    self._found.reuse[self._stored - self._when[node]] += 1

    def _stores(self, step: Step) -> None:
        recurrent = step.scope is Scope.NODE
        for row, store in enumerate(step.stores):
            self._children.setdefault(store, 0)
            if recurrent:
                self._stored += 1
                self._when[store] = self._stored
                self._found.depth_by_simulation.setdefault(step.simulation, Counter())[step.depths[row]] += 1
            self._grow(step, row, store)

    def _grow(self, step: Step, row: int, store: int) -> None:
        tree, place = self._found.tree, (step.search, step.envs[row])
        if step.scope is Scope.ROOT and self._drawn is None:
            self._drawn = place
            parent, depth = None, 0
        elif place == self._drawn and step.scope is Scope.NODE and step.nodes[row] in self._places:
            parent = self._places[step.nodes[row]]  # type: ignore[index]
            depth = tree.depths[parent] + 1
        else:
            return
        self._places[store] = len(tree.depths)
        tree.simulations.append(step.simulation)
        tree.depths.append(depth)
        tree.parents.append(parent)
