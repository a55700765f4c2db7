"""The folder of a sweep: its cells' files, the wheels of its commits, and a mark that tells it from other folders."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from msgspec import Struct

from kvbench.errors import FileError
from kvbench.files import UNFINISHED, remove_unfinished
from kvbench.results.decode import ResultsError, read_json, write_json
from kvbench.results.sweep import MADE_BY, read_cell, write_cell
from kvbench.sweep.cells import Cell
from kvbench.sweep.measure import Row

__all__ = ["SweepFolder"]

# What begins with an underscore is no part of the frame, for pandas and pyarrow as for us.
_MARK, _WHEELS = "_sweep.json", "_wheels"
_OTHER = "name an empty folder, or one that is not there"


class _Mark(Struct, frozen=True):
    """``token`` tells this folder from others of the same path on other machines."""

    token: str
    format: Literal["kvcache-sweep"] = "kvcache-sweep"
    schema_version: Literal[1] = 1


class SweepFolder:
    """A folder; ``claim`` makes it where there is none.

    Raises FileError: it holds something else, or cells of another schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.mark, self.wheels = self.path / _MARK, self.path / _WHEELS
        if path.exists() and not path.is_dir():
            raise FileError(path, f"is no folder: {_OTHER}")
        if self.mark.exists():
            read_json(self.mark, _Mark, MADE_BY)
        elif path.is_dir() and any(not UNFINISHED.fullmatch(each.name) for each in path.iterdir()):
            raise FileError(path, f"is no folder of a sweep, and not empty: {_OTHER}")

    def claim(self) -> str:
        """Make the folder and its mark, where they are not there; the mark's token. Raises OSError."""
        if not self.mark.exists():
            write_json(self.mark, _Mark(secrets.token_hex(16)))
        return read_json(self.mark, _Mark, MADE_BY).token

    def file_of(self, cell: Cell) -> Path:
        """Where the cell's row is, or will be."""
        return self.path / f"{cell.id}.parquet"

    def row(self, cell: Cell) -> Row | None:
        """The cell's row; None where it is not there, or cannot be read."""
        try:
            rows: list[Row] = read_cell(self.file_of(cell)).to_pylist()
        except ResultsError:
            return None
        return rows[0]

    def statuses(self, cells: Iterable[Cell]) -> dict[str, str]:
        """How the cells that are there ended, by their names."""
        there = {each.name for each in self.path.glob("*.parquet")}
        found = {each.id: self.row(each) for each in cells if f"{each.id}.parquet" in there}
        return {name: row["status"] for name, row in found.items() if row is not None}

    def write(self, cell: Cell, row: Row) -> None:
        """Write the cell's row. Raises OSError."""
        write_cell(self.file_of(cell), row)

    def remove_unfinished(self) -> None:
        """Remove what dead processes of this machine left half written."""
        remove_unfinished(self.path)
