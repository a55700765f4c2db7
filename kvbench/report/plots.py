"""Plots before they are drawn: what a figure shows, in its own units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Plot", "Series"]


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


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        x_label, y_label: with their units.
        series: over two axes; with categories, horizontal bars, one in each category, behind each other from zero.
        categories: from the top.
        spreads: of each category (min, q1, median, q3, max), drawn there instead of bars.
        marks: vertical lines, and what is written at each.
        x_ticks: places and texts, where the axis has its own.
        log_x, log_y: logarithmic axes.
        from_zero: whether the vertical axis begins at zero.
    """

    x_label: str
    y_label: str = ""
    series: Sequence[Series] = ()
    categories: Sequence[str] = ()
    spreads: Sequence[Sequence[float]] = ()
    marks: Sequence[tuple[float, str]] = ()
    x_ticks: Sequence[tuple[float, str]] = ()
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = False
