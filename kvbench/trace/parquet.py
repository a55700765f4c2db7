"""Parquet files with a header of ours: what is wrong with one, before any of its columns is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kvbench.files import special_kind
from kvbench.trace.limits import FOOTER_BYTES, fault_of_group
from kvbench.trace.pages import decoded_bytes, read_chunks
from kvbench.trace.schema import HEADER_DIGEST_KEY, HEADER_KEY, TraceError

__all__ = ["check_columns", "check_parquet", "header_text", "read_batches", "reading"]

_BATCH_ROWS = 65_536  # as many are decoded at a time
_MAGIC = b"PAR1"  # what a Parquet file begins and ends with


@contextmanager
def reading(path: Path, fault: str) -> Iterator[None]:
    """What Arrow says of a damaged file is ``fault``, as a TraceError."""
    try:
        yield
    except TraceError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise TraceError(path, fault) from error


def header_text(path: Path, schema: pa.Schema) -> bytes:
    """The JSON of the header. Raises TraceError: the file has none, or it does not match its checksum."""
    text: bytes | None = (schema.metadata or {}).get(HEADER_KEY)
    if text is None:
        raise TraceError(path, "a Parquet file without a trace header: not written by kvcache")
    digest = schema.metadata.get(HEADER_DIGEST_KEY)
    if digest is not None and digest.decode(errors="replace") != hashlib.sha256(text).hexdigest():
        raise TraceError(path, "the header is damaged: it does not match its checksum")
    return text


def check_columns(path: Path, schema: pa.Schema, wanted: pa.Schema) -> None:
    """Raise TraceError unless each wanted column is there once and has its type."""
    for column in wanted:
        places = schema.get_all_field_indices(column.name)
        if len(places) != 1:
            number = "missing" if not places else f"there {len(places)} times"
            raise TraceError(path, f"column {column.name!r} is {number}")
        found = schema.field(places[0]).type
        if found != column.type:
            raise TraceError(path, f"column {column.name!r} has type {found}, not {column.type}")


def read_batches(
    path: Path, file: pq.ParquetFile, columns: Sequence[str], made: Callable[[pa.RecordBatch], pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The columns as batches of one row group each, and what ``made`` makes of them.

    Raises:
        TraceError: a row group cannot be read.
    """
    with reading(path, "a damaged Parquet file: its footer or its schema cannot be read"):
        chunks = read_chunks(path)
    first = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        with reading(path, f"row group {group} (rows {first} to {first + rows - 1}) cannot be read: it is damaged"):
            fault = fault_of_group(group, rows, decoded_bytes(path, chunks[group], columns))
            if fault:
                raise TraceError(path, fault)
            read = 0
            for batch in file.iter_batches(_BATCH_ROWS, [group], list(columns)):
                batch.validate(full=True)
                read += batch.num_rows
                yield made(batch)
            if read != rows:
                raise ValueError(f"{read} rows")
        first += rows


def check_parquet(path: Path) -> None:
    """Raise TraceError for what a look at the file's two ends says against it.

    Nothing but a file is opened: a FIFO would wait for ever.
    """
    fault = _fault_of(path)
    if fault:
        raise TraceError(path, fault)


def _fault_of(path: Path) -> str | None:
    kind = special_kind(path)
    if kind is not None:
        return f"is {kind}, not a trace file"
    try:
        with open(path, "rb") as file:
            start = file.read(len(_MAGIC))
            size = file.seek(0, 2)
            file.seek(max(0, size - len(_MAGIC)))
            end = file.read()
            file.seek(max(0, size - 2 * len(_MAGIC)))
            footer = int.from_bytes(file.read(len(_MAGIC)), "little")
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
    if footer > FOOTER_BYTES:
        return f"its footer has {footer:,} bytes: more than the {FOOTER_BYTES:,} that are read"
    return None
