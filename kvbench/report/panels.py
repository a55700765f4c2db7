"""What pages are made of: a plot with its table, its data and the command that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pandas as pd

from kvbench.report.plots import Plot

__all__ = ["Cell", "Columns", "Link", "Panel", "Table"]


@dataclass(frozen=True)
class Link:
    """Text that leads somewhere: ``target`` is an address relative to the page."""

    text: str
    target: str

    def __str__(self) -> str:
        return self.text


Cell = str | float | int | None | Link
Columns: TypeAlias = Mapping[str, Sequence[Cell]] | pd.DataFrame


@dataclass(frozen=True)
class Table:
    """Rows under headings; a heading names the unit of what stands below it."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @classmethod
    def of(cls, columns: Columns) -> Table:
        """A table of its columns by their headings; of a frame, without its index."""
        if isinstance(columns, pd.DataFrame):
            columns = columns.to_dict("list")
        return cls(list(columns), list(zip(*columns.values(), strict=True)))


@dataclass(frozen=True)
class Panel:
    """A part of a page.

    Attributes:
        name: of its files; unique in the report, of letters, digits and dashes.
        title: what it shows.
        table: beside the plot.
        note: how to read it.
        command: that made the numbers.
        plot: None for a table alone.
        data: what its CSV file holds; None for the table itself.
        open: whether the table is open from the start.
    """

    name: str
    title: str
    table: Table
    note: str = ""
    command: str = ""
    plot: Plot | None = None
    data: Table | None = None
    open: bool = False
