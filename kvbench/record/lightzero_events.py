"""LightZero 0.2.0: from what one inference did with the caches to events of a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from kvbench.trace.schema import ASSEMBLE, CLEAR, GENERATE, LOOKUP, ROOT_SIMULATION, STORE
from kvbench.trace.writer import TraceWriter

__all__ = ["Batch", "BatchWriter"]


@dataclass(slots=True)
class Batch:
    """The cache requests of one inference so far."""

    root: bool  # an initial inference
    observed: bool  # part of the trace: a search's root or one of its simulations
    lookups: dict[int, tuple[int, bool]] = field(default_factory=dict)  # by environment: key, and whether it was found
    sizes: list[int] | None = None  # live tokens of each row when the rows were assembled
    stores: dict[int, int] = field(default_factory=dict)  # by environment: key
    tokens: int = 0  # that the model appended to each row
    depths: list[int] = field(default_factory=list)  # of each row's new latent below its root
    # Of each row, the simulation (0 is the root) and the row in it that made the node looked up.
    traversed: list[tuple[int, int]] | None = None
    cleared: set[int] = field(default_factory=set)  # dictionaries, by their numbers

    def depth(self, env: int) -> int | None:
        """Of a row's new latent; None where it is unknown."""
        if self.root:
            return 0
        return int(self.depths[env]) if env < len(self.depths) else None


class BatchWriter:
    """Writes batches as events of a trace."""

    def __init__(self, writer: TraceWriter) -> None:
        self._writer = writer
        self._batches = 0
        self._search = -1
        self._simulation = 0
        self._init_rows: dict[tuple[int, int], int] = {}  # (env, key) -> row of its last init store
        self._search_rows: list[dict[int, int]] = []  # root, simulation 0, 1, ...: env -> row of its store
        # Of the search's nodes, by simulation (0 is the root) and row: how often one went on from it; the one above.
        self._visits: Counter[tuple[int, int]] = Counter()
        self._above: dict[tuple[int, int], tuple[int, int]] = {}

    def begin_search(self) -> None:
        """The batches from now on belong to the next search."""
        self._writer.flush()  # a kill costs one search, not more
        self._search += 1
        self._simulation = 0
        self._search_rows = []
        self._visits.clear()
        self._above.clear()

    def write(self, batch: Batch, clears: Sequence[tuple[str, int]]) -> None:
        """Write a batch that is observed or cleared something; ``clears`` are scopes and environments of its clears."""
        if batch.observed or clears:
            place = (self._batches, max(self._search, 0), ROOT_SIMULATION if batch.root else self._simulation)
            self._batches += 1
            if batch.observed:
                self._add_lookups(place, batch)
                self._add_stores(place, batch)
            for scope, env in clears:
                self._writer.add(CLEAR, scope, env, *place)
        if not batch.root:
            self._simulation += 1

    # Rows are written out, by the columns of a trace: the search that is recorded waits for this.

    def _add_lookups(self, place: tuple[int, int, int], batch: Batch) -> None:
        add, scope = self._writer.add_row, "root" if batch.root else "node"
        for env, (key, hit) in batch.lookups.items():
            node = self._init_rows.get((env, key)) if batch.root else self._node(batch, env)
            add((LOOKUP, scope, env, *place, key, None, node, None, None, hit, batch.depth(env), None, None))
        if batch.sizes is not None:  # rows are assembled only once all that missed were generated
            for env, (key, hit) in batch.lookups.items():
                if not hit:
                    self._writer.add(GENERATE, scope, env, *place, key=key)
            for env, size in enumerate(batch.sizes):
                add((ASSEMBLE, scope, env, *place, None, None, None, size, None, None, None, None, None))

    def _add_stores(self, place: tuple[int, int, int], batch: Batch) -> None:
        add, scope, tokens = self._writer.add_row, "init" if batch.root else "recur", batch.tokens
        rows: dict[int, int] = {}
        for env, key in batch.stores.items():
            parent = batch.lookups[env][0] if env in batch.lookups else None
            known = batch.depth(env), self._went_on(batch, env), None  # the prior is LightZero's own, in its C++ tree
            rows[env] = add((STORE, scope, env, *place, key, parent, None, None, tokens, None, *known))
            if batch.root:
                self._init_rows[env, key] = rows[env]
        self._search_rows.append(rows)

    def _went_on(self, batch: Batch, env: int) -> int | None:
        """Simulations that had gone on from the node which row ``env`` extends; this one is counted from now on."""
        if batch.traversed is None:
            return None
        parent = batch.traversed[env]
        before = self._visits[parent]
        self._above[self._simulation + 1, env] = parent
        node: tuple[int, int] | None = parent
        while node is not None:
            self._visits[node] += 1
            node = self._above.get(node)
        return before

    def _node(self, batch: Batch, env: int) -> int | None:
        """Row of the store that made the node which row ``env`` of the present simulation extends."""
        assert batch.traversed is not None
        simulation, row = batch.traversed[env]
        return self._search_rows[simulation].get(row)
