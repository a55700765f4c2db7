"""Small files of requests in the formats of other systems, and libCacheSim in a process that it may end."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from kvbench.requests.formats import import_requests
from kvbench.requests.reader import RequestReader
from kvbench.requests.source import SourceFile
from kvbench.requests.table import Columns

PROMPTS = [
    {"timestamp": 0, "input_length": 1300, "output_length": 5, "hash_ids": [0, 1, 2]},
    {"timestamp": 27, "input_length": 1024, "output_length": 1, "hash_ids": [0, 1]},
    {"timestamp": 3052, "input_length": 600, "output_length": 9, "hash_ids": [7, 2**64 - 1]},
]
CHATS = [
    {"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 33, "output_length": 3, "type": "text",
     "turn": 1, "hash_ids": [10, 11, 12]},
    {"chat_id": 160, "parent_chat_id": 159, "timestamp": 62.5, "input_length": 48, "output_length": 3, "type": "text",
     "turn": 2, "hash_ids": [10, 11, 13]},
]  # fmt: skip


def json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def oracle_general(rows: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Records of time, key, size and next request."""
    return b"".join(struct.pack("<IQIq", *row) for row in rows)


def imported(path: Path, content: bytes, form: str, columns: Columns | None = None) -> RequestReader:
    """The trace that is made of a file with that content."""
    path.write_bytes(content)
    output = path.with_name(f"{path.name}.parquet")
    import_requests(SourceFile(path), form, output, columns or Columns())
    return RequestReader(output)


def rows_of(reader: RequestReader) -> list[tuple[Any, ...]]:
    """Time, key, size, parent and record of each request."""
    table = pa.Table.from_batches(reader.batches())
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


_JUDGE = """
import json, sys
import libcachesim

def request(key, size):
    made = libcachesim.Request()
    made.obj_id, made.obj_size = key, size
    return made

def reader(path, kind, has_header):
    about = libcachesim.ReaderInitParam(
        ignore_size_zero_req=True, obj_id_is_num=True, has_header=has_header, has_header_set=True, delimiter=","
    )
    about.time_field, about.obj_id_field, about.obj_size_field = 1, 2, 3
    return libcachesim.TraceReader(path, getattr(libcachesim.TraceType, kind), about)

answers = []
for job in json.load(sys.stdin):
    if "path" in job:
        found = reader(job["path"], job["kind"], job["has_header"])
        answers.append([(each.clock_time, each.obj_id, each.obj_size) for each in found])
    else:
        cache = getattr(libcachesim, job["policy"])(cache_size=job["size"], hashpower=12)
        answers.append([cache.get(request(*each)) for each in job["requests"]])
json.dump(answers, open(sys.argv[1], "w"))
"""


def libcachesim(folder: Path, jobs: Sequence[dict[str, Any]]) -> list[Any]:
    """The hits of each job's ``requests``, or what libCacheSim reads of its ``path``."""
    answers = folder / "answers.json"
    subprocess.run(
        [sys.executable, "-c", _JUDGE, str(answers)], input=json.dumps(jobs), text=True, check=True, capture_output=True
    )
    return json.loads(answers.read_text())
