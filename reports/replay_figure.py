"""A picture of one result of ``kvcache replay --json``: time, what lookups came to, and work per step.

Usage: python reports/replay_figure.py RESULT.json FIGURE.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

OPERATIONS = ("hash", "lookup", "assemble", "store")
# Told apart by lightness as well as by hue.
COLOURS = {"hash": "#c6dbef", "lookup": "#6baed6", "assemble": "#2171b5", "store": "#08306b"}
OUTCOMES = {"hit": "#4d9221", "context_mismatch": "#f1b6da", "stale_hit": "#c51b7d", "miss": "#d9d9d9"}
GREYS_TO_BLUE = ("#969696", "#2171b5", "#bdbdbd", "#6baed6")
WORK = {"tensor_ops": "tensor operations", "allocations": "allocations", "bytes_copied": "KiB copied"}


def draw_step_times(axes: Axes, replay: dict[str, Any]) -> None:
    """Mean share of a recurrent step by operation, stacked to the step's p50, one bar a backend."""
    names = [backend["name"] for backend in replay["backends"]]
    left = [0.0] * len(names)
    for operation in OPERATIONS:
        widths = [_part(backend["latency_us"], operation) for backend in replay["backends"]]
        axes.barh(names, widths, left=left, color=COLOURS[operation], label=operation, edgecolor="white")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for position, (name, end) in enumerate(zip(names, left, strict=True)):
        ratio = replay["baseline_over_backend"][name]["median"]
        faster = "" if name == replay["baseline"] else f"  ({ratio:.1f} times faster)"
        axes.text(end, position, f" {end:.0f} us{faster}", va="center", fontsize=9)
    axes.set_xlim(0, 1.3 * max(left))
    axes.set_xlabel("one recurrent step, median, us")
    axes.invert_yaxis()
    axes.legend(ncols=4, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)


def _part(latency: dict[str, Any], operation: str) -> float:
    """An operation's part of the step's p50, in proportion to the operations' own medians (hash comes twice)."""
    medians = {name: latency[name]["p50"] * (2 if name == "hash" else 1) for name in OPERATIONS}
    return float(latency["recurrent_step"]["p50"] * medians[operation] / sum(medians.values()))


def draw_outcomes(axes: Axes, replays: list[dict[str, Any]]) -> None:
    """What lookups came to, in % of them: a bar for each backend at each capacity."""
    labels, rows = [], []
    for replay in replays:
        for backend in replay["backends"]:
            labels.append(f"{backend['name']}, {_capacity(replay)}")
            rows.append(backend["outcomes"]["total"])
    left = [0.0] * len(rows)
    for outcome, colour in OUTCOMES.items():
        widths = [100 * row[f"{outcome}_rate"] for row in rows]
        axes.barh(labels, widths, left=left, color=colour, label=outcome.replace("_", " "), edgecolor="white")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_xlabel("lookups, %")
    axes.invert_yaxis()
    axes.legend(ncols=4, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)


def draw_work(axes: Axes, replay: dict[str, Any]) -> None:
    """Counted work of a median recurrent step, grouped bars with their numbers."""
    height = 0.8 / len(replay["backends"])
    for number, backend in enumerate(replay["backends"]):
        counts = backend["counts_per_recurrent_step_median"]
        widths = [counts[name] / (1024 if name == "bytes_copied" else 1) for name in WORK]
        positions = [row + number * height for row in range(len(WORK))]
        bars = axes.barh(
            positions, widths, height * 0.9, label=backend["name"], color=GREYS_TO_BLUE[number % len(GREYS_TO_BLUE)]
        )
        axes.bar_label(bars, fmt=" {:.0f}", fontsize=9)
    axes.set_yticks([row + height * (len(replay["backends"]) - 1) / 2 for row in range(len(WORK))], WORK.values())
    axes.set_xlabel("per recurrent step")
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.legend(ncols=4, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)


def _capacity(replay: dict[str, Any]) -> str:
    capacity = replay["capacity"]
    sizes = [f"{pool} {capacity[pool]}" for pool in ("init", "recur") if capacity[pool]]
    return f"{', '.join(sizes)} slots" if sizes else "default slots"


def main(result_file: Path, figure_file: Path) -> None:
    result = json.loads(result_file.read_text())
    replays = [each for each in result["replays"] if each["device"] == result["replays"][0]["device"]]
    first = replays[0]
    timed = first["backends"][0]["latency_us"] is not None
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "kvcache", "font.size": 10})
    figure, axes = plt.subplots(3 if timed else 2, 1, figsize=(8.6, 7.2 if timed else 5), layout="constrained")
    trace = first["trace"]
    figure.suptitle(
        f"{trace['file']}: {trace['searches']} searches, {trace['recurrent_steps']} recurrent steps "
        f"of {trace['geometry']['env_num']} environments\n{next(iter(result['machines'].values()))['processor']}, "
        f"{result['settings']['threads']} thread, {first['device']}, {result['created'][:10]}",
        fontsize=10,
    )
    if timed:
        draw_step_times(axes[0], first)
    draw_outcomes(axes[-2], replays)
    draw_work(axes[-1], first)
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    figure_file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(figure_file, metadata={"Date": None} if figure_file.suffix == ".svg" else None, dpi=150)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
