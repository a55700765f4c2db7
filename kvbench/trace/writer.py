"""Writing traces: a whole Parquet file at once, or event by event through a journal that survives a kill."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from kvbench.files import special_kind, uninterrupted, whole_or_absent
from kvbench.trace.journal import Journal, journal_path, with_distinct_keys
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import (
    COLUMNS,
    EVENT_SCHEMA,
    NEWEST_VERSION,
    SCHEMA_VERSION,
    SCOPES,
    VERSIONS,
    TraceError,
    TraceHeader,
    lowest_version,
)

__all__ = ["ROW_GROUP_ROWS", "TraceWriter", "check_new", "recover_trace", "write_trace"]

# One dictionary of names for all batches: an Arrow stream writes it once.
_NAMES = list(dict.fromkeys(name for kind, scopes in SCOPES.items() for name in (kind, *scopes)))
_VALUES = COLUMNS[6:]  # the columns of some kinds; the ones before are of every event
_TYPED = list(EVENT_SCHEMA)[2:]  # the columns without names

ROW_GROUP_ROWS = 65_536
JOURNAL_ROWS = 2_048


def write_trace(path: str | Path, header: TraceHeader, batches: Iterable[pa.RecordBatch]) -> int:
    """Write events, in order and of ``EVENT_SCHEMA``, as a trace file, whole or not at all; return their number.

    A file that exists is replaced. The header says the lowest schema version that the events need. So ``batches`` are
    gone through twice. No more than a row group of them is held.

    Raises:
        OSError: the file cannot be written.
    """
    assert iter(batches) is not batches, "batches are gone through twice"
    schema, rows = replace(header, schema_version=_version_of(batches)).schema(), 0
    with (
        whole_or_absent(path) as beside,
        pq.ParquetWriter(beside, schema, compression="zstd", write_page_checksum=True) as file,
    ):
        for group in _row_groups(batches):
            file.write_table(group.cast(schema), ROW_GROUP_ROWS)
            rows += group.num_rows
    return rows


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The events of batches, ``ROW_GROUP_ROWS`` at a time."""
    some: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        some.append(batch)
        rows += batch.num_rows
        if rows >= ROW_GROUP_ROWS:
            table = pa.Table.from_batches(some, EVENT_SCHEMA)
            whole = rows - rows % ROW_GROUP_ROWS
            yield from (table.slice(first, ROW_GROUP_ROWS) for first in range(0, whole, ROW_GROUP_ROWS))
            some, rows = table.slice(whole).to_batches(), rows - whole
    if rows:
        yield pa.Table.from_batches(some, EVENT_SCHEMA)


def _version_of(batches: Iterable[pa.RecordBatch]) -> int | str:
    """The schema version that a reader of all these events must know."""
    version: int | str = SCHEMA_VERSION
    last: list[pa.RecordBatch] = []  # event before the row group
    for group in _row_groups(batches):
        table = pa.Table.from_batches([*last, *group.to_batches()], EVENT_SCHEMA)
        version = max(version, lowest_version(table), key=VERSIONS.index)
        last = table.slice(table.num_rows - 1).to_batches()
    return version


def check_new(path: str | Path) -> None:
    """Raise the OSError that a recorder of the trace ``path`` would raise: it never overwrites one, nor a journal."""
    path, journal = Path(path), journal_path(path)
    str(path).encode()  # Arrow opens no other
    if path.exists():
        left = f"; 'kvbench trace recover {path}' removes its journal" if journal.exists() else ""
        raise FileExistsError(f"{path} exists: choose another name, traces are not overwritten{left}")
    if journal.exists():
        advice = f"run 'kvbench trace recover {path}', or delete it"
        raise FileExistsError(f"{journal} is left from a recording that was cut off: {advice}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} cannot be written to: name a file in another folder")


class TraceWriter:
    """Collects events one by one and makes the trace file ``path`` of them when it is closed.

    Events go to a journal beside the file (an Arrow stream, flushed every ``flush_rows`` events and at every
    ``flush``). A process that is killed leaves the journal; ``kvbench trace recover FILE`` makes the trace of it.

    Raises:
        FileExistsError: the trace or a journal of it is there already: traces are never overwritten by a recorder.
        OSError: the journal cannot be written. What was flushed before is in it.
    """

    def __init__(self, path: str | Path, header: TraceHeader, flush_rows: int = JOURNAL_ROWS) -> None:
        self.path = Path(path)
        self.rows = 0
        self._flush_rows = flush_rows
        check_new(path)
        try:
            TraceHeader.from_json(header.to_json())
        except ValueError as error:  # nobody could read what is recorded
            raise TraceError(path, str(error)) from None
        self._events: list[tuple[Any, ...]] = []  # by COLUMNS, since the last flush: a recorded search waits for this
        self._fault: OSError | None = None  # of the journal: what comes behind half a batch cannot be read
        # Whether a clear of one environment will come is not known yet.
        schema = replace(header, schema_version=NEWEST_VERSION).schema()
        with uninterrupted():
            self._file: IO[bytes] = open(journal_path(path), "x+b")  # noqa: SIM115 - open until close()
            try:
                self._stream = pa.ipc.new_stream(self._file, schema)
                # The stream writes its schema, and the header in it, with its first batch: an empty one, now.
                self._stream.write_batch(_record_batch([]))
                self._file.flush()
            except OSError as error:
                self._remove_journal()
                raise _named(journal_path(path), error, "make room and run this again") from error

    def add(self, kind: str, scope: str, env: int, batch: int, search: int, simulation: int, **values: Any) -> int:
        """Append one event and return its row number. ``values`` are the columns that its kind uses."""
        return self.add_row((kind, scope, env, batch, search, simulation, *map(values.get, _VALUES)))

    def add_row(self, row: tuple[Any, ...]) -> int:
        """Append one event, all of ``COLUMNS`` in their order, and return its row number."""
        self._events.append(row)
        self.rows += 1
        if len(self._events) >= self._flush_rows:
            self.flush()
        return self.rows - 1

    def flush(self) -> None:
        """Hand what was collected to the operating system: from then on a kill does not lose it."""
        if self._fault is not None:
            raise self._fault
        try:
            with uninterrupted():  # Ctrl-C would leave half a batch
                if self._events:
                    self._stream.write_batch(_record_batch(self._events))
                    self._events = []
                self._file.flush()
        except OSError as error:
            self._fault = _named(journal_path(self.path), error, self._way_out)
            raise self._fault from error

    def close(self) -> None:
        """Make the trace file and remove the journal."""
        if self._file.closed:
            return
        try:
            self.flush()
            self._stream.close()
            # Not by its name: the journal's folder may be gone.
            journal = Journal(journal_path(self.path), self._file)
            write_trace(self.path, with_distinct_keys(journal), journal)
        except OSError as error:
            raise error if error is self._fault else _named(self.path, error, self._way_out) from error
        finally:
            self._close_file()
        journal_path(self.path).unlink(missing_ok=True)

    def abandon(self) -> None:
        """Close the journal and leave it where it is, as a kill would."""
        if not self._file.closed:
            with suppress(OSError):
                self.flush()
            self._close_file()

    @property
    def _way_out(self) -> str:
        return f"make room, then 'kvbench trace recover {self.path}' makes a trace of what was recorded"

    def _close_file(self) -> None:
        with suppress(OSError):  # what it could not write is not written now either
            self._file.close()

    def _remove_journal(self) -> None:
        self._close_file()
        journal_path(self.path).unlink(missing_ok=True)

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif self.rows:
            self.abandon()
        else:
            self._remove_journal()


def _named(path: Path, error: OSError, advice: str) -> OSError:
    """The system's error with its file, and what to do."""
    fault = os.strerror(error.errno) if error.errno else str(error)
    named = type(error)(f"{path}: cannot be written ({fault}): {advice}")
    named.errno = error.errno
    return named


def _record_batch(events: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns: list[Any] = list(zip(*events, strict=True)) or [() for _ in COLUMNS]
    arrays = [
        pa.DictionaryArray.from_arrays(pa.array([_NAMES.index(each) for each in names], pa.int8()), _NAMES)
        for names in columns[:2]
    ]
    arrays += [pa.array(column, field.type) for column, field in zip(columns[2:], _TYPED, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)


def recover_trace(path: str | Path) -> int:
    """Make the trace file ``path`` of the journal beside it, remove the journal, and return the number of events.

    The header's source gets ``distinct_keys`` (see ``kvbench.trace.keys``). Of a journal that was cut off in the middle
    of a write, everything before that write is used. Where the recorder was killed after it had made the trace, the
    journal is removed and the trace stays.

    Raises:
        TraceError: there is no journal, or no event of it was flushed.
        FileExistsError: the trace file exists and is not what the journal holds.
    """
    path = Path(path)
    journal = journal_path(path)
    kind = special_kind(journal)
    if kind is not None:
        raise TraceError(journal, f"is {kind}, not the journal of a recorder")
    if not journal.exists():
        raise TraceError(path, f"there is no journal {journal.name} to recover a trace from")
    with open(journal, "rb") as file:
        if path.exists():
            rows = _rows_of_both(path, journal, file)
            if rows is None:
                raise FileExistsError(f"{path} exists: move it away before recovering its journal")
        else:
            rows = _write_recorded(path, Journal(journal, file))
    journal.unlink(missing_ok=True)
    return rows


def _write_recorded(path: Path, journal: Journal) -> int:
    if not any(batch.num_rows for batch in journal):
        raise TraceError(journal.path, "has no events: nothing was flushed before the recorder ended; delete it")
    return write_trace(path, with_distinct_keys(journal), journal)


def _rows_of_both(path: Path, journal: Path, file: IO[bytes]) -> int | None:
    """The number of events of a trace, where it holds what its journal does; None where it does not."""
    try:
        reader, recorded = TraceReader(path), Journal(journal, file)
        headers = [
            replace(each, schema_version=NEWEST_VERSION) for each in (with_distinct_keys(recorded), reader.header)
        ]
        groups = zip_longest(_row_groups(recorded), _row_groups(reader.batches()))
        same = headers[0] == headers[1] and all(one and two and _plain(one).equals(_plain(two)) for one, two in groups)
    except (TraceError, OSError):
        return None
    return reader.rows if same else None


def _plain(events: pa.Table) -> pa.Table:
    """Events with their names written out: dictionaries may differ."""
    schema = pa.schema([(each.name, pa.string() if each.name in COLUMNS[:2] else each.type) for each in EVENT_SCHEMA])
    return events.cast(schema)
