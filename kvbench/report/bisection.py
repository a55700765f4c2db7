"""Which commit changed a metric: what a change point says of it, and the command that asks the gate."""

from __future__ import annotations

import shlex

from kvbench.history.series import Series
from kvbench.judge.change_points import ChangePoint
from kvbench.judge.verdict import Verdict
from kvbench.metrics import METRICS, SMALL_POOL

__all__ = ["author_of", "bisect_command", "command_of", "subject_of"]

# Benchmarks of the gate that measure what each of asv's does, and the parameter at their end. The gate has fewer sizes.
_GATES = {
    "Operations": ("operation", "operation"),
    "Fills": ("fill", "fill"),
    "Replays": ("replay", ""),
    "Recordings": ("replay", ""),
}
_STORAGES = "new:"  # backends that the gate measures begin so
_SHARED, _SHARED_BY = ("hash", "lookup", "retrieve"), "new:private"  # all storages do so by the same code: it has one
_TIME = "time"  # the gate's name of it
_TIMES = ("time", "step_time", "time_over_legacy", "step_time_over_legacy")  # whole ones: the gate times no parts


def subject_of(point: ChangePoint) -> str:
    """The subject of the commit that did it; of several that may have, it is the last one's, and that is said.

    Where the environment changed as well, it is what changed there.
    """
    if point.environment:
        return point.environment
    return f"one of {point.between + 1} commits, the last: {point.subject}" if point.between else point.subject


def author_of(point: ChangePoint) -> str:
    """The author of the commit that did it; empty where it may have been another."""
    return "" if point.between or point.environment else point.author


def command_of(point: ChangePoint) -> str:
    """What to run to find the commit of a change for the worse; empty where it is known, or the gate cannot tell."""
    asked = point.verdict is Verdict.WORSE and point.between
    return bisect_command(point.series, point.previous, point.commit) if asked else ""


def bisect_command(series: Series, good: str, bad: str) -> str:
    """What to run for a metric that got worse after one commit, up to another; empty where the gate has none such."""
    owner = series.benchmark.split(".")[-2:][0]
    metric, backend = _metric(series), series.cell.get("backend", "")
    if owner not in _GATES or not metric or not backend.startswith(_STORAGES):
        return ""
    test, name = _GATES[owner]
    last = series.cell.get(name, "")
    keywords = [f"{test}[{_SHARED_BY if last in _SHARED else backend}-", *([f"-{last}]"] if name else [])]
    return shlex.join(["kvbench", "bisect", metric, good[:8], bad[:8], "-k", " and ".join(keywords)])


def _metric(series: Series) -> str:
    """What the gate calls a metric of asv's; empty where it has none."""
    slug = series.benchmark.rpartition(".")[2].removeprefix("track_")
    if slug in _TIMES:
        return _TIME
    counted, pool, _ = slug.replace("_rate", "").partition(SMALL_POOL)
    return next((each.name + pool for each in METRICS.values() if each.exact and each.slug == counted), "")
