"""A trace file of either kind: events of searches, or requests of another system."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from kvbench.requests.reader import RequestReader
from kvbench.trace.parquet import check_parquet, reading
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import HEADER_KEY, REQUESTS

__all__ = ["open_trace"]


def open_trace(path: str | Path) -> TraceReader | RequestReader:
    """The reader of a file. Raises TraceError, as the readers do."""
    path = Path(path)
    check_parquet(path)
    with reading(path, "a damaged Parquet file: its footer or its schema cannot be read"):
        header = (pq.ParquetFile(path).schema_arrow.metadata or {}).get(HEADER_KEY, b"")
    return RequestReader(path) if REQUESTS.encode() in header[: 2**16] else TraceReader(path)
