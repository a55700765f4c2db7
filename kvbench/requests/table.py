"""Requests as CSV: a line each, with its key and, where they are known, its size and time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pyarrow import csv

from kvbench.files import whole_or_absent
from kvbench.requests.schema import LARGEST_KEY, LARGEST_SIZE
from kvbench.requests.source import SourceError, SourceFile, batch_of, whole_number

__all__ = ["Columns", "read_csv", "write_csv"]

_BLOCK = 2**21  # bytes that are parsed at a time: no line is longer
_SECOND = 1_000_000  # us
_LATEST = 10**12  # s


@dataclass(frozen=True)
class Columns:
    """Where a table has what, counted from 1; 0: it has none. Times are seconds.

    ``hashes_keys``: keys are texts, and their xxh64 is taken.
    """

    key: int = 2
    time: int = 1
    size: int = 3
    delimiter: str = ","
    has_header: bool = False
    hashes_keys: bool = False


class _Ended(io.RawIOBase):
    """A stream with the end of a line at its end: pyarrow reads over an only line that has none."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._has_ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = b""
        while len(data) < size and (piece := self._stream.read(size - len(data))):
            data += piece
        if len(data) < size and not self._has_ended:
            self._has_ended = True
            data += b"\n"
        return data


def read_csv(source: SourceFile, columns: Columns) -> Iterator[pa.RecordBatch]:
    """The requests of a table; those of size 0 are left out, as libCacheSim does.

    Raises:
        SourceError: with the line: it lacks a column, or a value is none of its kind.
    """
    first = 0
    try:
        with source.open() as stream:
            for batch in _parsed(source, _Ended(stream), columns):
                yield from _batches(source, batch, columns, first)
                first += batch.num_rows
    except pa.ArrowInvalid as error:
        if "Empty CSV" not in str(error):
            raise SourceError(source.path, str(error).partition("\n")[0]) from None


def _parsed(source: SourceFile, stream: Any, columns: Columns) -> csv.CSVStreamingReader:
    """The rows; of columns that are used, as bytes. Others are skipped."""
    used = {f"f{each - 1}": pa.binary() for each in (columns.key, columns.time, columns.size) if each}
    lines = csv.ReadOptions(
        use_threads=False, block_size=_BLOCK, skip_rows=int(columns.has_header), autogenerate_column_names=True
    )
    parse = csv.ParseOptions(delimiter=columns.delimiter)
    convert = csv.ConvertOptions(column_types=used, include_columns=sorted(used), strings_can_be_null=False)
    try:
        return csv.open_csv(stream, lines, parse, convert)
    except KeyError as error:
        number = int("".join(filter(str.isdigit, str(error))) or 0) + 1
        fault = f"it has no column {number}: name the columns with --key-column, --size-column and --time-column"
        raise SourceError(source.path, fault) from None


def _batches(source: SourceFile, batch: pa.RecordBatch, columns: Columns, first: int) -> Iterator[pa.RecordBatch]:
    def column(number: int) -> Any:
        return batch.column(f"f{number - 1}")

    rows, line = batch.num_rows, first + 1 + columns.has_header
    keys = _hashed(column(columns.key)) if columns.hashes_keys else _keys(source, column(columns.key), line)
    sizes, times = np.ones(rows, dtype=np.int64), np.zeros(rows)
    if columns.size:
        wrong = f"no size from 0 to {LARGEST_SIZE:,}"
        sizes = _numbers(source, column(columns.size), pa.int64(), (0, LARGEST_SIZE), wrong, line)
    if columns.time:
        wrong = f"no time in seconds from 0 to {_LATEST:,}"
        times = _numbers(source, column(columns.time), pa.float64(), (0, _LATEST), wrong, line)
    kept = sizes > 0
    source.left_out += int(np.count_nonzero(~kept))
    microseconds = np.round(times[kept] * _SECOND).astype(np.int64)
    records = np.flatnonzero(kept) + first
    yield from batch_of((microseconds, keys[kept], sizes[kept], records), has_times=bool(columns.time))


def _hashed(texts: Any) -> np.ndarray:
    return np.array([xxhash.xxh64_intdigest(each) for each in texts.to_pylist()], dtype=np.uint64)


def _keys(source: SourceFile, texts: Any, line: int) -> np.ndarray:
    with suppress(pa.ArrowInvalid):  # no UTF-8, or more than 64 bits
        trimmed = pc.ascii_trim_whitespace(texts.cast(pa.string()))
        if pc.all(pc.ascii_is_decimal(trimmed)).as_py():
            keys: np.ndarray = trimmed.cast(pa.uint64()).to_numpy()
            return keys
    place = next(place for place, each in enumerate(texts.to_pylist()) if whole_number(each) is None)
    fault = f"no key from 0 to {LARGEST_KEY:,}: with --text-keys keys may be any texts"
    fault += ", with --header the first line has names" if line + place == 1 else ""
    raise _fault(source, texts[place].as_py(), fault, line + place)


def _numbers(
    source: SourceFile, texts: Any, kind: pa.DataType, bounds: tuple[int, int], fault: str, line: int
) -> np.ndarray:
    """A column's numbers, within bounds."""
    try:
        values: np.ndarray = pc.ascii_trim_whitespace(texts.cast(pa.string())).cast(kind).to_numpy()
        place = None
    except (pa.ArrowInvalid, UnicodeDecodeError):
        place = next(number for number, each in enumerate(texts.to_pylist()) if _is_none(each, kind))
    if place is None:
        wrong = ~((values >= bounds[0]) & (values <= bounds[1]))  # NaN is neither
        place = int(np.argmax(wrong)) if wrong.any() else None
    if place is not None:
        raise _fault(source, texts[place].as_py(), fault, line + place)
    return values


def _is_none(text: bytes, kind: pa.DataType) -> bool:
    try:
        pa.scalar(text.decode().strip()).cast(kind)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return True
    return False


def _fault(source: SourceFile, value: bytes, fault: str, line: int) -> SourceError:
    return source.fault(f"line {line}", f"{value[:20].decode(errors='replace')!r} is {fault}")


def write_csv(path: Path, batches: Iterable[pa.RecordBatch], has_times: bool) -> int:
    """Write requests as ``time,key,size``, with these names in the first line; return their number. Times are seconds.

    Where times are not known the first column is not there. Raises OSError: the file cannot be written.
    """
    names = ["time", "key", "size"] if has_times else ["key", "size"]
    kinds = {"time": pa.float64(), "key": pa.uint64(), "size": pa.int64()}
    schema = pa.schema([(name, kinds[name]) for name in names])
    count = 0
    with whole_or_absent(path) as beside, open(beside, "wb") as file:
        file.write(f"{','.join(names)}\n".encode())  # pyarrow would put quotes around them
        with csv.CSVWriter(file, schema, write_options=csv.WriteOptions(include_header=False)) as lines:
            for batch in batches:
                columns = [batch.column(name) for name in names]
                if has_times:
                    columns[0] = pc.divide(columns[0].cast(pa.float64()), float(_SECOND))
                lines.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
                count += batch.num_rows
    return count
