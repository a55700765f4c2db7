"""libCacheSim's oracleGeneral: records of 24 bytes, each with the number of the next request for its key.

Little-endian and unpadded: seconds (u32), key (u64), size in bytes (u32), next request (i64), counted from 1; -1 where
there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from kvbench.errors import FileError
from kvbench.files import whole_or_absent
from kvbench.requests.source import SourceFile, batch_of

__all__ = ["read_oracle_general", "write_oracle_general"]

_RECORD = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])
_NEVER = -1
_LATEST = 2**48  # number of a request that a file may name; an unknown one is negative or this one:
_UNKNOWN = 2**63 - 1
_SECOND = 1_000_000  # us
_LARGEST = 2**32 - 1  # time and size
_RECORDS = 2**20  # that are looked through at a time


def read_oracle_general(source: SourceFile) -> Iterator[pa.RecordBatch]:
    """The requests of a file; those of size 0 are left out, as libCacheSim does. Next requests are not kept.

    Raises:
        SourceError: with the record, from 0: it is cut off, or its next request is no number of one.
    """
    first, rest = 0, b""
    for piece in source.pieces():
        data = rest + piece
        whole = len(data) // _RECORD.itemsize
        yield from _batches(source, np.frombuffer(data, _RECORD, whole), first)
        first, rest = first + whole, data[whole * _RECORD.itemsize :]
    if rest:
        raise source.fault(f"record {first}", f"truncated: it has {len(rest)} bytes of {_RECORD.itemsize}")


def _batches(source: SourceFile, records: np.ndarray, first: int) -> Iterator[pa.RecordBatch]:
    following = records["next"]
    wrong = ((following > _LATEST) & (following != _UNKNOWN)) | (following < -_LATEST)
    if wrong.any():
        place = int(np.argmax(wrong))
        fault = f"{following[place]} is no number of a next request: is the file oracleGeneral?"
        raise source.fault(f"record {first + place}", fault)
    kept = records["size"] > 0
    source.left_out += int(np.count_nonzero(~kept))
    numbers = np.flatnonzero(kept) + first
    records = records[kept]
    yield from batch_of((records["time"].astype(np.int64) * _SECOND, records["key"], records["size"], numbers))


def write_oracle_general(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write requests, whole or not at all; return their number. Unknown times are 0.

    A second pass, from the end on, writes the next requests. It holds one number for each key.

    Raises:
        OSError: the file cannot be written.
        FileError: a time or a size is larger than the format has room for.
    """
    count = 0
    with whole_or_absent(path) as beside:
        with open(beside, "wb") as file:
            for batch in batches:
                file.write(_records(path, batch, count).tobytes())
                count += batch.num_rows
        with open(beside, "r+b") as file:
            _link(file, count)
    return count


def _records(path: Path, batch: pa.RecordBatch, first: int) -> np.ndarray:
    """Records without their next requests."""
    records = np.empty(batch.num_rows, _RECORD)
    seconds = batch.column("time").fill_null(0).to_numpy() // _SECOND
    sizes = batch.column("size").to_numpy()
    for name, values in (("time", seconds), ("size", sizes)):
        wrong = (values < 0) | (values > _LARGEST)
        if wrong.any():
            place = int(np.argmax(wrong))
            fault = f"request {first + place} has {name} {values[place]}: oracleGeneral has room for {_LARGEST:,}"
            raise FileError(path, f"cannot be written: {fault}; export as csv")
        records[name] = values
    records["key"], records["next"] = batch.column("key").to_numpy(), _NEVER
    return records


def _link(file: BinaryIO, count: int) -> None:
    """Fill in the next request for each record's key."""
    later: dict[int, int] = {}  # key -> number of its first request behind the part
    for end in range(count, 0, -_RECORDS):
        start = max(0, end - _RECORDS)
        file.seek(start * _RECORD.itemsize)
        records = np.frombuffer(bytearray(file.read((end - start) * _RECORD.itemsize)), _RECORD)
        records["next"] = _following(np.array(records["key"]), start + 1, later)
        file.seek(start * _RECORD.itemsize)
        file.write(records.tobytes())


def _following(keys: np.ndarray, number: int, later: dict[int, int]) -> np.ndarray:
    """The next request for each key of a part whose first request has that number; ``later`` is brought up to date."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)  # of its key, in this part
    following = np.empty(len(keys), dtype=np.int64)
    following[order[:-1]] = order[1:] + number
    lasts, firsts = order[is_last], order[np.append(True, is_last[:-1])]
    following[lasts] = [later.get(key, _NEVER) for key in keys[lasts].tolist()]
    later.update(zip(keys[firsts].tolist(), (firsts + number).tolist(), strict=True))
    return following
