"""Reading files of requests, row group by row group: every row is checked before it is handed on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kvbench.requests.schema import COLUMNS, LARGEST_SIZE, LARGEST_TIME, REQUEST_SCHEMA, RequestHeader
from kvbench.trace.pages import read_chunks
from kvbench.trace.parquet import check_columns, check_parquet, header_text, read_batches, reading
from kvbench.trace.schema import TraceError

__all__ = ["RequestReader"]

_MOST_ROWS = 2**24  # of a row group: ours have 65,536


class RequestReader:
    """A file of requests: its header at once, its requests as a stream.

    Raises:
        TraceError: it cannot be opened, is not a Parquet file or not one of requests, or lacks a column.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_parquet(self.path)
        with reading(self.path, "a damaged Parquet file: its footer or its schema cannot be read"):
            self._file = pq.ParquetFile(self.path, page_checksum_verification=True)
            schema = self._file.schema_arrow
        try:
            self.header = RequestHeader.from_json(header_text(self.path, schema))
        except TraceError:
            raise
        except ValueError as error:
            raise TraceError(path, str(error)) from None
        check_columns(self.path, schema, REQUEST_SCHEMA)
        self.rows: int = self._file.metadata.num_rows
        if self.rows != sum(self._rows_of(each) for each in self._groups):
            raise TraceError(path, "a damaged Parquet file: its row groups do not have the rows that its footer names")

    @property
    def _groups(self) -> range:
        return range(self._file.num_row_groups)

    def _rows_of(self, group: int) -> int:
        rows: int = self._file.metadata.row_group(group).num_rows
        if not 0 <= rows <= _MOST_ROWS:
            raise TraceError(self.path, f"row group {group} says that it has {rows:,} rows, so it is not read")
        return rows

    def batches(self, rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """Requests in order, of ``REQUEST_SCHEMA``, some at a time; the first ``rows`` of them.

        Raises:
            TraceError: a row group cannot be read, or a request breaks a rule; with its row number.
        """
        first, last_record, left = 0, -1, self.rows if rows is None else rows
        for batch in read_batches(self.path, self._file, COLUMNS, _in_order):
            last_record = self._check(batch, first, last_record)
            yield batch.slice(0, left)
            first, left = first + batch.num_rows, left - batch.num_rows
            if left <= 0:
                return

    def _check(self, batch: pa.RecordBatch, first: int, last_record: int) -> int:
        """The number of the batch's last record. Raises TraceError for the first row that breaks a rule."""
        for column, field in zip(batch.columns, REQUEST_SCHEMA, strict=True):
            if column.null_count and not field.nullable:
                place = pc.index(column.is_null(), True).as_py()
                raise TraceError(self.path, f"a request without a value in column {field.name!r}", first + place)
        sizes, records = (batch.column(name).to_numpy() for name in ("size", "record"))
        times = batch.column("time").fill_null(0).to_numpy()
        rules = (
            (sizes, (sizes < 1) | (sizes > LARGEST_SIZE), f"size {{}}: a request has 1 to {LARGEST_SIZE:,}"),
            (times, (times < -LARGEST_TIME) | (times > LARGEST_TIME), "time {}: out of bounds"),
            (records, np.diff(records, prepend=last_record) < 0, "record {}: records come in order, from 0"),
        )
        for values, wrong, fault in rules:
            if wrong.any():
                row = int(np.argmax(wrong))
                raise TraceError(self.path, fault.format(values[row]), first + row)
        return int(records[-1]) if len(records) else last_record

    def check(self) -> int:
        """Read and check everything; the number of requests. Raises TraceError, also where there are none."""
        if not self.rows:
            raise TraceError(self.path, "it has no requests: there is nothing to replay")
        return sum(batch.num_rows for batch in self.batches())

    def digest(self) -> str:
        """SHA-256 of the requests alone: the same for the same requests, whenever they were imported."""
        # A digest of each column's values and one of where it has any, so that row groups leave no mark.
        digests = [(hashlib.sha256(), hashlib.sha256()) for _ in COLUMNS]
        for batch in self.batches():
            for column, (values, places) in zip(batch.columns, digests, strict=True):
                values.update(column.fill_null(0).to_numpy(zero_copy_only=False).astype("<u8").tobytes())
                places.update(column.is_valid().cast(pa.uint8()).to_numpy(zero_copy_only=False).tobytes())
        return hashlib.sha256("".join(each.hexdigest() for pair in digests for each in pair).encode()).hexdigest()

    @property
    def has_times(self) -> bool:
        """Whether the source has times."""
        first = next(self.batches(), None)
        return first is not None and not first.column("time").null_count

    @property
    def smallest_size(self) -> int:
        """Of a request, as the file's own statistics say; 1 where they say nothing."""
        with reading(self.path, "a damaged Parquet file: its footer or its schema cannot be read"):
            said = [each.least for group in read_chunks(self.path) for each in group if each.column == "size"]
        known = [int.from_bytes(each, "little", signed=True) for each in said if each is not None]
        return max(1, min(known)) if known and len(known) == len(said) else 1


def _in_order(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns in the schema's order."""
    return pa.RecordBatch.from_arrays([batch.column(name) for name in COLUMNS], schema=REQUEST_SCHEMA)
