"""The search as it ran: depths, tree shapes and how long entries wait until they are asked for, from a trace."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from kvbench.capacity.bounds import Future
from kvbench.replay.hierarchy import RECUR
from kvbench.replay.needs import require_for_events
from kvbench.report.text import clean
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceHeader
from kvbench.trace.steps import Step, read_steps
from kvcache import Scope

__all__ = ["NO_NODE", "Searches", "read_searches"]

NO_NODE = -1


@dataclass(frozen=True)
class Searches:
    """A trace's searches.

    Attributes:
        path: of the trace.
        header: of the trace, its texts fit to be shown.
        sha256: of the file.
        events, searches: how many.
        nodes: a row for each store, whose event's row number is the index: ``search``, ``env``, ``simulation``,
            ``depth``, ``parent`` (index of the node that it extends; ``NO_NODE`` of a root), ``recurrent`` (whether it
            went into the recurrent pool; all others are roots) and ``children`` (how often a lookup meant it).
        reuse: lookups, counted by the stores into the recurrent pool between a node's own and the lookup: the entries
            that a pool which evicts in order needs to still hold it.
        future: the trace's requests of the recurrent pool, for bounds.
    """

    path: Path
    header: TraceHeader
    sha256: str
    events: int
    searches: int
    nodes: pd.DataFrame
    reuse: pd.Series[int]
    future: Future

    @property
    def name(self) -> str:
        """Of the file, fit to be shown."""
        return str(clean(self.path.name))

    @property
    def never_asked(self) -> int:
        """Nodes stored into the recurrent pool that no lookup means."""
        return int((self.nodes["recurrent"] & (self.nodes["children"] == 0)).sum())

    def tree(self) -> pd.DataFrame:
        """Nodes of the first search's first environment: its root, and what is below it; ``depth`` counts from it."""
        roots = self.nodes[~self.nodes["recurrent"]]
        if roots.empty:
            return roots
        root = roots.iloc[0]
        same = (self.nodes["search"] == root["search"]) & (self.nodes["env"] == root["env"])
        depths = {root.name: 0}
        for row, parent in self.nodes.loc[same & self.nodes["recurrent"], "parent"].items():
            if parent in depths:
                depths[row] = depths[parent] + 1
        return self.nodes.loc[list(depths)].assign(depth=list(depths.values()))


def read_searches(path: Path, searches: int | None = None) -> Searches:
    """Read a trace, all of it or its first searches.

    Raises:
        TraceError: as ``TraceReader``.
        MemoryShortError: it has too many events.
    """
    reader = TraceReader(path)
    require_for_events(reader, has_page=True)
    steps = list(read_steps(reader.sound_events(), searches))
    header = replace(
        reader.header,
        **{name: clean(getattr(reader.header, name)) for name in ("source", "backend", "pools", "created", "recorder")},
    )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    number = len({step.search for step in steps})
    return Searches(path, header, sha256, reader.rows, number, *_nodes_and_reuse(steps), Future(steps, RECUR))


def _nodes_and_reuse(steps: Sequence[Step]) -> tuple[pd.DataFrame, pd.Series[int]]:
    stores: list[tuple[int, int, int, int, int, int, bool]] = []
    lookups: list[tuple[int, int]] = []  # the node that is meant, and stores into the recurrent pool until then
    stored = 0
    for step in steps:
        recurrent = step.scope is Scope.NODE
        parents = [node if recurrent and node is not None else NO_NODE for node in step.nodes]
        # A batch that stores nothing has rows, and no stores.
        rows = zip(step.stores, step.envs, step.simulations, step.depths, parents, strict=False)
        for store, env, simulation, depth, parent in rows:
            stores.append((store, step.search, env, simulation, depth, parent, recurrent))
        lookups += [(parent, stored) for parent in parents if parent != NO_NODE]
        stored += len(step.stores) if recurrent else 0
    columns = ["store", "search", "env", "simulation", "depth", "parent", "recurrent"]
    nodes = pd.DataFrame(stores, columns=columns).astype({"recurrent": bool}).set_index("store")
    asked = pd.DataFrame(lookups, columns=["node", "stored"])
    nodes["children"] = asked["node"].value_counts().reindex(nodes.index, fill_value=0)
    own = nodes["recurrent"].cumsum()[nodes["recurrent"]]
    between = (asked["stored"] - asked["node"].map(own)).dropna().astype(int)
    return nodes, between.value_counts().sort_index()
