"""The journal of a recorder: the events of a trace that is not finished, as an Arrow stream that may be cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import pyarrow as pa

from kvbench.trace.keys import distinct_keys
from kvbench.trace.schema import EVENT_SCHEMA, HEADER_KEY, TraceError, TraceHeader

__all__ = ["Journal", "journal_path", "with_distinct_keys"]


def journal_path(path: str | Path) -> Path:
    """Where the events of an unfinished trace lie."""
    return Path(f"{path}.journal")


class Journal:
    """The events of a journal, in batches of ``EVENT_SCHEMA``: read anew each time that they are gone through.

    Where it was cut off in the middle of a write, they end before that write.

    Args:
        path: of the journal.
        file: which it is; it may be at any place.

    Raises:
        TraceError: it has not even a header.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self._file = path, file
        try:
            stream = self._stream()
            self.header = TraceHeader.from_json(stream.schema.metadata[HEADER_KEY])
            if not stream.schema.equals(EVENT_SCHEMA):
                raise ValueError("the journal's columns are not those of a trace")
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, MemoryError) as error:
            fault = "the journal's beginning cannot be read: nothing was flushed, or it is damaged"
            raise TraceError(path, fault) from error

    def _stream(self) -> pa.RecordBatchReader:
        self._file.seek(0)
        return pa.ipc.open_stream(self._file)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        stream = self._stream()
        while True:
            try:
                batch = stream.read_next_batch()
                batch.validate(full=True)
            except (StopIteration, pa.ArrowException, OSError, UnicodeDecodeError, MemoryError):
                return
            yield batch.cast(EVENT_SCHEMA)


def with_distinct_keys(journal: Journal) -> TraceHeader:
    """The header of the trace that a journal makes."""
    share, header = distinct_keys(journal), journal.header
    source = header.source if share is None else {**header.source, "distinct_keys": round(share, 4)}
    return replace(header, source=source)
