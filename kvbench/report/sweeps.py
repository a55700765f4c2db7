"""A sweep's page: its cells side by side, those that failed, and the machines that computed them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kvbench import metrics
from kvbench.report.panels import Cell, Panel, Table
from kvbench.report.site import Group
from kvbench.report.text import clean, file_name, words
from kvbench.results.decode import LeftOut
from kvbench.results.sweep import DONE, read_sweep

__all__ = ["Sweep", "read_sweep_page"]

_MOST = 200  # rows of a trace that are shown; the data has all
_FIXED = ("eviction", "dtype", "device", "library")  # shown where they differ
_SIZES = ("init_slots", "init_bytes", "recur_slots", "recur_bytes")
_ORDER = ["backend", "storage", *_SIZES, "capacity", "eviction", "library"]
_NOTE = (
    "A mismatch is the right key with another history. A stale hit is another key's context. Ratios are of steps timed "
    "in turns with legacy; they may be compared across machines, and times may not."
)


@dataclass(frozen=True)
class Sweep:
    """One folder of a sweep; ``name`` is what it is called."""

    path: Path
    frame: pd.DataFrame
    name: str

    @property
    def title(self) -> str:
        """Of its page."""
        return f"Sweep {self.name}"

    @property
    def lead(self) -> list[str]:
        """Paragraphs at the top of its page."""
        failed = len(self.frame) - len(self._done)
        return [f"{len(self.frame):,} cells: {len(self._done):,} done, {failed:,} failed. {_NOTE}"]

    def groups(self) -> list[Group]:
        """All panels of its page."""
        traces = [self._cells(str(sha256), rows) for sha256, rows in self._done.groupby("trace_sha256", sort=False)]
        failed = self.frame[self.frame["status"] != DONE]
        reasons = self._table(failed, ["trace", "backend", "storage", "capacity", *_FIXED[:3], "attempts", "reason"])
        machines = self._done.groupby(["host", "machine"]).size().reset_index(name="cells")
        places = self._table(machines, ["cells", "host", "machine"])
        panels = {"Cells": traces, "Failed cells": [self._panel("Failed cells", reasons)] if len(failed) else [],
                  "Machines": [self._panel("Machines", places)] if len(machines) else []}  # fmt: skip
        return [Group(title, each) for title, each in panels.items() if each]

    @property
    def _done(self) -> pd.DataFrame:
        return self.frame[self.frame["status"] == DONE]

    def _cells(self, sha256: str, rows: pd.DataFrame) -> Panel:
        """The cells of a trace."""
        rows = rows.sort_values(_ORDER, na_position="first")
        trace = str(rows["trace"].iloc[0])
        shown = ["cache", "capacity", *(each for each in _FIXED if rows[each].nunique(dropna=False) > 1)]
        columns: dict[str, Sequence[Cell]] = {}
        named = rows["backend"] + rows["storage"].map(lambda each: f":{each}" if isinstance(each, str) else "")
        for name in shown:
            columns[name] = _cells_of(named if name == "cache" else rows[name])
        for metric in metrics.OUTCOMES[:-1]:
            columns[f"{words(metric.name)}, %"] = _cells_of(100 * rows[metric.name] / rows["lookups"])
        columns["evictions"] = _cells_of(rows["init_evictions"] + rows["recur_evictions"])
        reserved = [name for name in rows.columns if name.endswith("_bytes_reserved")]
        columns["reserved, bytes"] = _cells_of(rows[reserved].sum(axis=1))
        columns["times as fast as legacy"] = _cells_of(rows["legacy_over_backend"])
        table = Table.of(columns)
        more = f" The first {_MOST} of {len(rows):,} are shown; the data has all." if len(rows) > _MOST else ""
        return Panel(
            file_name("sweep", self.name, Path(trace).stem, beside=f"{self.path} {sha256}"),
            f"Cells of {trace}",
            Table(table.headings, table.rows[:_MOST]),
            f"{rows['replayed_searches'].iloc[0]} searches.{more}",
            self._command,
            data=self._table(rows, list(rows.columns)),
            open=True,
        )

    def _panel(self, title: str, table: Table) -> Panel:
        name = file_name("sweep", self.name, title, beside=str(self.path))
        return Panel(name, title, Table(table.headings, table.rows[:_MOST]), "", self._command, data=table, open=True)

    @property
    def _command(self) -> str:
        return str(clean(f"kvbench sweep PLAN.toml --output {shlex.quote(str(self.path))}"))

    @staticmethod
    def _table(rows: pd.DataFrame, columns: Sequence[str]) -> Table:
        return Table.of({name: _cells_of(rows[name]) for name in columns})


def _cells_of(values: pd.Series) -> list[Cell]:
    """Cells of a column; None where a value is absent. Texts are of files."""
    return [None if pd.isna(each) else clean(each) if isinstance(each, str) else each for each in values.tolist()]


def read_sweep_page(path: Path, name: str, left_out: LeftOut) -> Sweep:
    """Read a sweep's folder, called ``name``; what is no cell is left out. Raises ResultsError: it has none."""
    return Sweep(path, read_sweep(path, left_out), name)
