"""How many bytes a column's pages say they decode to, read from the pages themselves: a file's footer may lie.

Where the pages are is read from the footer by code of our own: pyarrow 26 ends the process where the footer's
description of a column is damaged.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from kvbench.trace.thrift import read_struct

__all__ = ["Chunk", "decoded_bytes", "read_chunks"]

# Fields of Parquet's structs, by their numbers.
_GROUPS, _COLUMNS, _ABOUT = 4, 1, 3
_PATH, _LENGTH, _DATA, _DICTIONARY, _STATISTICS, _LEAST = 3, 7, 9, 11, 12, 6
_SIZES = _UNCOMPRESSED, _COMPRESSED = 2, 3
_FOOTER_LEVELS, _PAGE_LEVELS = 16, 5
_END = 8  # bytes behind the footer: its length, and a mark
_LONGEST_HEADER = 2**20  # a header holds the smallest and largest value of its page, at most


class Chunk(NamedTuple):
    """A column in a row group: its pages are in ``length`` bytes from ``start`` on.

    ``least`` is its smallest value, as the file writes it; None where it does not say.
    """

    column: str
    start: int
    length: int
    least: bytes | None


def read_chunks(path: Path) -> list[list[Chunk]]:
    """The columns of each row group of a file, as its footer has them.

    Raises:
        OSError: the file cannot be read.
        ValueError, OverflowError: its footer is damaged.
    """
    with open(path, "rb") as file:
        file.seek(-_END, io.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-_END - length, io.SEEK_END)
        footer = read_struct(io.BytesIO(file.read(length)), _FOOTER_LEVELS)
    try:
        return [[_chunk(each[_ABOUT]) for each in group[_COLUMNS]] for group in footer[_GROUPS]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("a footer that does not say where columns are") from error


def _chunk(about: dict[int, Any]) -> Chunk:
    start, least = about.get(_DICTIONARY) or about[_DATA], about.get(_STATISTICS, {}).get(_LEAST)
    if type(start) is not int or type(about[_LENGTH]) is not int or not isinstance(least, bytes | None):
        raise ValueError("a column without its place")
    return Chunk(b".".join(about[_PATH]).decode(), start, about[_LENGTH], least)


def decoded_bytes(path: Path, chunks: Sequence[Chunk], columns: Collection[str]) -> int:
    """Of these columns among the ``chunks`` of a row group.

    Raises:
        OSError: the file cannot be read.
        ValueError, OverflowError: its pages are not where the footer says.
    """
    decoded, unread = 0, path.stat().st_size
    with open(path, "rb") as file:
        for chunk in chunks:
            if chunk.column in columns:
                if not 0 <= chunk.length <= unread:
                    raise ValueError("columns that take more bytes than the file has")
                unread -= chunk.length
                decoded += _decoded_bytes(file, chunk.start, chunk.length)
    return decoded


def _decoded_bytes(file: BinaryIO, start: int, length: int) -> int:
    """Of all pages in ``length`` bytes from ``start`` on."""
    decoded, end = 0, start + length
    while start < end:
        file.seek(start)
        header = io.BytesIO(file.read(min(_LONGEST_HEADER, end - start)))
        fields = read_struct(header, _PAGE_LEVELS)
        sizes = [fields.get(each) for each in _SIZES]
        if not all(type(each) is int and each >= 0 for each in sizes):
            raise ValueError("a page without its sizes")
        decoded += fields[_UNCOMPRESSED]
        start += header.tell() + fields[_COMPRESSED]
    return decoded
