"""The command that asks the gate which commit changed a metric of asv's."""

from __future__ import annotations

import shlex

from kvbench.history.series import Series
from kvbench.metrics import METRICS, SMALL_POOL

__all__ = ["bisect_command"]

# What the gate calls a cell of each of asv's benchmarks.
_GATES = {
    "Operations": ("operation", ("backend", "geometry", "operation")),
    "Fills": ("fill", ("backend", "geometry", "fill")),
    "Replays": ("replay", ("backend", "trace")),
    "Recordings": ("replay", ("backend", "trace")),
}
_TIME = "time"  # the gate's name of it


def bisect_command(series: Series, good: str, bad: str) -> str:
    """What to run for a metric that got worse after one commit, up to another; empty where the gate has none such."""
    owner = series.benchmark.split(".")[-2:][0]
    metric = _metric(series)
    if owner not in _GATES or not metric:
        return ""
    test, names = _GATES[owner]
    cell = "-".join(series.cell.get(name, "") for name in names)
    return shlex.join(["kvbench", "bisect", f"{test}[{cell}]:{metric}", good[:8], bad[:8]])


def _metric(series: Series) -> str:
    """What the gate calls a metric of asv's; empty where it has none."""
    slug = series.benchmark.rpartition(".")[2].removeprefix("track_")
    if series.is_time or slug in ("time_over_legacy", "step_time_over_legacy"):
        return _TIME
    counted, pool, _ = slug.replace("_rate", "").partition(SMALL_POOL)
    return next((each.name + pool for each in METRICS.values() if each.exact and each.slug == counted), "")
