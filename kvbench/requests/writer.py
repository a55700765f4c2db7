"""Writing files of requests: row group by row group, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kvbench.files import whole_or_absent
from kvbench.requests.schema import ROW_GROUP_ROWS, RequestHeader
from kvbench.trace.schema import TraceError

__all__ = ["write_requests"]


def write_requests(path: Path, header: RequestHeader, batches: Iterable[pa.RecordBatch]) -> int:
    """Write requests, in order and of ``REQUEST_SCHEMA``; return their number.

    Raises:
        OSError: the file cannot be written.
        TraceError: there are no requests.
    """
    rows = 0
    with whole_or_absent(path) as beside:
        with pq.ParquetWriter(beside, header.schema(), compression="zstd", write_page_checksum=True) as file:
            for batch in batches:
                file.write_table(pa.Table.from_batches([batch]).cast(header.schema()), ROW_GROUP_ROWS)
                rows += batch.num_rows
        if not rows:
            raise TraceError(header.file, "it has no requests: there is nothing to import")
    return rows
