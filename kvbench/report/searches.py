"""The search as it ran: depths, tree shapes and how long entries wait until they are asked for, from a trace."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from kvbench.capacity.bounds import Future
from kvbench.replay.hierarchy import RECUR
from kvbench.report.search_shape import SearchShape
from kvbench.report.text import clean
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceHeader
from kvbench.trace.steps import TraceSteps

__all__ = ["Searches", "read_searches"]


@dataclass(frozen=True)
class Searches:
    """A trace's searches.

    Attributes:
        path: of the trace.
        header: of the trace, its texts fit to be shown.
        sha256: of the file.
        events, searches: how many.
        shape: of the trees.
        steps: the inferences.
    """

    path: Path
    header: TraceHeader
    sha256: str
    events: int
    searches: int
    shape: SearchShape
    steps: TraceSteps

    @property
    def name(self) -> str:
        """Of the file, fit to be shown."""
        return str(clean(self.path.name))

    @cached_property
    def future(self) -> Future:
        """The trace's requests of the recurrent pool, for bounds. It takes memory for each of them."""
        return Future(self.steps, RECUR)

    def tree(self) -> pd.DataFrame:
        """Nodes of the first search's first environment: as ``SearchShape.tree``."""
        return self.shape.tree()


def read_searches(path: Path, searches: int | None = None) -> Searches:
    """Read a trace, all of it or its first searches. Raises TraceError, as ``TraceSteps``."""
    reader = TraceReader(path)
    steps = TraceSteps(reader, searches)
    header = replace(
        reader.header,
        **{name: clean(getattr(reader.header, name)) for name in ("source", "backend", "pools", "created", "recorder")},
    )
    shape, numbers = SearchShape(steps.reach), set[int]()
    for step in steps:
        shape.add(step)
        numbers.add(step.search)
    shape.end()
    return Searches(path, header, reader.sha256(), reader.rows, len(numbers), shape, steps)
