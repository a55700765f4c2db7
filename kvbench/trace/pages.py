"""How many bytes a column's pages say they decode to, read from the pages themselves: a file's footer may lie.

Parquet's page headers are structs of Thrift's compact protocol. Only their fields 2 and 3 are needed, the sizes; all
others are skipped.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["decoded_bytes"]

_UNCOMPRESSED, _COMPRESSED = 2, 3  # fields of a page's header
_STOP, _BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 0, (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_LONGEST_NUMBER = 10  # bytes
_LONG_LIST = 15
_LONGEST_HEADER = 2**20  # a header holds the smallest and largest value of its page, at most


def decoded_bytes(path: Path, group: Any, columns: Collection[str]) -> int:
    """Of these columns in a row group of a file; ``group`` is pyarrow's metadata of it.

    Raises:
        OSError: the file cannot be read.
        ValueError, OverflowError: its pages are not where the metadata say.
    """
    decoded, unread = 0, path.stat().st_size
    with open(path, "rb") as file:
        for column in (group.column(number) for number in range(group.num_columns)):
            if column.path_in_schema in columns:
                start, length = column.dictionary_page_offset or column.data_page_offset, column.total_compressed_size
                if not 0 <= length <= unread:
                    raise ValueError("columns that take more bytes than the file has")
                unread -= length
                decoded += _decoded_bytes(file, start, length)
    return decoded


def _decoded_bytes(file: BinaryIO, start: int, length: int) -> int:
    """Of all pages in ``length`` bytes from ``start`` on."""
    decoded, end = 0, start + length
    while start < end:
        file.seek(start)
        header = io.BytesIO(file.read(min(_LONGEST_HEADER, end - start)))
        sizes = _struct(header, levels=5)
        if not sizes.keys() >= {_UNCOMPRESSED, _COMPRESSED} or min(sizes.values()) < 0:
            raise ValueError("a page without its sizes")
        decoded += sizes[_UNCOMPRESSED]
        start += header.tell() + sizes[_COMPRESSED]
    return decoded


def _struct(data: BinaryIO, levels: int) -> dict[int, int]:
    """The two sizes among a struct's fields, as far as it has them; reads to its end."""
    sizes, field = {}, 0
    while (head := _byte(data)) != _STOP:
        kind = head & 15
        field = field + (head >> 4) if head >> 4 else _integer(data)
        if kind in _INTEGERS:
            number = _integer(data)
            if field in (_UNCOMPRESSED, _COMPRESSED):
                sizes[field] = number
        else:
            _skip(data, kind, levels)
    return sizes


def _skip(data: BinaryIO, kind: int, levels: int) -> None:
    if not levels:
        raise ValueError("structs within structs")
    if kind == _BYTE:
        _byte(data)
    elif kind in _INTEGERS:
        _number(data)
    elif kind == _DOUBLE:
        data.read(8)
    elif kind == _BINARY:
        data.read(_number(data))
    elif kind == _STRUCT:
        _struct(data, levels - 1)
    elif kind in _LISTS:
        head = _byte(data)
        for _ in range(_number(data) if head >> 4 == _LONG_LIST else head >> 4):
            _skip(data, _BYTE if head & 15 in _BOOLEANS else head & 15, levels - 1)
    elif kind not in _BOOLEANS:
        raise ValueError(f"a field of kind {kind}")


def _byte(data: BinaryIO) -> int:
    found = data.read(1)
    if not found:
        raise ValueError("a page's header that does not end")
    return found[0]


def _number(data: BinaryIO) -> int:
    number = 0
    for place in range(_LONGEST_NUMBER):
        byte = _byte(data)
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number
    raise ValueError("a number that does not end")


def _integer(data: BinaryIO) -> int:
    """A number with a sign, which is its last bit."""
    number = _number(data)
    return number >> 1 ^ -(number & 1)
