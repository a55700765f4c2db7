"""Bounds of a trace: beyond them it is no record of a search, and nothing is allocated by its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "FOOTER_BYTES",
    "HEADER_BYTES",
    "LEVELS",
    "NAME_LENGTH",
    "fault_of_group",
    "fault_of_sizes",
    "levels_of",
    "out_of_bounds",
    "rows_out_of_bounds",
]

_COUNT = 2**20  # simulations of a search, and steps below its root
_SERIAL = 2**48  # batches, searches and rows of a trace

# Smallest and largest of each number, by its name in the header or its column. A key is any 64-bit number.
_BOUNDS: dict[str, tuple[int, int]] = {
    "num_layers": (1, 1024), "num_heads": (1, 1024), "embed_dim": (1, 65_536), "context_length": (1, 65_536),
    "env_num": (1, 65_536), "num_simulations": (1, _COUNT), "init": (1, _SERIAL), "recur": (1, _SERIAL),
    "env": (-1, 65_535), "batch": (0, _SERIAL), "search": (0, _SERIAL), "simulation": (-1, _COUNT),
    "size": (0, 65_536), "tokens": (1, 65_536), "depth": (0, _COUNT),
}  # fmt: skip

HEADER_BYTES = 2**20  # of the header's JSON
LEVELS = 32  # of lists and objects in it, one in another
NAME_LENGTH = 200  # characters of a text that is shown in a line
FOOTER_BYTES = 2**24  # of the file's own description: enough for 10,000 row groups

# What a row takes at most, decoded and compressed. Recorded events take 1.5 bytes and more each.
_ROW_BYTES = 256
_ROWS_PER_BYTE = 8
_SLACK_ROWS = 100_000
_SLACK_BYTES = 2**20


def out_of_bounds(values: Mapping[str, Any]) -> str | None:
    """What is wrong with the first number that is out of its bounds; None where all are within or are not given."""
    for name, (least, most) in _BOUNDS.items():
        value = values.get(name)
        if value is not None and not least <= value <= most:
            return f"{name} is {value}: it must be from {least} to {most}"
    return None


def rows_out_of_bounds(values: Mapping[str, np.ndarray], nulls: Mapping[str, np.ndarray]) -> np.ndarray:
    """In which rows of these columns a number is out of its bounds; nulls are not."""
    faults = [
        ~nulls[name] & ((each < _BOUNDS[name][0]) | (each > _BOUNDS[name][1]))
        for name, each in values.items()
        if name in _BOUNDS
    ]
    broken: np.ndarray = np.logical_or.reduce(faults)
    return broken


def fault_of_sizes(file_bytes: int, rows: int, groups: Sequence[int]) -> str | None:
    """What is wrong with the number of a file's rows; ``groups`` are those of each row group."""
    if rows < 0 or sum(groups) != rows or any(each < 0 for each in groups):
        return "a damaged Parquet file: its row groups do not have the rows that its footer names"
    if rows > file_bytes * _ROWS_PER_BYTE + _SLACK_ROWS:
        return f"{rows:,} events in {file_bytes:,} bytes: more than a recorder writes there, so it is not read"
    return None


def fault_of_group(group: int, rows: int, decoded: int) -> str | None:
    """What is wrong with the bytes that a row group's pages decode to."""
    if decoded > rows * _ROW_BYTES + _SLACK_BYTES:
        return f"row group {group} has {decoded:,} bytes for {rows:,} events: more than they take, so it is not read"
    return None


def levels_of(value: Any) -> int:
    """How deep lists and objects of JSON are in one another: 0 for a number or a text."""
    levels, inner = 0, [value]
    while inner := [each for each in inner if isinstance(each, (dict, list))]:
        levels += 1
        inner = [part for each in inner for part in (each.values() if isinstance(each, dict) else each)]
    return levels
