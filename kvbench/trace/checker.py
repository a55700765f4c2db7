"""Checking the events of a trace, a row group at a time: which rule is broken first, and in which row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from kvbench.trace.columns import Columns
from kvbench.trace.event_rules import Rule, event_rules
from kvbench.trace.inference_rules import Inferences
from kvbench.trace.schema import KINDS, LOOKUP, Event, TraceError, TraceHeader
from kvbench.trace.stored_keys import StoredKeys

__all__ = ["EventChecker"]


class EventChecker:
    """Checks the events of the trace at ``path`` in order: each on its own, and its place among the others.

    It remembers the last inference and some thousand keys, however long the trace is.

    Attributes:
        reach: most rows from a lookup back to the store whose node it means.
    """

    def __init__(self, path: Path, header: TraceHeader, stored: StoredKeys) -> None:
        self._path, self._header, self._stored = path, header, stored
        self._begun: Columns | None = None  # events of an inference that may go on
        self._rows = 0
        self.reach = 0

    def check(self, batch: pa.RecordBatch) -> tuple[int, TraceError | None]:
        """How many of the next events are sound, and what is wrong with the one after them."""
        columns = Columns.of(batch)
        if not len(columns):
            return 0, None
        self._stored.add(columns)
        begun = 0 if self._begun is None else len(self._begun)
        whole = columns if self._begun is None else self._begun + columns
        first = self._rows - begun  # row of the trace
        inferences = Inferences(whole, self._header)
        rules = chain(event_rules(whole, self._header), inferences.rules(), self._nodes(whole, first))
        broken = [(int(each.broken.argmax()), number, each) for number, each in enumerate(rules) if each.broken.any()]
        if broken:
            at, _, rule = min(broken)
            event = batch.slice(at - begun, 1).to_pylist()[0]
            row = at if rule.rows is None else int(rule.rows[at])
            return at - begun, TraceError(self._path, rule.describe(event, at), first + row)
        self._begun = whole[inferences.first[-1] :]
        self._rows += len(columns)
        return len(columns), None

    def _nodes(self, columns: Columns, first: int) -> Iterator[Rule]:
        """A lookup's node is an earlier store of its key."""
        rows = np.flatnonzero((columns.kind == KINDS.index(LOOKUP)) & ~columns.nulls["node"])
        nodes, keys = columns.values["node"][rows], columns.values["key"][rows]
        before = (nodes >= 0) & (nodes < rows + first)
        is_store, stored = self._stored.of(np.where(before, nodes, rows + first))
        self.reach = max(self.reach, int((rows + first - nodes)[before].max(initial=0)))
        other_key = np.zeros(len(columns), dtype=np.uint64)
        other_key[rows] = stored

        def no_store(event: Event, _: int) -> str:
            return f"the node it means, row {event['node']}, is no store before this row"

        def another(event: Event, row: int) -> str:
            means = f"row {event['node']}, which stored {other_key[row]:#018x}"
            return f"it looks up key {event['key']:#018x} but means {means}"

        for faults, describe in ((~(before & is_store), no_store), (stored != keys, another)):
            broken = np.zeros(len(columns), dtype=bool)
            broken[rows[faults]] = True
            yield Rule(broken, describe)
