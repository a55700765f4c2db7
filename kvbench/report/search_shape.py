"""The shape of searches: how deep nodes are, how often one is extended, and how long it waits for that."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kvbench.trace.steps import Step
from kvcache import Scope

__all__ = ["NO_NODE", "SearchShape"]

NO_NODE = -1


@dataclass(slots=True)
class _Node:
    """A node that lookups may still mean."""

    number: int | None  # of its store among those into the recurrent pool, from 1 on; None of a root
    children: int = 0  # how often a lookup meant it


@dataclass
class _Depths:
    """Of the nodes of one simulation."""

    total: int = 0
    count: int = 0
    least: float = math.inf
    most: int = 0


class SearchShape:
    """Gathered step by step. It holds the nodes that a lookup may still mean, and those of one tree.

    Args:
        reach: most rows from a lookup back to the store whose node it means.

    Attributes:
        extended: nodes by how often a lookup meant them, roots included.
        reuse: lookups, by the stores into the recurrent pool between a node's own and the lookup: the entries that a
            pool which evicts in order needs to still hold it.
        never_asked: nodes stored into the recurrent pool that no lookup means.
    """

    def __init__(self, reach: int) -> None:
        self.extended: Counter[int] = Counter()
        self.reuse: Counter[int] = Counter()
        self.never_asked = 0
        self._reach = reach
        self._nodes: dict[int, _Node] = {}  # by the row of its store
        self._order: deque[int] = deque()  # of these rows
        self._stored = 0  # into the recurrent pool
        self._depths: dict[int, _Depths] = {}  # by simulation
        self._first: tuple[int, int] | None = None  # search and environment of the first root
        self._tree: list[tuple[int, int, int, bool]] = []  # row, simulation, parent and whether it is below the root

    def add(self, step: Step) -> None:
        """The next step."""
        recurrent = step.scope is Scope.NODE
        parents = [node if recurrent and node is not None else NO_NODE for node in step.nodes]
        for parent in parents:
            found = self._nodes.get(parent)
            if found is not None:
                found.children += 1
                if found.number is not None:
                    self.reuse[self._stored - found.number] += 1
        if not step.stores:
            return
        # A batch that stores nothing has rows, and no stores.
        rows = zip(step.stores, step.envs, step.simulations, step.depths, parents, strict=True)
        for store, env, simulation, depth, parent in rows:
            self._stored += recurrent
            self._nodes[store] = _Node(self._stored if recurrent else None)
            self._order.append(store)
            if recurrent:
                self._deepen(simulation, depth)
            elif self._first is None:
                self._first = step.search, env
            if self._first == (step.search, env):
                self._tree.append((store, simulation, parent, recurrent))
        self._close(step.stores[-1] - self._reach)

    def end(self) -> None:
        """No further step comes."""
        self._close(math.inf)

    def _close(self, until: float) -> None:
        """No lookup will mean a node that was stored before a row."""
        while self._order and self._order[0] < until:
            node = self._nodes.pop(self._order.popleft())
            self.extended[node.children] += 1
            self.never_asked += node.number is not None and not node.children

    def _deepen(self, simulation: int, depth: int) -> None:
        depths = self._depths.get(simulation) or self._depths.setdefault(simulation, _Depths())
        depths.total += depth
        depths.count += 1
        depths.least = min(depths.least, depth)
        depths.most = max(depths.most, depth)

    def depths(self) -> pd.DataFrame:
        """Of nodes in the recurrent pool: a row each ``simulation``, with ``mean``, ``min``, ``max`` and ``count``."""
        rows = [
            (simulation, each.total / each.count, int(each.least), each.most, each.count)
            for simulation, each in sorted(self._depths.items())
        ]
        return pd.DataFrame(rows, columns=["simulation", "mean", "min", "max", "count"])

    def tree(self) -> pd.DataFrame:
        """Nodes of the first search's first environment: its root, and what is below it.

        The index is the row of a node's store. Columns: ``simulation``, ``parent`` (index of the node that it extends;
        ``NO_NODE`` of a root) and ``depth``, which counts from the root.
        """
        depths: dict[int, int] = {}
        rows: list[dict[str, Any]] = []
        for store, simulation, parent, below in self._tree:
            if not rows or (below and parent in depths):
                depths[store] = depths[parent] + 1 if rows else 0
                rows.append({"store": store, "simulation": simulation, "parent": parent, "depth": depths[store]})
        columns = ["store", "simulation", "parent", "depth"]
        return pd.DataFrame(rows, columns=columns).set_index("store")
