"""Reading traces, row group by row group, and refusing bad ones with the file, the row and the fault."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kvbench.files import special_kind
from kvbench.trace.checker import EventChecker
from kvbench.trace.schema import COLUMNS, EVENT_SCHEMA, HEADER_DIGEST_KEY, HEADER_KEY, Event, TraceError, TraceHeader

__all__ = ["TraceReader"]

_MAGIC = b"PAR1"  # what a Parquet file begins and ends with

# A column with nulls would become float64, which cannot hold a 64-bit key.
_NULLABLE = {
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


class TraceReader:
    """A trace file: its header at once, its events as a stream.

    Raises:
        TraceError: it cannot be opened, is not a Parquet file or not a trace of this schema version, or lacks a column.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        fault = _not_parquet(self.path)
        if fault:
            raise TraceError(path, fault)
        try:
            self._file = pq.ParquetFile(self.path, page_checksum_verification=True)
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise TraceError(path, "a damaged Parquet file: its footer or its schema cannot be read") from error
        self.header = self._read_header(schema)
        self._check_columns(schema)
        self.rows: int = self._file.metadata.num_rows

    def _read_header(self, schema: pa.Schema) -> TraceHeader:
        text = (schema.metadata or {}).get(HEADER_KEY)
        if text is None:
            raise TraceError(self.path, "a Parquet file without a trace header: not written by kvcache")
        digest = schema.metadata.get(HEADER_DIGEST_KEY)
        if digest is not None and digest.decode(errors="replace") != hashlib.sha256(text).hexdigest():
            raise TraceError(self.path, "the header is damaged: it does not match its checksum")
        try:
            return TraceHeader.from_json(text)
        except ValueError as error:
            raise TraceError(self.path, str(error)) from None

    def _check_columns(self, schema: pa.Schema) -> None:
        for column in EVENT_SCHEMA:
            index = schema.get_field_index(column.name)
            if index < 0:
                raise TraceError(self.path, f"column {column.name!r} is missing")
            found = schema.field(index).type
            if found != column.type:
                raise TraceError(self.path, f"column {column.name!r} has type {found}, not {column.type}")

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Events as Arrow batches, a row group at a time; only the columns of the schema, unchecked.

        Raises:
            TraceError: a row group cannot be read.
        """
        first = 0
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            try:
                table = self._file.read_row_group(group, columns=list(COLUMNS))
                table.validate(full=True)
            except (pa.ArrowException, OSError) as error:
                fault = f"row group {group} (rows {first} to {first + rows - 1}) cannot be read: it is damaged"
                raise TraceError(self.path, fault) from error
            yield from table.combine_chunks().to_batches()
            first += rows

    def events(self) -> Iterator[Event]:
        """Checked events, in order, each a dict of its columns.

        Raises:
            TraceError: at the first event that breaks a rule of the schema, with its row number.
        """
        checker = EventChecker(self.path, self.header)
        events = (event for batch in self.batches() for event in batch.to_pylist())
        for row, event in enumerate(events):
            checker.check(row, event)
            yield event

    def to_pandas(self) -> pd.DataFrame:
        """All events as one frame, a row each, unchecked; columns that may be null keep that (``Int64``, ``boolean``).

        Raises:
            TraceError: a row group cannot be read.
        """
        return pa.Table.from_batches(self.batches(), EVENT_SCHEMA).to_pandas(types_mapper=_NULLABLE.get)

    def check(self) -> int:
        """Read and check everything; the number of events. Raises TraceError as ``events`` does."""
        return sum(1 for _ in self.events())

    def digest(self) -> str:
        """SHA-256 of the events alone: the same for the same events, whenever and by whatever they were written."""
        columns = {name: hashlib.sha256() for name in COLUMNS}  # a digest each, so that row groups leave no mark
        for batch in self.batches():
            for name, column in columns.items():
                column.update("".join(f"{value}," for value in batch.column(name).to_pylist()).encode())
        return hashlib.sha256("".join(column.hexdigest() for column in columns.values()).encode()).hexdigest()


def _not_parquet(path: Path) -> str | None:
    """What a look at the file's two ends says against it. Nothing but a file is opened: a FIFO would wait for ever."""
    kind = special_kind(path)
    if kind is not None:
        return f"is {kind}, not a trace file"
    try:
        with open(path, "rb") as file:
            start = file.read(len(_MAGIC))
            size = file.seek(0, 2)
            file.seek(max(0, size - len(_MAGIC)))
            end = file.read()
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if size == 0:
        return "the file is empty"
    if start != _MAGIC:
        return "not a Parquet file"
    if end != _MAGIC or size <= 2 * len(_MAGIC):
        return f"truncated: a Parquet file whose end is missing (it has {size} bytes)"
    return None
