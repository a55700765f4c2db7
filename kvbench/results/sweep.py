"""A sweep's folder: one Parquet file a cell, of one row each. Together they are one frame.

``COLUMNS`` is the schema, and docs/sweeps.md has it as a table. A version of the schema is never changed: another list
of columns gets another number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kvbench import metrics
from kvbench.files import special_kind, whole_or_absent
from kvbench.results.decode import LeftOut, ResultsError

__all__ = [
    "COLUMNS", "DONE", "FAILED", "MADE_BY", "SCHEMA", "SCHEMA_VERSION", "Column", "cell_files", "read_cell",
    "read_sweep", "write_cell",
]  # fmt: skip

SCHEMA_VERSION = 1
MADE_BY = "'kvbench sweep'"
DONE, FAILED = "done", "failed"
_VERSION = b"kvbench_sweep"  # of a file's metadata
_MOST_BYTES = 2**20  # of a row, decoded: there are some thousand
_TEXT, _COUNT, _NUMBER = pa.string(), pa.int64(), pa.float64()
_SCOPES = {"": "all lookups", "root_": "lookups of roots", "node_": "lookups of simulations"}


@dataclass(frozen=True)
class Column:
    """A column: its meaning, with its unit; ``exact``: it is the same wherever and however often a cell is computed."""

    name: str
    type: pa.DataType
    meaning: str
    exact: bool = True


COLUMNS = (
    # What the cell is.
    Column("cell", _TEXT, "name of the cell: a hash of the columns from here to `counted_searches`"),
    Column("trace_sha256", _TEXT, "SHA-256 of the trace's file"),
    Column("backend", _TEXT, "cache, without its storage"),
    Column("storage", _TEXT, "storage of the cache; none where the plan names none"),
    Column("capacity", _TEXT, "capacity as the plan has it"),
    Column("init_slots", _COUNT, "slots of each init pool that this capacity gives; none leaves them to the cache"),
    Column("recur_slots", _COUNT, "the same of the recurrent pool"),
    Column("init_bytes", _COUNT, "bytes of each init pool, in place of slots"),
    Column("recur_bytes", _COUNT, "the same of the recurrent pool"),
    Column("eviction", _TEXT, "eviction strategy; none for a legacy cache, which has its own"),
    Column("dtype", _TEXT, "type of the stored numbers"),
    Column("device", _TEXT, "`cpu` or `cuda`"),
    Column("library", _TEXT, "`commit` and a hash, or `source` and a digest of the library in use"),
    Column("searches", _COUNT, "searches that were asked for; none is all"),
    Column("repetitions", _COUNT, "timed repetitions; 0 only counts"),
    Column("counted_searches", _COUNT, "searches whose operations are counted; none is all"),
    # How it ended, and what was replayed.
    Column("status", _TEXT, "`done` or `failed`"),
    Column("geometry", _TEXT, "name of the trace's geometry"),
    Column("replayed_searches", _COUNT, "searches that were replayed"),
    Column("recurrent_steps", _COUNT, "recurrent steps of these"),
    *(Column(f"{scope}lookups", _COUNT, f"{what}") for scope, what in _SCOPES.items()),
    *(
        Column(f"{scope}{metric.name}", _COUNT, f"{what} whose outcome is {metric.label}")
        for scope, what in _SCOPES.items()
        for metric in metrics.OUTCOMES
    ),
    *(Column(f"{pool}_evictions", _COUNT, f"evictions of the {pool} pools") for pool in ("init", "recur")),
    *(
        Column(f"{pool}_bytes_reserved", _COUNT, f"bytes that {what} at the end")
        for pool, what in {
            "init": "the init pools have", "recur": "the recurrent pool has", "wm": "the scratch pool has",
            "batch": "the batch has",
        }.items()
    ),
    *(
        Column(f"step_{metric.name}", _NUMBER, f"{metric.label} of a median recurrent step")
        for metric in metrics.COUNTERS
    ),
    # What belongs to one computation.
    Column("trace", _TEXT, "name of the trace's file", exact=False),
    Column("commit", _TEXT, "commit of the library, where it is known", exact=False),
    Column("reason", _TEXT, "why the cell failed", exact=False),
    Column("legacy_over_backend", _NUMBER, "times as fast as legacy: median of paired ratios of a step", exact=False),
    Column("legacy_over_backend_p25", _NUMBER, "lower quartile of these", exact=False),
    Column("legacy_over_backend_p75", _NUMBER, "upper quartile of these", exact=False),
    Column("step_us_p50", _NUMBER, "median of a recurrent step, us: of this machine only", exact=False),
    Column("legacy_step_us_p50", _NUMBER, "the same of legacy, timed in turns with it", exact=False),
    Column("seconds", _NUMBER, "how long the cell took, s", exact=False),
    Column("attempts", _COUNT, "how often it began: 1, and 1 for each worker that died under it", exact=False),
    Column("worker", _TEXT, "Dask's address of the worker", exact=False),
    Column("host", _TEXT, "name of the worker's machine", exact=False),
    Column("machine", _TEXT, "processor, cores, versions", exact=False),
    Column("compiled", pa.bool_(), "whether the library's compiled parts were there", exact=False),
    Column("finished", _TEXT, "when the cell ended, UTC", exact=False),
)  # fmt: skip
SCHEMA = pa.schema([(each.name, each.type) for each in COLUMNS], {_VERSION: str(SCHEMA_VERSION)})


def write_cell(path: Path, row: Mapping[str, Any]) -> None:
    """Write a cell's file, whole or not at all; what ``row`` lacks is null. Raises OSError."""
    with whole_or_absent(path) as beside:
        pq.write_table(pa.Table.from_pylist([dict(row)], SCHEMA), beside, write_page_checksum=True)


def read_cell(path: Path) -> pa.Table:
    """A cell's row. Raises ResultsError: it is no file of a sweep, of another version, or damaged."""
    kind = special_kind(path)
    if kind is not None:
        raise ResultsError(path, f"is {kind}", MADE_BY)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            fault = _not_a_cell(file)
            found = None if fault else file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ResultsError(path, "cannot be read: it is no Parquet file, or damaged", MADE_BY) from error
    if found is None:
        raise ResultsError(path, fault, MADE_BY)
    return found


def _not_a_cell(file: pq.ParquetFile) -> str:
    """What is wrong with it, before any row is read; empty where nothing is."""
    schema, about = file.schema_arrow, file.metadata
    version = (schema.metadata or {}).get(_VERSION)
    if version is None:
        return "no file of a sweep"
    if version != SCHEMA.metadata[_VERSION]:
        return "a version of the schema that this kvbench does not know"
    decoded = sum(about.row_group(each).total_byte_size for each in range(about.num_row_groups))
    if schema != SCHEMA or about.num_rows != 1 or decoded > _MOST_BYTES:
        return "its columns or rows are none of a cell"
    return ""


def cell_files(folder: Path) -> Iterator[Path]:
    """The files of a folder's cells, in order."""
    return iter(sorted(each for each in folder.glob("*.parquet") if not each.name.startswith(("_", "."))))


def read_sweep(folder: Path, left_out: LeftOut | None = None) -> pd.DataFrame:
    """All cells of a folder as one frame, a row each; what is no cell goes to ``left_out``.

    Raises ResultsError: the folder has no cell that can be read.
    """
    if not folder.is_dir():
        raise ResultsError(folder, "no such folder", MADE_BY)
    left_out = LeftOut() if left_out is None else left_out
    tables = []
    for path in cell_files(folder):
        try:
            tables.append(read_cell(path))
        except ResultsError as error:
            left_out.add(path, error.fault)
    if not tables:
        raise ResultsError(folder, "it has no cell that can be read", MADE_BY)
    return pa.concat_tables(tables).to_pandas(types_mapper={_COUNT: pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get)
