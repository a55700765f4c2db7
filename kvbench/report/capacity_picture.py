"""Capacity curves as one picture: hits over memory, in full entries and in pages, between the bounds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvbench.files import whole_or_absent
from kvbench.report.pictures import DOTS, palette
from kvbench.report.text import clean
from kvbench.results.capacity import CapacityPoint, CapacityResults

__all__ = ["capacity_picture", "draw_curves", "write_capacity_picture"]

_BOUNDS = {"belady": "--", "strict": "-.", "unbounded": ":"}
_TITLES = {"entries": "Full entries", "pages": "Pages of one token"}


def draw_curves(axes: Axes, points: Sequence[CapacityPoint]) -> None:
    """Hits of each policy over sizes; of a sample with the band of its error. Stale hits are dashed and thin."""
    lines: dict[str, list[CapacityPoint]] = {}
    for each in points:
        lines.setdefault(each.policy, []).append(each)
    colours = cycle(palette())
    for policy, of_policy in lines.items():
        style: dict[str, Any] = {"color": "black" if policy in _BOUNDS else next(colours)}
        _draw(axes, of_policy, "hit", clean(policy), marker="o", markersize=3, linestyle=_BOUNDS.get(policy), **style)
        if any(each.stale_hit for each in of_policy):
            _draw(axes, of_policy, "stale_hit", f"{clean(policy)}, stale hits", linestyle="--", linewidth=1, **style)
    axes.set(
        xscale="log",
        xlabel="MB" if points[0].bytes is not None else "entries",
        ylabel="lookups, %",
        ylim=(-2, 102),
        title=_TITLES[points[0].unit],
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")


def _draw(axes: Axes, points: Sequence[CapacityPoint], outcome: str, label: str, **style: Any) -> None:
    sizes = [each.size if each.bytes is None else each.bytes / 1e6 for each in points]
    rates = [100 * (each.rates[outcome] or 0.0) for each in points]
    errors = [100 * each.errors[outcome] for each in points]
    (line,) = axes.plot(sizes, rates, label=label, **style)
    if any(errors):
        lower = [rate - error for rate, error in zip(rates, errors, strict=True)]
        upper = [rate + error for rate, error in zip(rates, errors, strict=True)]
        axes.fill_between(sizes, lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)


def capacity_picture(results: CapacityResults) -> Figure:
    """Both tables of ``kvbench capacity``, side by side."""
    units = [unit for unit in _TITLES if any(each.unit == unit for each in results.points)]
    trace = results.trace
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 10}):
        figure = Figure(figsize=(5.5 * len(units), 4), dpi=DOTS, layout="constrained")
        about = (
            f"{trace.events} requests" if results.pool is None else f"{trace.searches} searches, {results.pool} pool"
        )
        figure.suptitle(clean(f"{Path(trace.file).stem}: {about}"), fontsize=10)
        for axes, unit in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
            draw_curves(axes, [each for each in results.points if each.unit == unit])
    return figure


def write_capacity_picture(file: Path, results: CapacityResults) -> None:
    """Write a picture in the format of the file's name. Raises OSError: it cannot be written."""
    with whole_or_absent(file) as beside:
        capacity_picture(results).savefig(beside, format=file.suffix[1:].lower())
