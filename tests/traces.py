"""Small traces for tests: synthetic ones, a hand-made one, and ways to spoil it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import COLUMNS, EVENT_SCHEMA, HEADER_KEY, NO_ENV, ROOT_SIMULATION, TraceHeader
from kvbench.trace.steps import Step, read_steps
from kvcache.geometry import Geometry

COMMITTED = Path(__file__).parents[1] / "benchmarks" / "traces" / "cartpole-lightzero-0.2.0-seed0.parquet"

# Large enough that contexts slide and that contents do not collide, small enough to replay in milliseconds.
TINY = Geometry("tiny", 2, 2, 16, 8, 2, 6, "absolute")

Event = dict[str, Any]


def header(geometry: Geometry = TINY, **others: Any) -> TraceHeader:
    return TraceHeader.create(geometry, {"library": "by hand"}, synthetic=True, **others)


def synthetic(path: Path, geometry: Geometry = TINY, searches: int = 3, seed: int = 0, **options: Any) -> Path:
    """Write a synthetic trace and return its path."""
    for _ in write_synthetic_trace(path, SyntheticSearch(geometry, searches, seed, **options)):
        pass
    return path


def steps_of(path: Path, searches: int | None = None) -> list[Step]:
    events = TraceReader(path).events()
    return [step for step in read_steps(events) if searches is None or step.search < searches]


def event(kind: str, scope: str, env: int, batch: int, simulation: int, **values: Any) -> Event:
    """One event of search 0; columns that are not named are null."""
    named = {"kind": kind, "scope": scope, "env": env, "batch": batch, "search": 0, "simulation": simulation}
    return dict.fromkeys(COLUMNS) | named | values


def good_events() -> list[Event]:
    """One search by hand: two roots, two simulations, the second of which misses in environment 0.

    Rows: 0-1 assembled roots, 2-3 their stores, 4 the clear; 5-6 lookups, 7-8 assembled, 9-10 stores of simulation 0;
    11-12 lookups, 13 generate, 14-15 assembled, 16-17 stores of simulation 1.
    """
    root = ROOT_SIMULATION
    return [
        event("assemble", "root", 0, 0, root, size=0),
        event("assemble", "root", 1, 0, root, size=0),
        event("store", "init", 0, 0, root, key=100, tokens=1, depth=0),
        event("store", "init", 1, 0, root, key=101, tokens=1, depth=0),
        event("clear", "recur", NO_ENV, 0, root),
        event("lookup", "node", 0, 1, 0, key=100, node=2, hit=True, depth=1),
        event("lookup", "node", 1, 1, 0, key=101, node=3, hit=True, depth=1),
        event("assemble", "node", 0, 1, 0, size=1),
        event("assemble", "node", 1, 1, 0, size=1),
        event("store", "recur", 0, 1, 0, key=200, parent=100, tokens=2, depth=1),
        event("store", "recur", 1, 1, 0, key=201, parent=101, tokens=2, depth=1),
        event("lookup", "node", 0, 2, 1, key=999, hit=False, depth=1),
        event("lookup", "node", 1, 2, 1, key=201, node=10, hit=True, depth=2),
        event("generate", "node", 0, 2, 1, key=999),
        event("assemble", "node", 0, 2, 1, size=1),
        event("assemble", "node", 1, 2, 1, size=3),
        event("store", "recur", 0, 2, 1, key=300, parent=999, tokens=2, depth=1),
        event("store", "recur", 1, 2, 1, key=301, parent=201, tokens=2, depth=2),
    ]


def leaf_events() -> list[Event]:
    """One search by hand: two roots, and one inference of two leaves of each, simulations 0 and 1.

    Rows: 0-4 as in ``good_events``; 5-8 lookups, 9-12 assembled, 13-16 stores, the first leaf of both in front.
    """
    rows = [(env, simulation) for simulation in (0, 1) for env in (0, 1)]
    return [
        *good_events()[:5],
        *(event("lookup", "node", env, 1, at, key=100 + env, node=2 + env, hit=True, depth=1) for env, at in rows),
        *(event("assemble", "node", env, 1, at, size=1) for env, at in rows),
        *(
            event("store", "recur", env, 1, at, key=200 + 10 * at + env, parent=100 + env, tokens=2, depth=1)
            for env, at in rows
        ),
    ]


def batch_of(events: Iterable[Event]) -> pa.RecordBatch:
    """Events as ``EVENT_SCHEMA`` has them, whatever rules they break."""
    rows = [{name: each[name] for name in COLUMNS} for each in events]
    columns = [
        pa.array([row[column.name] for row in rows], pa.string()).dictionary_encode().cast(column.type)
        if pa.types.is_dictionary(column.type)
        else pa.array([row[column.name] for row in rows], column.type)
        for column in EVENT_SCHEMA
    ]
    nullable = pa.schema([each.with_nullable(True) for each in EVENT_SCHEMA])
    return pa.RecordBatch.from_arrays(columns, schema=nullable)


def write_events(path: Path, events: Iterable[Event], metadata: dict[bytes, bytes] | None = None) -> Path:
    """Write events without any check, by pyarrow alone."""
    if metadata is None:
        metadata = {HEADER_KEY: header().to_json().encode()}
    return write_table(path, pa.Table.from_batches([batch_of(events)]), metadata)


def write_table(
    path: Path, table: pa.Table, metadata: dict[bytes, bytes] | None = None, row_group_size: int | None = None
) -> Path:
    if metadata is None:
        metadata = {HEADER_KEY: header().to_json().encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size)
    return path


def spoilt(row: int, **values: Any) -> list[Event]:
    """The good events with values of one row replaced."""
    events = good_events()
    events[row] |= values
    return events


def moved(row: int, to: int) -> list[Event]:
    """The good events with one row moved to another place."""
    events = good_events()
    events.insert(to, events.pop(row))
    return events
