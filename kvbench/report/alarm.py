"""What a night tells of: the change points for the worse that are new, as Markdown for an issue and a job's summary."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from kvbench.history.series import Series
from kvbench.judge.change_points import ChangePoint
from kvbench.judge.verdict import Verdict
from kvbench.metrics import METRICS, SMALL_POOL
from kvbench.report.text import number
from kvbench.text import in_markdown

__all__ = ["alarm_text", "bisect_command", "new_regressions"]

MOST_METRICS = 10  # of a commit: the report has them all
# What the gate calls a cell of each of asv's benchmarks.
_GATES = {
    "Operations": ("operation", ("backend", "geometry", "operation")),
    "Fills": ("fill", ("backend", "geometry", "fill")),
    "Replays": ("replay", ("backend", "trace")),
    "Recordings": ("replay", ("backend", "trace")),
}
TIME = "time"  # the gate's name of it


def new_regressions(points: Iterable[ChangePoint]) -> list[ChangePoint]:
    """Change points for the worse at commits that the report calls new."""
    return [point for point in points if point.is_new and point.verdict is Verdict.WORSE]


def alarm_text(points: Iterable[ChangePoint], since: str, more: Sequence[str] = ()) -> str:
    """Which commits, which metrics, how much; empty where nothing is new and worse.

    ``since`` says which commits are new ("since v1.0"). ``more`` are lines for what is no change point: benchmarks that
    fail or are gone.
    """
    by_commit: dict[str, list[ChangePoint]] = {}
    for point in new_regressions(points):
        by_commit.setdefault(point.commit, []).append(point)
    if not by_commit and not more:
        return ""
    worse = len(by_commit)
    lines = [f"### {worse} commit{'' if worse == 1 else 's'} made something worse, {in_markdown(since)}", ""]
    for found in by_commit.values():
        lines += _of_commit(found)
    lines += [f"- {in_markdown(each)}" for each in more]
    return "\n".join(lines) + "\n"


def _of_commit(found: Sequence[ChangePoint]) -> list[str]:
    """A commit's lines; of its metrics the worst, which are first."""
    first = found[0]
    many = f"{len(found)} metrics" if len(found) > 1 else "1 metric"
    lines = [f"- **{first.commit[:8]}** {in_markdown(first.subject)} ({in_markdown(first.author)}): {many}"]
    if first.between != 0:
        number_of = "an unknown number of" if first.between is None else str(first.between)
        unmeasured = f"{number_of} commits between {first.previous[:8]} and it were not measured"
        lines.append(f"  - it may be an earlier one: {unmeasured}")
    for point in found[:MOST_METRICS]:
        series, change = point.series, point.change
        moved = "from nothing" if point.percent is None else f"{point.percent:+.1f} %"
        values = f"{number(change.before)} to {number(change.after)} {series.unit}"
        where = in_markdown(f"{series.metric}, {series.params}, on {series.machine}")
        lines.append(f"  - {where}: {moved} ({in_markdown(values)}), {point.certainty:.4g} % certain")
    if len(found) > MOST_METRICS:
        lines.append(f"  - and {len(found) - MOST_METRICS} more, in the report")
    commands = filter(None, (bisect_command(point) for point in found))
    lines += [f"  - `{command}`" for command in list(dict.fromkeys(commands))[:1]]
    return lines


def bisect_command(point: ChangePoint) -> str:
    """The command that asks the gate which commit it was; empty where the gate has no such benchmark."""
    owner = point.series.benchmark.split(".")[-2:][0]
    metric = _metric(point.series)
    if owner not in _GATES or not metric:
        return ""
    test, names = _GATES[owner]
    cell = "-".join(point.series.cell.get(name, "") for name in names)
    benchmark = f"{test}[{cell}]"
    return shlex.join(["kvbench", "bisect", f"{benchmark}:{metric}", point.previous[:8], point.commit[:8]])


def _metric(series: Series) -> str:
    """What the gate calls a metric of asv's; empty where it has none."""
    slug = series.benchmark.rpartition(".")[2].removeprefix("track_")
    if series.is_time or slug in ("time_over_legacy", "step_time_over_legacy"):
        return TIME
    counted, pool, _ = slug.replace("_rate", "").partition(SMALL_POOL)
    return next((each.name + pool for each in METRICS.values() if each.exact and each.slug == counted), "")
