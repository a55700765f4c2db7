"""Structs of Thrift's compact protocol, in which Parquet's footers and page headers are written."""

from __future__ import annotations

from typing import Any, BinaryIO

__all__ = ["read_struct"]

_STOP, _BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 0, (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_LONGEST_NUMBER = 10  # bytes
_LONG_LIST = 15


def read_struct(data: BinaryIO, levels: int) -> dict[int, Any]:
    """A struct's fields by their numbers, read to its end: whole numbers, texts as bytes, lists and structs.

    Other fields are None. ``levels`` is how many of lists and structs may be in one another.

    Raises:
        ValueError, OverflowError: it is none.
    """
    found: dict[int, Any] = {}
    field = 0
    while (head := _byte(data)) != _STOP:
        field = field + (head >> 4) if head >> 4 else _integer(data)
        found[field] = _value(data, head & 15, levels)
    return found


def _value(data: BinaryIO, kind: int, levels: int) -> Any:
    if not levels:
        raise ValueError("structs within structs")
    if kind == _BYTE:
        return _byte(data)
    if kind in _INTEGERS:
        return _integer(data)
    if kind == _DOUBLE:
        if len(data.read(8)) < 8:
            raise ValueError("a struct that does not end")
    elif kind == _BINARY:
        return data.read(_number(data))
    elif kind == _STRUCT:
        return read_struct(data, levels - 1)
    elif kind in _LISTS:
        head = _byte(data)
        inner = _BYTE if head & 15 in _BOOLEANS else head & 15
        count = _number(data) if head >> 4 == _LONG_LIST else head >> 4
        return [_value(data, inner, levels - 1) for _ in range(count)]
    elif kind not in _BOOLEANS:
        raise ValueError(f"a field of kind {kind}")
    return None


def _byte(data: BinaryIO) -> int:
    found = data.read(1)
    if not found:
        raise ValueError("a struct that does not end")
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
