"""Writing traces: a whole Parquet file at once, or event by event through a journal that survives a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kvbench.files import check_writable, whole_or_absent
from kvbench.trace.schema import (
    COLUMNS,
    EVENT_SCHEMA,
    HEADER_DIGEST_KEY,
    HEADER_KEY,
    KINDS,
    SCOPES,
    TraceError,
    TraceHeader,
)

__all__ = ["ROW_GROUP_ROWS", "TraceWriter", "journal_path", "recover_trace", "write_trace"]

_NAMES = pa.array(list(dict.fromkeys(name for kind in KINDS for name in (kind, *SCOPES[kind]))))
_NAME_INDEX = {name: index for index, name in enumerate(_NAMES.to_pylist())}

ROW_GROUP_ROWS = 65_536
JOURNAL_ROWS = 2_048


def _with_header(header: TraceHeader) -> pa.Schema:
    text = header.to_json().encode()
    return EVENT_SCHEMA.with_metadata({HEADER_KEY: text, HEADER_DIGEST_KEY: hashlib.sha256(text).hexdigest()})


def write_trace(path: str | Path, header: TraceHeader, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a trace file, whole or not at all, and return its number of events.

    Args:
        path: of the file; one that exists is replaced.
        header: of the trace.
        batches: events in order, of ``EVENT_SCHEMA``.

    Raises:
        OSError: the file cannot be written.
    """
    schema = _with_header(header)
    rows = 0
    pending: list[pa.RecordBatch] = []

    with (
        whole_or_absent(path) as beside,
        pq.ParquetWriter(beside, schema, compression="zstd", write_page_checksum=True) as writer,
    ):

        def flush() -> None:
            writer.write_table(pa.Table.from_batches(pending, EVENT_SCHEMA).cast(schema), ROW_GROUP_ROWS)
            pending.clear()

        for batch in batches:
            pending.append(batch)
            rows += batch.num_rows
            if sum(each.num_rows for each in pending) >= ROW_GROUP_ROWS:
                flush()
        if pending or not rows:
            flush()
    return rows


def journal_path(path: str | Path) -> Path:
    """Where the events of an unfinished trace lie."""
    path = Path(path)
    return path.with_name(path.name + ".journal")


class TraceWriter:
    """Collects events one by one and makes a trace file of them when it is closed.

    Events go to a journal beside the file (an Arrow stream, flushed every ``flush_rows`` events and at every
    ``flush``). A process that is killed leaves the journal; ``kvbench trace recover FILE`` makes the trace of it.

    Args:
        path: of the trace file to be.
        header: of the trace.
        flush_rows: events between two flushes.

    Raises:
        FileExistsError: the trace or a journal of it is there already: traces are never overwritten by a recorder.
        OSError: the journal cannot be written.
    """

    def __init__(self, path: str | Path, header: TraceHeader, flush_rows: int = JOURNAL_ROWS) -> None:
        self.path = Path(path)
        self.header = header
        self.rows = 0
        self._flush_rows = flush_rows
        self._journal = journal_path(path)
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists: choose another name, traces are not overwritten")
        if self._journal.exists():
            raise FileExistsError(
                f"{self._journal} is left from a recording that was cut off: run 'kvbench trace recover {self.path}', "
                "or delete it"
            )
        check_writable(self.path)
        self._columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        self._file = open(self._journal, "xb")  # noqa: SIM115 - open until close()
        self._stream = pa.ipc.new_stream(self._file, _with_header(header))
        # The stream writes its schema, and the header in it, with its first batch: an empty one, now.
        self._stream.write_batch(_record_batch(self._columns))
        self._file.flush()

    def add(self, kind: str, scope: str, env: int, batch: int, search: int, simulation: int, **values: Any) -> int:
        """Append one event and return its row number. ``values`` are the columns that its kind uses."""
        columns = self._columns
        for name, value in zip(
            COLUMNS,
            (
                kind, scope, env, batch, search, simulation,
                values.get("key"), values.get("parent"), values.get("node"), values.get("size"),
                values.get("tokens"), values.get("hit"), values.get("depth"),
            ),
            strict=True,
        ):  # fmt: skip
            columns[name].append(value)
        row = self.rows
        self.rows += 1
        if len(columns["kind"]) >= self._flush_rows:
            self.flush()
        return row

    def flush(self) -> None:
        """Hand what was collected to the operating system: from then on a kill does not lose it."""
        if self._columns["kind"]:
            self._stream.write_batch(_record_batch(self._columns))
            self._columns = {name: [] for name in COLUMNS}
        self._file.flush()

    def close(self) -> None:
        """Make the trace file and remove the journal."""
        if self._file.closed:
            return
        self.flush()
        self._stream.close()
        self._file.close()
        recover_trace(self.path)

    def abandon(self) -> None:
        """Close the journal and leave it where it is, as a kill would."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def _record_batch(columns: dict[str, list[Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            _name_array(columns[each.name], each.type) if pa.types.is_dictionary(each.type)
            else pa.array(columns[each.name], each.type)
            for each in EVENT_SCHEMA
        ],
        schema=EVENT_SCHEMA,
    )  # fmt: skip


def _name_array(names: list[str], kind: pa.DictionaryType) -> pa.DictionaryArray:
    # One dictionary for all batches: an Arrow stream writes it once.
    return pa.DictionaryArray.from_arrays(pa.array([_NAME_INDEX[name] for name in names], kind.index_type), _NAMES)


def recover_trace(path: str | Path) -> int:
    """Make the trace file ``path`` of the journal beside it, remove the journal, and return the number of events.

    Of a journal that was cut off in the middle of a write, everything before that write is used.

    Raises:
        TraceError: there is no journal, or not even its header was flushed.
        FileExistsError: the trace file exists.
    """
    path = Path(path)
    journal = journal_path(path)
    if not journal.exists():
        raise TraceError(path, f"there is no journal {journal.name} to recover a trace from")
    if path.exists():
        raise FileExistsError(f"{path} exists: move it away before recovering its journal")
    with open(journal, "rb") as file:
        try:
            stream = pa.ipc.open_stream(file)
            header = TraceHeader.from_json(stream.schema.metadata[HEADER_KEY])
            if not stream.schema.equals(EVENT_SCHEMA):
                raise ValueError("the journal's columns are not those of a trace")
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, MemoryError) as error:
            raise TraceError(
                journal, "the journal's beginning cannot be read: nothing was flushed, or it is damaged"
            ) from error
        rows = write_trace(path, header, _until_cut(stream))
    journal.unlink()
    return rows


def _until_cut(stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = stream.read_next_batch()
            batch.validate(full=True)
        except (StopIteration, pa.ArrowException, OSError, UnicodeDecodeError, MemoryError):
            return
        yield batch.cast(EVENT_SCHEMA)
