"""What pages are made of: a plot with its table, its data and the command that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kvbench.report.plots import Plot

__all__ = ["Cell", "Link", "Panel", "Table"]


@dataclass(frozen=True)
class Link:
    """Text that leads somewhere: ``target`` is an address relative to the page."""

    text: str
    target: str

    def __str__(self) -> str:
        return self.text


Cell = str | float | int | None | Link


@dataclass(frozen=True)
class Table:
    """Rows under headings; a heading names the unit of what stands below it."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]


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
    data: Table | None = field(default=None)
    open: bool = False
