"""What pages are made of: a plot, before it is drawn, with its table, its data and the command that made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import pandas as pd

__all__ = ["Cell", "Columns", "Facets", "Level", "Link", "Panel", "Plot", "Series", "Table", "without_repeats"]


@dataclass(frozen=True)
class Link:
    """Text that leads somewhere: ``target`` is an address relative to the page."""

    text: str
    target: str

    def __str__(self) -> str:
        return self.text


MOST_ROWS = 25  # of a table beside a picture
MOST_COLUMNS = 10  # of a table, for which 1280 pixels have room
_EMPTY = (None, "")
_LARGEST = 1e150  # that is drawn

Cell = str | float | int | None | Link
Columns: TypeAlias = Mapping[str, Sequence[Cell]] | pd.DataFrame
Facets: TypeAlias = Mapping[str, Sequence[str]]  # what readers filter by, and its values: a geometry, a metric


@dataclass(frozen=True)
class Table:
    """Rows under headings; a heading names the unit of what stands below it.

    Attributes:
        headings: of the columns, what a reader looks for first: a phone shows a row from its beginning.
        rows: their cells.
        first: how many columns stand side by side. What is behind them is opened row by row; None for all.
        facets: of each row, where readers may filter them.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    first: int | None = None
    facets: Sequence[Facets] = ()

    @property
    def beside(self) -> int:
        """How many columns stand side by side; more than a page is wide are opened row by row."""
        number = len(self.headings)
        return self.first or (number if number <= MOST_COLUMNS else MOST_COLUMNS - 2)

    @classmethod
    def of(cls, columns: Columns) -> Table:
        """A table of its columns by their headings; of a frame, without its index."""
        if isinstance(columns, pd.DataFrame):
            columns = columns.to_dict("list")
        return cls(list(columns), list(zip(*columns.values(), strict=True)))

    @property
    def filled(self) -> Table:
        """Without columns that are empty in every row: nobody finds anything there."""
        kept = [
            place
            for place in range(len(self.headings))
            if not self.rows or any(row[place] not in _EMPTY for row in self.rows)
        ]
        first = None if self.first is None else sum(place < self.first for place in kept)
        return replace(
            self,
            headings=[self.headings[place] for place in kept],
            rows=[[row[place] for place in kept] for row in self.rows],
            first=first,
        )

    def thinned(self, most: int = MOST_ROWS) -> Table:
        """At most so many rows from the first to the last: a picture shows the others, and the data has them."""
        every = max(1, -(-(len(self.rows) - 1) // (most - 1)))
        places = [*range(0, len(self.rows) - 1, every), len(self.rows) - 1]
        return self if every == 1 else replace(self, rows=[self.rows[place] for place in places])


@dataclass(frozen=True)
class Series:
    """A row of points.

    Attributes:
        name: in the legend.
        x, y: of each point; NaN breaks a line.
        hover: what is shown where a point is pointed at, by its x, its y and the name; None for nothing.
        style: ``line``, ``dashed``, ``points``, or ``bars`` (stacked on those before). With categories always bars.
        colour: its number in the palette; None takes the next.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    hover: Callable[[float, float, str], str] | None = None
    style: str = "line"
    colour: int | None = None


def without_repeats(lines: Iterable[Series]) -> list[Series]:
    """Lines that are the same everywhere as one, with all of their names."""
    found: dict[tuple[Hashable, ...], list[Series]] = {}
    for each in lines:
        found.setdefault((tuple(each.x), tuple(each.y), each.style), []).append(each)
    return [replace(alike[0], name=", ".join(each.name for each in alike)) for alike in found.values()]


@dataclass(frozen=True)
class Level:
    """Where a series stays for a while: a wide line from one place to another, and what is written above it."""

    series: int
    start: float
    end: float
    y: float
    text: str = ""


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        x_label, y_label: with their units.
        series: over two axes; with categories, horizontal bars, one in each category, behind each other from zero.
        categories: from the top.
        spreads: of each category (min, q1, median, q3, max), drawn there instead of bars.
        marks: vertical lines, and what is written at each.
        breaks: places that no line crosses.
        x_ticks: places and texts, where the axis has its own.
        log_x, log_y: logarithmic axes.
        from_zero: whether the vertical axis begins at zero.
        levels: before and after steps.
        along: the name of a list of commits that the whole site has. Points are pointed at by these, without texts of
            their own: that of x is the one at ``places[x]``.
    """

    x_label: str
    y_label: str = ""
    series: Sequence[Series] = ()
    categories: Sequence[str] = ()
    spreads: Sequence[Sequence[float]] = ()
    marks: Sequence[tuple[float, str]] = ()
    breaks: Sequence[float] = ()
    x_ticks: Sequence[tuple[float, str]] = ()
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = False
    levels: Sequence[Level] = ()
    along: str = ""
    places: Sequence[int] = ()

    def drawable(self) -> Plot:
        """The same without numbers so large that no axis spans them: files may hold any; tables show them."""
        series = [replace(each, x=_spanned(each.x), y=_spanned(each.y)) for each in self.series]
        return replace(self, series=series, spreads=[_spanned(each) for each in self.spreads])


def _spanned(values: Sequence[float]) -> list[float]:
    return [value if abs(value) < _LARGEST else math.nan for value in values]


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
        facets: that readers may filter it by.
    """

    name: str
    title: str
    table: Table
    note: str = ""
    command: str = ""
    plot: Plot | None = None
    data: Table | None = None
    open: bool = False
    facets: Facets = field(default_factory=dict)
