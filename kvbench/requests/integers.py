"""Plain integers: the traces of the authors of LIRS (a block a line) and of ARC (a range of blocks a line)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

import numpy as np
import pyarrow as pa

from kvbench.requests.schema import LARGEST_KEY, ROW_GROUP_ROWS
from kvbench.requests.source import SourceError, SourceFile, batch_of, whole_number

__all__ = ["read_integers"]

_LIRS, _ARC = 1, 4  # numbers in a line
_LONGEST_RANGE = 2**20  # blocks
_MARK = b"*"  # a line of LIRS's traces without a block


def read_integers(source: SourceFile) -> Iterator[pa.RecordBatch]:
    """The requests of a file, all of size 1; its first line decides whether it is LIRS's or ARC's.

    Raises:
        SourceError: with the line, for the first one that has other numbers.
    """
    width = 0
    for first, lines in source.lines():
        tokens = [line.split() for line in lines]
        kept = [number for number, each in enumerate(tokens) if each and each != [_MARK]]
        if kept:
            width = width or len(tokens[kept[0]])
            numbers = _numbers(source, first, [tokens[number] for number in kept], kept, width)
            records = np.array(kept, dtype=np.int64) + (first - 1)
            yield from _ranges(source, numbers, records) if width == _ARC else _requests(numbers[:, 0], records)


def _numbers(source: SourceFile, first: int, tokens: list[list[bytes]], kept: list[int], width: int) -> np.ndarray:
    """``[n, width]`` of the lines' numbers, ``width`` for all."""
    flat = list(chain.from_iterable(tokens))
    if width in (_LIRS, _ARC) and set(map(len, tokens)) == {width} and b"".join(flat).isdigit():
        with suppress(ValueError, OverflowError):  # more digits than Python reads, or than 64 bits hold
            return np.array(list(map(int, flat)), dtype=np.uint64).reshape(-1, width)
    wrong = (place for place, each in enumerate(tokens) if len(each) != width or None in map(whole_number, each))
    place = next(wrong, 0)
    raise _fault(source, first + kept[place], tokens[place], width)


def _fault(source: SourceFile, number: int, tokens: list[bytes], width: int) -> SourceError:
    bad = next((each for each in tokens if whole_number(each) is None), None)
    if bad is not None:
        shown = bad[:20].decode(errors="replace")
        return source.fault(f"line {number}", f"{shown!r} is no whole number from 0 to {LARGEST_KEY:,}")
    if width in (_LIRS, _ARC):
        return source.fault(f"line {number}", f"{len(tokens)} numbers, where lines before it have {width}")
    return source.fault(f"line {number}", f"{len(tokens)} numbers: a line has 1 (LIRS) or 4 (ARC)")


def _requests(keys: np.ndarray, records: np.ndarray) -> Iterator[pa.RecordBatch]:
    ones = np.ones(len(keys), dtype=np.int64)
    return batch_of((ones, keys, ones, records), has_times=False)


def _ranges(source: SourceFile, numbers: np.ndarray, records: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Each block of each range, so many ranges at a time that their blocks fill a batch."""
    starts, counts = numbers[:, 0], numbers[:, 1]
    wrong = (counts > _LONGEST_RANGE) | (starts > np.uint64(LARGEST_KEY) - np.minimum(counts, _LONGEST_RANGE))
    if wrong.any():
        place = int(np.argmax(wrong))
        fault = f"{counts[place]} blocks from {starts[place]} on: at most {_LONGEST_RANGE:,}, with 64-bit numbers"
        raise source.fault(f"line {records[place] + 1}", fault)
    counts = counts.astype(np.int64)
    groups = np.cumsum(counts) // ROW_GROUP_ROWS
    for group in np.split(np.arange(len(counts)), np.flatnonzero(np.diff(groups)) + 1):
        length = counts[group]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        keys = np.repeat(starts[group], length) + within.astype(np.uint64)
        yield from _requests(keys, np.repeat(records[group], length))
