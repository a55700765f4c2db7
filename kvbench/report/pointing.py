"""What is shown where a figure is pointed at: texts beside points, or values along the site's list of commits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

from matplotlib.axes import Axes

from kvbench.report.panels import Plot, Series

__all__ = ["Hovers", "along", "placed", "pointed_at", "shared_lines"]

_MOST_HOVERS = 500  # of a series: a figure is 360 points wide

Hovers: TypeAlias = list[tuple[float, float, str]]


def pointed_at(series: Series, places: Iterable[tuple[float, float]]) -> Hovers:
    """What is shown at each point; ``places`` has where each is drawn."""
    hover = series.hover
    if hover is None:
        return []
    points = zip(series.x, series.y, places, strict=True)
    known = [(x, y, place) for x, y, place in points if not math.isnan(x) and not math.isnan(y)]
    thinned = known[:: -(-len(known) // _MOST_HOVERS) or 1]
    shown = [(*place, hover(x, y, series.name)) for x, y, place in thinned]
    return [each for each in shown if each[2]]


def placed(axes: Axes, points: Hovers, height: float) -> Hovers:
    """Points in the coordinates of the SVG, whose y runs downwards."""
    if not points:
        return []
    places = axes.transData.transform([(x, y) for x, y, _ in points])
    return [
        (round(float(x), 1), round(height - float(y), 1), text)
        for (x, y), (_, _, text) in zip(places, points, strict=True)
        if math.isfinite(x) and math.isfinite(y)
    ]


def shared_lines(points: Iterable[Hovers]) -> dict[str, Any]:
    """Points with each line of their texts written once: ``[x, y, line, line, ...]`` of each, by the lines' numbers."""
    lines: dict[str, int] = {}
    places = [
        [[x, y, *(lines.setdefault(line, len(lines)) for line in text.split("\n"))] for x, y, text in series]
        for series in points
    ]
    return {"lines": list(lines), "series": places}


def along(axes: Axes, plot: Plot, height: float) -> dict[str, Any] | None:
    """Values of all series by commit, and how the SVG has them: ``x`` and ``y`` are an offset and a factor each.

    A page makes its own texts of them, and compares two commits. None of a plot that is not along commits.
    """
    if not plot.along:
        return None
    bottom, top = axes.get_ylim()
    (left, low), (right, high) = axes.transData.transform([(0, bottom), (1, top)])
    lowest, highest = (math.log10(bottom), math.log10(top)) if plot.log_y else (bottom, top)
    factor = (low - high) / (highest - lowest)
    return {
        "along": plot.along,
        "places": list(plot.places),
        "unit": plot.y_label,
        "log": plot.log_y,
        "x": [round(left, 2), round(right - left, 4)],
        "y": [round(height - low - factor * lowest, 4), float(f"{factor:.8g}")],
        "series": [[series.name, _by_place(series, len(plot.places))] for series in plot.series],
    }


def _by_place(series: Series, number: int) -> list[float | None]:
    """The values at each of so many places; where a line is broken it has points between them."""
    values = dict(zip(series.x, series.y, strict=True))
    return [_short(values.get(place, math.nan)) for place in range(number)]


def _short(value: float) -> float | None:
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else value
