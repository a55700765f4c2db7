"""Traces that the claims measure on."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from suite import bridge

from kvbench.record.fills import FilledSearch
from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step, read_steps
from kvcache import Geometry

__all__ = ["SIMULATIONS", "STORAGES", "TRACE", "filled", "read", "short", "synthetic"]

SIMULATIONS = 25
TRACE = Path(__file__).parent / "traces" / "cartpole-lightzero-0.2.0-seed0.parquet"
# And whatever storage is added; private copies row by row, and is no candidate for the default.
STORAGES = tuple(
    each for each in bridge.storages(["new:slab", "new:paged", "new:paged-resident"]) if each != "new:private"
)


def read(path: Path, searches: int | None = None) -> list[Step]:
    """The steps of a trace; with ``searches`` of the first so many."""
    return [step for step in read_steps(TraceReader(path).events()) if searches is None or step.search < searches]


def short(geometry: Geometry) -> Geometry:
    """With searches of at most 25 simulations: the deep end of a longer one costs the same per step."""
    return replace(geometry, num_simulations=min(geometry.num_simulations, SIMULATIONS))


def synthetic(geometry: Geometry, seed: int, searches: int) -> list[Step]:
    """Synthetic searches from the beginning of episodes on."""
    return _written(SyntheticSearch(short(geometry), searches, seed))


@lru_cache(maxsize=8)  # several backends replay it
def filled(geometry: Geometry, fill: str, seed: int, searches: int) -> list[Step]:
    """Searches of contexts that are as full as ``fill`` says (``kvbench.record.fills``)."""
    return _written(FilledSearch(geometry, searches, seed, fill=fill))


def _written(search: SyntheticSearch) -> list[Step]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.parquet"
        list(write_synthetic_trace(path, search))
        return read(path)
