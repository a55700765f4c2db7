"""Plots before they are drawn: what a figure shows, in its own units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Band", "Category", "Mark", "Plot", "Series"]


@dataclass(frozen=True)
class Series:
    """A row of points.

    Attributes:
        name: in the legend.
        x, y: of each point; NaN breaks a line.
        hover: what is shown where a point is pointed at, by its x, its y and the name; None for nothing.
        style: ``line``, ``dashed``, ``points``, or ``bars`` (stacked on those before).
        colour: its number in the palette; None takes the next.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    hover: Callable[[float, float, str], str] | None = None
    style: str = "line"
    colour: int | None = None


@dataclass(frozen=True)
class Mark:
    """A vertical line, and what is written at it."""

    x: float
    text: str


@dataclass(frozen=True)
class Band:
    """Horizontal bars of one name, one in each category, behind each other from zero.

    Attributes:
        name: in the legend.
        widths: of each category's bar.
        hovers: of each bar.
        colour: its number in the palette; None takes the next.
    """

    name: str
    widths: Sequence[float]
    hovers: Sequence[str]
    colour: int | None = None


@dataclass(frozen=True)
class Category:
    """A line of a plot of horizontal bars; ``spread`` (min, q1, median, q3, max) is drawn there instead of bars."""

    name: str
    spread: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        x_label, y_label: with their units.
        series: over two axes.
        categories, bands: instead of series, horizontal bars.
        marks: vertical lines.
        x_ticks: places and texts, where the axis has its own.
        log_x, log_y: logarithmic axes.
        from_zero: whether the vertical axis begins at zero.
    """

    x_label: str
    y_label: str = ""
    series: Sequence[Series] = ()
    categories: Sequence[Category] = ()
    bands: Sequence[Band] = ()
    marks: Sequence[Mark] = ()
    x_ticks: Sequence[tuple[float, str]] = ()
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = False
