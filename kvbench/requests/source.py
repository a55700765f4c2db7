"""A file that somebody else wrote: its bytes, decompressed where its name says so, in pieces of bounded size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kvbench.errors import FileError
from kvbench.files import special_kind
from kvbench.requests.schema import LARGEST_KEY, REQUEST_SCHEMA, ROW_GROUP_ROWS

__all__ = ["SourceError", "SourceFile", "batch_of", "whole_number"]

_PIECE = 2**20  # bytes that are read at a time
_LONGEST_LINE = 2**24  # bytes
_CODECS = {".zst": "zstd", ".gz": "gzip", ".bz2": "bz2", ".lz4": "lz4"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SourceError(FileError):
    """A file that cannot be imported: which one, where in it, and what is wrong."""


class SourceFile:
    """The bytes of a file. ``.zst``, ``.gz``, ``.bz2`` and ``.lz4`` are decompressed as they are read.

    Attributes:
        left_out: requests of size 0, which no cache stores; a format counts them.
        odd_lengths: prompts whose length does not fit the number of their blocks; the same.

    Raises:
        SourceError: it is no file, or cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.left_out = self.odd_lengths = 0
        kind = special_kind(self.path)
        if kind is not None:
            raise SourceError(path, f"is {kind}, not a file of requests")
        try:
            with open(self.path, "rb") as file:
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self.bytes = self.path.stat().st_size
        except FileNotFoundError:
            raise SourceError(path, "no such file") from None
        except OSError as error:
            raise SourceError(path, f"cannot be opened: {error.strerror}") from None
        self._raw: Any = None

    @property
    def bytes_read(self) -> int:
        """Of the file as it lies there."""
        return int(self._raw.tell()) if self._raw is not None and not self._raw.closed else 0

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Its bytes as a stream of Arrow's. Errors of the stream within the block are SourceErrors."""
        codec = _CODECS.get(self.path.suffix.lower())
        try:
            with pa.OSFile(str(self.path)) as self._raw:
                yield pa.CompressedInputStream(self._raw, codec) if codec else self._raw
        except (OSError, UnicodeEncodeError) as error:
            fault = str(error).partition("\n")[0] or type(error).__name__
            packed = f" (its name says that it is compressed with {codec})" if codec else ""
            raise SourceError(self.path, f"cannot be read{packed}: {fault}") from None

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, a piece after the other."""
        with self.open() as stream:
            while piece := stream.read(_PIECE):
                yield piece

    def lines(self) -> Iterator[tuple[int, list[bytes]]]:
        """Some whole lines at a time, without their ends, and the number of the first, from 1."""
        number, rest = 1, b""
        for piece in self.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            if number == 1 and lines:
                lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
            if len(rest) > _LONGEST_LINE:
                fault = f"line {number + len(lines)}: longer than {_LONGEST_LINE:,} bytes: is it a file of lines?"
                raise SourceError(self.path, fault)
            yield number, lines
            number += len(lines)
        if rest:
            yield number, [rest.removeprefix(_BYTE_ORDER_MARK) if number == 1 else rest]

    def fault(self, where: str, fault: str) -> SourceError:
        """An error at a place of the file, as "line 3"."""
        return SourceError(self.path, f"{where}: {fault}")


def whole_number(text: bytes) -> int | None:
    """The key that a text is: decimal digits of at most 64 bits; None where it is none."""
    stripped = text.strip()
    if not stripped.isdigit() or len(stripped.lstrip(b"0")) > len(str(LARGEST_KEY)):
        return None
    number = int(stripped)
    return number if number <= LARGEST_KEY else None


def batch_of(columns: Iterable[Any], parents: Any = None, has_times: bool = True) -> Iterator[pa.RecordBatch]:
    """Arrays ``[n]`` of time, key, size and record as batches; ``parents``: keys, and where there are none."""
    time, key, size, record = (np.asarray(each) for each in columns)
    missing = np.ones(len(key), dtype=bool)
    parent, no_parent = (np.zeros(len(key), dtype=np.uint64), missing) if parents is None else parents
    arrays = [
        pa.array(time, pa.int64(), mask=None if has_times else missing),
        pa.array(key, pa.uint64()),
        pa.array(size, pa.int64()),
        pa.array(parent, pa.uint64(), mask=no_parent),
        pa.array(record, pa.int64()),
    ]
    whole = pa.RecordBatch.from_arrays(arrays, schema=REQUEST_SCHEMA)
    for first in range(0, len(key), ROW_GROUP_ROWS):
        yield whole.slice(first, ROW_GROUP_ROWS)
