"""Traces that the claims measure on."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from suite import bridge

from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step, read_steps
from kvcache import Geometry

__all__ = ["STORAGES", "TRACE", "read", "synthetic"]

TRACE = Path(__file__).parent / "traces" / "cartpole-lightzero-0.2.0-seed0.parquet"
# And whatever storage is added; private copies row by row, and is no candidate for the default.
STORAGES = tuple(
    each for each in bridge.storages(["new:slab", "new:paged", "new:paged-resident"]) if each != "new:private"
)


def read(path: Path, searches: int | None = None) -> list[Step]:
    """The steps of a trace; with ``searches`` of the first so many."""
    return [step for step in read_steps(TraceReader(path).events()) if searches is None or step.search < searches]


def synthetic(geometry: Geometry, seed: int, searches: int) -> list[Step]:
    """A synthetic search of at most 25 simulations: the deep end of a longer one costs the same per step."""
    short = replace(geometry, num_simulations=min(geometry.num_simulations, 25))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.parquet"
        list(write_synthetic_trace(path, SyntheticSearch(short, searches, seed)))
        return read(path)
