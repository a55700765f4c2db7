"""Reading traces, row group by row group, and refusing bad ones with the file, the row and the fault."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kvbench.trace.checker import EventChecker
from kvbench.trace.columns import Columns
from kvbench.trace.limits import NAME_LENGTH, fault_of_sizes
from kvbench.trace.parquet import check_columns, check_parquet, header_text, read_batches, reading
from kvbench.trace.schema import COLUMNS, EVENT_SCHEMA, Event, TraceError, TraceHeader
from kvbench.trace.stored_keys import StoredKeys

__all__ = ["TraceReader"]

_EVENTS = 2_048  # as many are dicts at a time

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
        check_parquet(self.path)
        with reading(self.path, "a damaged Parquet file: its footer or its schema cannot be read"):
            self._file = pq.ParquetFile(self.path, page_checksum_verification=True)
            schema = self._file.schema_arrow
            groups = [self._file.metadata.row_group(each).num_rows for each in self._groups]
        self.header = self._read_header(schema)
        check_columns(self.path, schema, EVENT_SCHEMA)
        self.rows: int = self._file.metadata.num_rows
        fault = fault_of_sizes(self.path.stat().st_size, self.rows, groups)
        if fault:
            raise TraceError(path, fault)

    @property
    def _groups(self) -> range:
        return range(self._file.num_row_groups)

    def _read_header(self, schema: pa.Schema) -> TraceHeader:
        text = header_text(self.path, schema)
        try:
            return TraceHeader.from_json(text)
        except ValueError as error:
            raise TraceError(self.path, str(error)) from None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Events as Arrow batches of one row group each; only the columns of the schema, unchecked.

        Raises:
            TraceError: a row group cannot be read.
        """
        return read_batches(self.path, self._file, COLUMNS, _as_events)

    def checked(self, checker: EventChecker) -> Iterator[pa.RecordBatch]:
        """As ``batches``, with each event checked.

        Raises:
            TraceError: at the first event that breaks a rule of the schema, with its row number.
        """
        for batch in self.batches():
            sound, fault = checker.check(batch)
            yield batch.slice(0, sound)
            if fault is not None:
                raise fault

    def sound(self, checker: EventChecker) -> Iterator[pa.RecordBatch]:
        """As ``checked``. A trace without events is not sound: for ``kvbench trace check`` and for all that replay it.

        Raises:
            TraceError: as ``checked`` does, or there are no events.
        """
        if not self.rows:
            raise TraceError(self.path, "it has no events: there is nothing to replay")
        yield from self.checked(checker)

    def checker(self) -> EventChecker:
        """For the events of this trace."""
        return EventChecker(self.path, self.header, StoredKeys(self._group_of))

    def events(self) -> Iterator[Event]:
        """Checked events, in order, each a dict of its columns.

        Raises:
            TraceError: at the first event that breaks a rule of the schema, with its row number.
        """
        for batch in self.checked(self.checker()):
            yield from _few_at_a_time(batch)

    def _group_of(self, row: int) -> tuple[int, Columns]:
        """The row group that has a row, and its first row."""
        first = 0
        for group in self._groups:
            after = first + self._file.metadata.row_group(group).num_rows
            if row < after:
                break
            first = after
        with reading(self.path, f"row group {group} (rows {first} to {after - 1}) cannot be read: it is damaged"):
            table = self._file.read_row_group(group, list(COLUMNS)).combine_chunks()
        return first, Columns.of(_as_events(table.to_batches()[0]))

    def to_pandas(self) -> pd.DataFrame:
        """All events as one frame, a row each, unchecked; columns that may be null keep that (``Int64``, ``boolean``).

        Raises:
            TraceError: a row group cannot be read.
        """
        return pa.Table.from_batches(self.batches(), EVENT_SCHEMA).to_pandas(types_mapper=_NULLABLE.get)

    def check(self) -> int:
        """Read and check everything; the number of events. Raises TraceError as ``sound`` does."""
        return sum(batch.num_rows for batch in self.sound(self.checker()))

    def sha256(self) -> str:
        """Of the file."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def digest(self) -> str:
        """SHA-256 of the events alone: the same for the same events, whenever and by whatever they were written."""
        columns = {name: hashlib.sha256() for name in COLUMNS}  # a digest each, so that row groups leave no mark
        for batch in self.batches():
            for name, column in columns.items():
                column.update(_text_of(batch.column(name)))
        return hashlib.sha256("".join(column.hexdigest() for column in columns.values()).encode()).hexdigest()


def _few_at_a_time(batch: pa.RecordBatch) -> Iterator[Event]:
    """The events of a batch. As dicts they need fifty times its memory."""
    for first in range(0, batch.num_rows, _EVENTS):
        yield from batch.slice(first, _EVENTS).to_pylist()


def _text_of(column: pa.Array) -> memoryview:
    """The values as Python writes them, a comma after each."""
    if pa.types.is_boolean(column.type):
        texts = pc.if_else(column, "True", "False")
    else:
        texts = pc.cast(column, pa.string())
    joined = pc.binary_join_element_wise(pc.fill_null(texts, "None"), "", ",").cast(pa.large_string())
    _, offsets, text = joined.buffers()
    first, *_, last = memoryview(offsets).cast("q")[joined.offset : joined.offset + len(joined) + 1]
    return memoryview(text)[first:last]


def _as_events(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns in the schema's order. Raises ValueError for names that are longer than any of the schema."""
    for name in ("kind", "scope"):
        longest = pc.max(pc.binary_length(batch.column(name).dictionary)).as_py()
        if (longest or 0) > NAME_LENGTH:
            raise ValueError(f"a {name} of {longest} bytes")
    return pa.RecordBatch.from_arrays([batch.column(name) for name in COLUMNS], schema=EVENT_SCHEMA)
