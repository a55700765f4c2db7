"""Drawing plots as SVG that is part of a page: with the page's colours, text that is text, points to be pointed at.

Matplotlib draws with stand-in colours, which become CSS: ``currentColor`` for text and axes, a variable for the grid
and one for each colour of the palette, so that a picture follows a page from light to dark.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from kvbench.report.panels import Level, Plot, Series
from kvbench.report.pointing import Hovers, along, placed, pointed_at, shared_lines
from kvbench.report.svg import part_of_a_page
from kvbench.report.text import number

__all__ = ["COLOURS", "Drawing", "draw"]

COLOURS = 8  # of the palette, in report.css
_TEXT, _GRID = "#010203", "#010204"
_PALETTE = [f"#0102{0x10 + place:02x}" for place in range(COLOURS)]
_CSS = {_TEXT: "currentColor", _GRID: "var(--grid)"} | {
    colour: f"var(--series-{place})" for place, colour in enumerate(_PALETTE)
}
_FONT = 11  # points: some 10 pixels on a phone, 15 on a desk
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    # Names come from files: a dollar sign in them begins no formula.
    "text.parse_math": False,
    "text.usetex": False,
    "font.size": _FONT,
    "axes.linewidth": 0.6,
    "path.simplify": True,
    # Grid lines are enough, and a tick is an element of its own.
    **dict.fromkeys(("xtick.bottom", "ytick.left", "xtick.minor.bottom", "ytick.minor.left"), False),
} | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT)

_POINTS_PER_INCH = 72  # what matplotlib's SVG counts in
_WIDTH, _HEIGHT = 5.0, 2.8  # inches: narrow enough for its text to be read on a phone
_LINE_OF_BARS = 0.3
_LABEL_LENGTH, _LONGEST_LABEL = 32, 36
_MARK_FONT, _ROOM_FOR_MARKS = 9, 0.1  # points; of a figure's height, above what else it shows
_MARK_CHARACTER, _MARK_GAP = 0.64 * _MARK_FONT, 4  # points, of a mark's text
_CHARACTER = 0.53 * _FONT / 72  # inches, of a label
_DECADES_OF_LINES, _DECADES_OF_BARS = 3, 1.7  # up to which a logarithmic axis is labelled within decades too
_LINES = ("line", "dashed")
_NEAR = 0.004  # of a figure's height, within which lines lie on each other
_LEVEL = 5  # points
_HALO, _MOST_HALOS = 2.5, 2  # points that a line is wider for each line that covers it
_MARKED_POINTS = 60  # a line of more has no dots


@dataclass(frozen=True)
class Drawing:
    """A drawn plot.

    Attributes:
        svg: an ``<svg>`` element; parts of a series carry its number as ``data-series``.
        legend: names of the series, their colours' numbers, and whether they are dashed.
        points: ``[x, y, text]`` of each series' points, in the coordinates of the SVG.
        covers: whether lines run over others.
        along: values along the site's commits, in place of ``points``.
    """

    svg: Markup
    legend: list[tuple[str, int, bool]]
    points: list[list[tuple[float, float, str]]]
    covers: bool
    along: dict[str, Any] | None = None

    @property
    def pointed_at(self) -> dict[str, Any]:
        """What the page's script reads of it."""
        return self.along or shared_lines(self.points)


def draw(plot: Plot, name: str) -> Drawing:
    """Draw a plot; its ids begin with ``name``: unique on the page, of letters, digits and dashes."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        height = _HEIGHT if not plot.categories else 0.8 + _LINE_OF_BARS * len(plot.categories)
        figure = Figure(figsize=(_WIDTH, height), dpi=_POINTS_PER_INCH)
        labels = _shortened(plot.categories)
        if labels:
            widest = max(map(len, labels))
            left, below, above = max(0.3, _CHARACTER * (widest + 1) / _WIDTH), 0.55 / height, 0.1 / height
        else:
            left, below, above = 0.13, 0.54 / height, 0.36 / height
        axes = figure.add_axes((left, below, 0.97 - left, 1 - below - above))
        covered = [_covered(plot, place) for place in range(len(plot.series))]
        points = _bars(axes, plot, labels) if labels else _series(axes, plot, covered)
        _dress(axes, plot)
        file, nothing = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+")  # the reader's own fonts show the text
            figure.savefig(file, format="svg", transparent=True, metadata=nothing)
        shown = [placed(axes, each, _POINTS_PER_INCH * height) for each in points]
        values = along(axes, plot, _POINTS_PER_INCH * height)
    legend = [(each.name, _colour(each, place), each.style == "dashed") for place, each in enumerate(plot.series)]
    return Drawing(part_of_a_page(file.getvalue(), name, _CSS), legend, shown, any(covered), values)


def _colour(series: Series, place: int) -> int:
    return (place if series.colour is None else series.colour) % COLOURS


def _series(axes: Axes, plot: Plot, covered: Sequence[int]) -> list[Hovers]:
    points = []
    floors: dict[float, float] = {}
    gaps = [b - a for series in plot.series for a, b in zip(series.x, series.x[1:], strict=False)]
    for place, series in enumerate(plot.series):
        ink: dict[str, Any] = {"color": _PALETTE[_colour(series, place)], "gid": f"series:{place}"}
        tops = list(series.y)
        if series.style == "bars":
            low = [floors.get(x, 0.0) for x in series.x]
            for bar in axes.bar(series.x, series.y, 0.85 * min(gaps, default=1), low, color=ink["color"]):
                bar.set_gid(f"series:{place}")
            tops = [start + value for start, value in zip(low, series.y, strict=True)]
            floors |= dict(zip(series.x, tops, strict=True))
        elif series.style == "points":
            axes.plot(series.x, series.y, linestyle="none", marker="o", markersize=4, **ink)
        else:
            wider = _HALO * covered[place]
            x, y = _broken(series, plot.breaks)
            few = len(series.x) <= _MARKED_POINTS and not (series.style == "dashed" and _is_whole(y))
            dots: dict[str, Any] = {"marker": "o", "markersize": 2.6 + wider} if few else {}
            dashes = (0, (3, 2)) if series.style == "dashed" else "solid"
            axes.plot(x, y, linewidth=1.3 + wider, linestyle=dashes, **dots, **ink)
        points.append(pointed_at(series, zip(series.x, tops, strict=True)))
    for place, series in enumerate(plot.series):
        levels = [level for level in plot.levels if level.series == place]
        if levels:
            _levels(axes, levels, _PALETTE[_colour(series, place)])
    return points


def _broken(series: Series, breaks: Iterable[float]) -> tuple[list[float], list[float]]:
    """Its points in order, and a gap at each break."""
    points = sorted(
        [*zip(series.x, series.y, strict=True), *((x, math.nan) for x in breaks)], key=lambda point: point[0]
    )
    return [x for x, _ in points], [y for _, y in points]


def _is_whole(values: Iterable[float]) -> bool:
    """Whether a line alone shows every point: none is between two gaps."""
    known = [False, *(not math.isnan(y) for y in values), False]
    return not any(
        own and not before and not after for before, own, after in zip(known, known[1:], known[2:], strict=False)
    )


def _levels(axes: Axes, levels: Sequence[Level], colour: str) -> None:
    """Those of one series."""
    places = [place for level in levels for place in (level.start, level.end, math.nan)]
    heights = [height for level in levels for height in (level.y, level.y, math.nan)]
    gid = f"series:{levels[0].series}"
    axes.plot(places, heights, linewidth=_LEVEL, alpha=0.4, solid_capstyle="butt", color=colour, gid=gid)
    for level in (each for each in levels if each.text):
        middle = (level.start + level.end) / 2
        axes.annotate(
            level.text, (middle, level.y), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=_FONT,
            fontweight="bold", gid=gid,
        )  # fmt: skip


def _covered(plot: Plot, place: int) -> int:
    """How many of the lines drawn over one run where it runs, up to ``_MOST_HALOS``: it is drawn wider, to be seen."""
    line, over = plot.series[place], plot.series[place + 1 :]
    if plot.categories or line.style not in _LINES:
        return 0
    height = np.log10 if plot.log_y else np.asarray
    heights = [y for each in plot.series for y in height(each.y) if not math.isnan(y)]
    near = _NEAR * (max(heights, default=0.0) - min(heights, default=0.0))
    own = dict(zip(line.x, height(line.y), strict=True))
    number = 0
    for later in (each for each in over if each.style in _LINES):
        gaps = [abs(own[x] - y) for x, y in zip(later.x, height(later.y), strict=True) if x in own]
        known = [gap for gap in gaps if not math.isnan(gap)]
        number += 2 * sum(gap <= near for gap in known) >= len(known) > 0
    return min(number, _MOST_HALOS)


def _bars(axes: Axes, plot: Plot, labels: Sequence[str]) -> list[Hovers]:
    points: list[Hovers] = []
    lines = range(len(labels))
    left = np.zeros(len(labels))
    for place, series in enumerate(plot.series):
        for bar in axes.barh(lines, series.y, 0.72, left, color=_PALETTE[_colour(series, place)]):
            bar.set_gid(f"series:{place}")
        points.append(pointed_at(series, zip(left + np.divide(series.y, 2), lines, strict=True)))
        left += series.y
    for line, (lowest, first, middle, third, highest) in enumerate(plot.spreads):
        axes.hlines(line, lowest, highest, colors=_PALETTE[0], linewidth=0.8)
        axes.hlines(line, first, third, colors=_PALETTE[0], linewidth=6)
        axes.plot([middle], [line], marker="|", markersize=9, color=_TEXT)
        points.append([(middle, line, f"{plot.categories[line]}\nmedian {number(middle)} {plot.x_label}")])
    axes.set_yticks(lines, labels)
    axes.set_ylim(len(plot.categories) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return points


def _shortened(names: Sequence[str]) -> list[str]:
    """Names as long as there is room for; more of them where two would look the same."""
    for length in (_LABEL_LENGTH, _LONGEST_LABEL):
        half = length // 2
        found = [name if len(name) <= length else f"{name[: half - 4]}…{name[-half - 3 :]}" for name in names]
        if len(set(found)) == len(set(names)):
            return found
    # Alike at both ends: numbered, as the table is.
    return [f"{name[: _LONGEST_LABEL - 6]}… {number}" for number, name in enumerate(names, 1)]


def _dress(axes: Axes, plot: Plot) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x" if plot.categories else "y", color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel(plot.x_label, labelpad=2)
    if plot.y_label:
        # Above the axis, where it is read without turning the head and costs no width.
        axes.set_title(plot.y_label, loc="left", fontsize=_FONT, x=-0.12, y=1.0, pad=9)
    for axis, is_log in ((axes.xaxis, plot.log_x), (axes.yaxis, plot.log_y)):
        if is_log:
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
            low, high = axis.get_view_interval()
            # Less than a decade or two has too few powers of ten to be read by; bars leave less room than lines.
            few = math.log10(high) - math.log10(low) < (_DECADES_OF_BARS if plot.categories else _DECADES_OF_LINES)
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=8))
        elif axis is axes.xaxis or not plot.categories:
            drawn = [] if plot.categories else [each for each in plot.series if len(each.x)]
            columns = [each.x if axis is axes.xaxis else each.y for each in drawn]
            # What one series counts is counted in whole numbers, also where another one has the mean of it.
            whole = any(all(math.isnan(value) or float(value).is_integer() for value in each) for each in columns)
            axis.set_major_locator(MaxNLocator(6, integer=whole))
        if axis is axes.xaxis or not plot.categories:
            axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
            if is_log:
                axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    if plot.x_ticks:
        axes.set_xticks([place for place, _ in plot.x_ticks], [text for _, text in plot.x_ticks])
    if plot.from_zero or (plot.categories and not plot.log_x):
        (axes.set_xlim if plot.categories else axes.set_ylim)(0)
    if plot.marks:
        _mark(axes, plot.marks)


def _mark(axes: Axes, marks: Sequence[tuple[float, str]]) -> None:
    """Lines in one path, however many; a text where the one before it leaves room."""
    ends = [(x, y) for x, _ in marks for y in (0, 1)]
    path = Path(ends, [Path.MOVETO, Path.LINETO] * len(marks))
    dots: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (1, 2))}
    axes.add_artist(PathPatch(path, fill=False, edgecolor=_TEXT, transform=axes.get_xaxis_transform(), **dots))
    low, high = axes.get_ylim()  # settles what the series ask for
    to, back = axes.yaxis.get_transform().transform, axes.yaxis.get_transform().inverted().transform
    axes.set_ylim(low, float(back(to(high) + _ROOM_FOR_MARKS * (to(high) - to(low)))))
    free = -math.inf
    for x, text in sorted(marks):
        place = axes.transData.transform((x, 0))[0]
        if place < free:
            continue
        free = place + _MARK_GAP + _MARK_CHARACTER * len(text)
        axes.annotate(
            text, (x, 1), xycoords=("data", "axes fraction"), xytext=(2, -1), textcoords="offset points",
            fontsize=_MARK_FONT, va="top",
        )  # fmt: skip


_PREFIXES = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))  # from where on, of how many, called what


def _tick(value: float) -> str:
    for least, size, prefix in _PREFIXES:
        if abs(value) >= least:
            return f"{value / size:.4g}{prefix}"
    return number(round(value, 10)).replace(",", "")
