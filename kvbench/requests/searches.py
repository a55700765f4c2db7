"""Recorded searches as requests: for tools that know keys and sizes, and no contexts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kvbench.requests.source import batch_of
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import LOOKUP, STORE

__all__ = ["requests_of_searches"]


def requests_of_searches(reader: TraceReader) -> Iterator[pa.RecordBatch]:
    """Each lookup and each store of a trace as a request for its key, in order, as batches of ``REQUEST_SCHEMA``.

    A request has the size of a full entry in float32, bytes; its record is its batch. Pools and clears are not told
    apart: libCacheSim has one cache, which is never cleared.

    Raises:
        TraceError: the trace is not sound.
    """
    size = reader.header.geometry.entry_bytes()
    for batch in reader.sound(reader.checker()):
        asks = pc.is_in(batch.column("kind").cast(pa.string()), pa.array([LOOKUP, STORE]))
        rows = batch.filter(pc.and_(asks, batch.column("key").is_valid()))
        keys, records = (rows.column(name).to_numpy(zero_copy_only=False) for name in ("key", "batch"))
        parents = rows.column("parent")
        known = parents.fill_null(0).to_numpy(zero_copy_only=False), parents.is_null().to_numpy(zero_copy_only=False)
        columns = np.zeros(len(keys)), keys, np.full(len(keys), size), records
        yield from batch_of(columns, known, has_times=False)
