"""A replay as one picture, a file that needs no page; notebooks draw its parts, and a search's tree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kvbench.files import whole_or_absent
from kvbench.replay.drive import OPERATIONS
from kvbench.report.answers import pools_of
from kvbench.report.backends import OUTCOME_COLOURS, step_parts
from kvbench.report.search_shape import NO_NODE
from kvbench.report.text import clean, number, words
from kvbench.results.replay import OUTCOMES, STEP, ReplayResult, Timeline

__all__ = [
    "DOTS", "draw_memory", "draw_outcomes", "draw_places", "draw_search", "draw_step", "draw_tree", "palette",
    "picture", "write_picture",
]  # fmt: skip

_STYLESHEET = Path(__file__).with_name("templates") / "report.css"
_WIDTH, _HEIGHT, _LINE = 12.0, 1.7, 0.3  # inches: of the picture, of a row without bars, of a bar
DOTS = 120  # an inch
_GREY = 6  # of the palette


@cache
def palette() -> list[str]:
    """The colours of the pages, on a light ground."""
    found = dict(re.findall(r"--series-(\d): (#[0-9a-f]{6})", _STYLESHEET.read_text().partition("@media")[0]))
    return [found[str(place)] for place in range(len(found))]


def draw_step(axes: Axes, replay: ReplayResult) -> None:
    """The median time of a recurrent step by operation, a bar for each cache that was timed."""
    timed = {each.name: each.latency_us for each in replay.backends if each.latency_us}
    parts = pd.DataFrame({name: step_parts(latency) for name, latency in timed.items()})
    _stack(axes, list(timed), {each: parts.loc[each].tolist() for each in OPERATIONS}, range(len(parts)))
    for place, (name, latency) in enumerate(timed.items()):
        ratio = replay.baseline_over_backend.get(name)
        faster = f" ({ratio.median:.1f} times as fast)" if ratio and name != replay.baseline else ""
        axes.annotate(
            f"{number(latency[STEP].p50)}{faster}", (latency[STEP].p50, place), xytext=(3, 0),
            textcoords="offset points", va="center", fontsize="small",
        )  # fmt: skip
    axes.set_xlim(right=1.3 * max(each[STEP].p50 for each in timed.values()))
    axes.set_title(f"Time of a recurrent step, us; {pools_of(replay)}", loc="left")


def draw_memory(axes: Axes, replay: ReplayResult) -> None:
    """Bytes reserved at the end, a bar for each cache."""
    megabytes = [sum(each.bytes_reserved.values()) / 1e6 for each in replay.backends]
    _stack(axes, [each.name for each in replay.backends], {"": megabytes}, [0])
    for place, value in enumerate(megabytes):
        axes.annotate(
            number(value), (value, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize="small"
        )
    axes.set_xlim(right=1.2 * max(megabytes))
    axes.set_title(f"Memory reserved, MB; {pools_of(replay)}", loc="left")


def draw_outcomes(axes: Axes, replays: Sequence[ReplayResult]) -> None:
    """Lookup outcomes, a bar for each cache at each capacity."""
    backends = {f"{each.name}, {one.capacity.label}": each for one in replays for each in one.backends}
    rates = {outcome: [each.rate(outcome) or 0.0 for each in backends.values()] for outcome in OUTCOMES}
    shown = {words(outcome): values for outcome, values in rates.items() if any(values)}
    _stack(axes, list(backends), shown, [OUTCOME_COLOURS[each] for each in OUTCOMES if any(rates[each])])
    axes.set_xlim(0, 100)
    axes.set_title("What lookups return, %", loc="left")


def draw_places(axes: Axes, timeline: Timeline, axis: str) -> None:
    """Lookup outcomes by ``simulation`` or by ``depth``, stacked."""
    counts = dict(sorted(timeline.counts(axis).items()))
    floor = np.zeros(len(counts))
    for outcome, colour in OUTCOME_COLOURS.items():
        height = np.array([each[outcome] for each in counts.values()])
        if height.any():
            axes.bar(list(counts), height, 0.85, floor, label=words(outcome), color=palette()[colour])
            floor += height
    axes.set(xlabel=axis, ylabel="lookups")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize="small")


def draw_search(axes: Axes, seconds: Mapping[str, float]) -> None:
    """Where the time of a search goes: a bar of its parts, as ``SplitClock.seconds`` has them."""
    _stack(axes, [""], {part: [value] for part, value in seconds.items()}, range(len(seconds)))
    axes.set_title("A search by its parts, s", loc="left")


def draw_tree(axes: Axes, tree: pd.DataFrame) -> None:
    """A search's tree, as ``Searches.tree`` has it: the root above, each node below its parent, its turn as colour."""
    below: dict[int, list[int]] = {}
    for row, parent in tree["parent"].items():
        below.setdefault(int(parent), []).append(int(str(row)))
    places = _places(below, below[NO_NODE][0])
    depths = tree["depth"].to_dict()
    for parent, children in below.items():
        for child in children if parent != NO_NODE else ():
            ends = [places[parent], places[child]], [depths[parent], depths[child]]
            axes.plot(*ends, color=palette()[_GREY], linewidth=0.8, zorder=1)
    x, y = [places[each] for each in depths], list(depths.values())
    dots = axes.scatter(x, y, c=tree["simulation"], cmap="viridis", s=36, zorder=2)
    axes.figure.colorbar(dots, ax=axes, label="simulation (-1: the root)")
    axes.set(ylabel="steps below the root", xticks=[], yticks=range(max(y) + 1))
    axes.invert_yaxis()
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _places(below: dict[int, list[int]], root: int) -> dict[int, float]:
    """Leaves side by side, and each other node above the middle of its children."""
    order, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        order.append(node)
        waiting += reversed(below.get(node, []))
    leaves = (node for node in order if node not in below)
    places = {node: float(number) for number, node in enumerate(leaves)}
    for node in reversed(order):
        if node in below:
            places[node] = float(np.mean([places[child] for child in below[node]]))
    return places


def picture(replays: Sequence[ReplayResult], machines: Mapping[str, str]) -> Figure:
    """Time, memory and outcomes side by side; a row for each trace on each device, which ``machines`` describe."""
    groups: dict[tuple[str, str], list[ReplayResult]] = {}
    for replay in replays:
        groups.setdefault((replay.trace.sha256, replay.device), []).append(replay)
    heights = [_HEIGHT + _LINE * sum(len(each.backends) for each in group) for group in groups.values()]
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 10, "axes.titlesize": 11}):
        figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=DOTS, layout="constrained")
        rows = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
        for row, group in zip(rows, groups.values(), strict=True):
            _row(row, group, machines[group[0].device])
    return figure


def _row(row: Figure, group: Sequence[ReplayResult], machine: str) -> None:
    replay = group[0]
    trace = replay.trace
    searches = f"{trace.searches} {'search' if trace.searches == 1 else 'searches'}"
    row.suptitle(clean(f"{Path(trace.file).stem}: {searches} on {replay.device}. {machine}"), fontsize="small")
    is_timed = any(each.latency_us for each in replay.backends)
    columns = row.subplots(1, 2 + is_timed, width_ratios=[1.2] * is_timed + [0.9, 1.2])
    if is_timed:
        draw_step(columns[0], replay)
    draw_memory(columns[-2], replay)
    draw_outcomes(columns[-1], group)


def write_picture(file: Path, replays: Sequence[ReplayResult], machines: Mapping[str, str]) -> None:
    """Write a picture in the format of the file's name.

    Raises:
        OSError: it cannot be written.
    """
    with whole_or_absent(file) as beside:
        picture(replays, machines).savefig(beside, format=file.suffix[1:].lower())


def _stack(axes: Axes, names: Sequence[str], parts: dict[str, list[float]], colours: Sequence[int]) -> None:
    """Horizontal bars, one below the other, each made of its parts."""
    left = np.zeros(len(names))
    for colour, (name, values) in zip(colours, parts.items(), strict=True):
        axes.barh(range(len(names)), values, 0.7, left, label=name, color=palette()[colour])
        left += values
    axes.set_yticks(range(len(names)), [clean(name) for name in names])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    if len(parts) > 1:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, frameon=False, fontsize="small")
