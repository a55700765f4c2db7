"""Reading traces, row group by row group, and refusing bad ones with the file, the row and the fault."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kvbench.trace.schema import (
    ASSEMBLE,
    CLEAR,
    COLUMNS,
    EVENT_SCHEMA,
    GENERATE,
    HEADER_DIGEST_KEY,
    HEADER_KEY,
    KINDS,
    LOOKUP,
    ROOT_SIMULATION,
    SCOPES,
    STORE,
    TraceError,
    TraceHeader,
)

__all__ = ["TraceReader"]

Event = dict[str, Any]

_MAGIC = b"PAR1"  # what a Parquet file begins and ends with

# Columns that an event of a kind must fill; all others that may be null stay null.
_NEEDED: dict[str, tuple[str, ...]] = {
    LOOKUP: ("key",),
    GENERATE: ("key",),
    ASSEMBLE: ("size",),
    STORE: ("key", "tokens"),
    CLEAR: (),
}


# A column with nulls would become float64, which cannot hold a 64-bit key.
_NULLABLE = {
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


class TraceReader:
    """A trace file: its header at once, its events as a stream.

    Args:
        path: of the file.

    Raises:
        TraceError: it cannot be opened, is not a Parquet file or not a trace of this schema version, or lacks a
            column.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        fault = _not_parquet(self.path)
        if fault:
            raise TraceError(path, fault)
        try:
            self._file = pq.ParquetFile(self.path, page_checksum_verification=True)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise TraceError(path, "a damaged Parquet file: its footer cannot be read") from error
        try:
            schema = self._file.schema_arrow
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise TraceError(path, "its Parquet schema cannot be read: the file is damaged") from error
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
            if schema.field(index).type != column.type:
                raise TraceError(
                    self.path, f"column {column.name!r} has type {schema.field(index).type}, not {column.type}"
                )

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
                raise TraceError(
                    self.path, f"row group {group} (rows {first} to {first + rows - 1}) cannot be read: it is damaged"
                ) from error
            yield from table.combine_chunks().to_batches()
            first += rows

    def events(self) -> Iterator[Event]:
        """Checked events, in order, each a dict of its columns.

        Raises:
            TraceError: at the first event that breaks a rule of the schema, with its row number.
        """
        checker = _Checker(self.path, self.header)
        row = 0
        for batch in self.batches():
            columns = [batch.column(name).to_pylist() for name in COLUMNS]
            for values in zip(*columns, strict=True):
                event = dict(zip(COLUMNS, values, strict=True))
                checker.check(row, event)
                yield event
                row += 1

    def to_pandas(self) -> pd.DataFrame:
        """All events as one frame, a row each, unchecked; columns that may be null keep that (``Int64``, ``boolean``).

        Raises:
            TraceError: a row group cannot be read.
        """
        table = pa.Table.from_batches(self.batches(), EVENT_SCHEMA)
        return table.to_pandas(types_mapper=_NULLABLE.get)

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
    """What a look at the file's two ends says against it."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(_MAGIC))
            size = file.seek(0, 2)
            file.seek(max(0, size - len(_MAGIC)))
            end = file.read()
    except FileNotFoundError:
        return "no such file"
    except IsADirectoryError:
        return "is a folder, not a trace file"
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if size == 0:
        return "the file is empty"
    if start != _MAGIC:
        return "not a Parquet file"
    if end != _MAGIC or size <= 2 * len(_MAGIC):
        return f"truncated: a Parquet file whose end is missing (it has {size} bytes)"
    return None


def _an(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


class _Checker:
    """The rules that one event alone, or its place among the others, can break."""

    def __init__(self, path: Path, header: TraceHeader) -> None:
        self._path = path
        self._geometry = header.geometry
        self._stored: dict[int, int] = {}  # row of a store -> its key
        self._batch = -1
        self._phase = 0
        self._parents: dict[int, int] = {}  # env -> key looked up in this batch
        self._lookups: dict[int, int] = {}  # env -> row of its lookup in this batch
        self._storing: set[int] = set()  # envs that store in this batch
        self._sizes: dict[int, int] = {}  # env -> size assembled in this batch
        self._seen: set[tuple[str, int]] = set()  # (kind, env) of this batch
        self._tokens: int | None = None

    def check(self, row: int, event: Event) -> None:
        fault = self._shape(event) or self._values(event) or self._order(row, event)
        if fault:
            raise TraceError(self._path, fault, row)

    def _shape(self, event: Event) -> str | None:
        kind, scope = event["kind"], event["scope"]
        if kind not in KINDS:
            return f"unknown kind {kind!r}: one of {', '.join(KINDS)}"
        if scope not in SCOPES[kind]:
            return f"{_an(kind)} has scope {scope!r}: one of {', '.join(SCOPES[kind])}"
        for name in ("env", "batch", "search", "simulation", *_NEEDED[kind]):
            if event[name] is None:
                return f"{_an(kind)} without a value in column {name!r}"
        return None

    def _values(self, event: Event) -> str | None:
        geometry = self._geometry
        kind = event["kind"]
        if kind != CLEAR and not 0 <= event["env"] < geometry.env_num:
            return f"env {event['env']}: the header has environments 0 to {geometry.env_num - 1}"
        if event["batch"] < 0 or event["search"] < 0 or event["simulation"] < ROOT_SIMULATION:
            return "a negative batch, search or simulation number"
        size, tokens, depth = event["size"], event["tokens"], event["depth"]
        if size is not None and size < 0:
            return f"size {size} is negative"
        if size is not None and size > geometry.context_length:
            return f"size {size} is over the context_length of {geometry.context_length}"
        if tokens is not None and not 0 < tokens <= geometry.context_length:
            return f"{tokens} new tokens: a store has 1 to {geometry.context_length}"
        if depth is not None and depth < 0:
            return f"depth {depth} is negative"
        return None

    def _order(self, row: int, event: Event) -> str | None:
        kind, env, batch = event["kind"], event["env"], event["batch"]
        if batch < self._batch:
            return f"batch {batch} after batch {self._batch}: batches stand in order"
        if batch > self._batch:
            self._end_batch()
            self._batch, self._phase, self._tokens = batch, 0, None
            self._parents.clear()
            self._lookups.clear()
            self._storing.clear()
            self._sizes.clear()
            self._seen.clear()
        phase = KINDS.index(kind)
        if phase < self._phase:
            return f"{_an(kind)} after {_an(KINDS[self._phase])} of the same batch"
        self._phase = phase
        if kind != CLEAR:
            if (kind, env) in self._seen:
                return f"a second {kind} of env {env} in batch {batch}"
            self._seen.add((kind, env))
        return {
            LOOKUP: self._lookup,
            GENERATE: self._generate,
            ASSEMBLE: self._assemble,
            STORE: self._store,
            CLEAR: self._clear,
        }[kind](row, event)

    def _end_batch(self) -> None:
        """A batch stores all its rows or, at a context_length with no room for a past, none."""
        for env, row in self._lookups.items():
            if self._storing and env not in self._storing:
                fault = f"env {env} looks up in batch {self._batch}, whose other environments store, but stores nothing"
                raise TraceError(self._path, fault, row)

    def _lookup(self, row: int, event: Event) -> str | None:
        node = event["node"]
        if node is not None and node not in self._stored:
            return f"the node it means, row {node}, is no store before this row"
        if node is not None and self._stored[node] != event["key"]:
            return f"it looks up key {event['key']:#018x} but means row {node}, which stored {self._stored[node]:#018x}"
        self._parents[event["env"]] = event["key"]
        self._lookups[event["env"]] = row
        return None

    def _generate(self, row: int, event: Event) -> str | None:
        if self._parents.get(event["env"]) != event["key"]:
            return f"generates key {event['key']:#018x}, which env {event['env']} did not look up in this batch"
        return None

    def _assemble(self, row: int, event: Event) -> str | None:
        self._sizes[event["env"]] = event["size"]
        return None

    def _store(self, row: int, event: Event) -> str | None:
        parent, env, tokens = event["parent"], event["env"], event["tokens"]
        if self._tokens is not None and tokens != self._tokens:
            return f"{tokens} new tokens, but the batch's rows get {self._tokens}: one batch appends alike"
        self._tokens = tokens
        if parent != self._parents.get(env):
            named = "no parent" if parent is None else f"the parent key {parent:#018x}"
            return f"the store names {named}, which no lookup of env {env} in this batch defines"
        longest = max(self._sizes.values(), default=0)
        if longest + tokens > self._geometry.context_length:
            return (
                f"{tokens} new tokens on a batch of {longest} exceed the context_length of "
                f"{self._geometry.context_length}"
            )
        if self._sizes and env not in self._sizes:
            return f"env {env} stores in batch {event['batch']} but was not assembled in it"
        self._stored[row] = event["key"]
        self._storing.add(env)
        return None

    def _clear(self, row: int, event: Event) -> str | None:
        return None
