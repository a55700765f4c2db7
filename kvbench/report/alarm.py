"""What somebody has to look at now: regressions that are new and still stand, and benchmarks newly without values.

Whoever runs ``kvbench report --fail-on-new`` has these lines, its exit code, and the table for a job's summary.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvbench.judge.change_points import ChangePoint, Judgement
from kvbench.judge.lost import Lost
from kvbench.judge.verdict import Verdict
from kvbench.report.text import clean, number

__all__ = ["MOST_LINES", "Alarm", "alarm_lines", "alarm_markdown", "find_alarms"]

MOST_LINES = 50  # of a table; the report has all
_HEADINGS = ("commit", "metric", "parameters", "how much", "machine", "subject")


@dataclass(frozen=True)
class Alarm:
    """One of them: the commit or the range of commits that did it, which metric, and how much."""

    where: str
    metric: str
    params: str
    how_much: str
    machine: str
    subject: str

    @property
    def cells(self) -> tuple[str, ...]:
        return self.where, self.metric, self.params, self.how_much, self.machine, self.subject


def find_alarms(judgement: Judgement) -> list[Alarm]:
    """Benchmarks without values first, then regressions, the worst first."""
    lost = [_of_lost(each) for each in judgement.lost if each.is_new]
    worse = [each for each in judgement.change_points if each.verdict is Verdict.WORSE and each.is_new and each.stands]
    return [*lost, *map(_of_change, worse)]


def _of_lost(lost: Lost) -> Alarm:
    others = f" and {lost.number - 1} more" if lost.number > 1 else ""
    where = f"{lost.previous[:8]}..{lost.commit[:8]}"
    return Alarm(where, lost.benchmark, f"{lost.params}{others}", lost.state, lost.machine, "")


def _of_change(point: ChangePoint) -> Alarm:
    change, series = point.change, point.series
    share = "from 0" if point.percent is None else f"{point.percent:+.1f} %"
    how_much = f"{share} ({number(change.before)} to {number(change.after)} {series.unit})"
    return Alarm(point.where, series.metric, series.params, how_much, series.machine, point.subject)


def _title(alarms: list[Alarm], described: str) -> str:
    if not alarms:
        return f"No new regressions {described}."
    places = len({each.where for each in alarms})
    plural = ["" if each == 1 else "s" for each in (len(alarms), places)]
    return f"{len(alarms)} new regression{plural[0]} {described}, at {places} commit{plural[1]}."


def alarm_lines(alarms: list[Alarm], described: str) -> list[str]:
    """For a terminal; ``described`` says which commits are new."""
    lines = [clean("  ".join(part for part in each.cells if part)) for each in alarms[:MOST_LINES]]
    return [_title(alarms, described), *lines, *_more(alarms)]


def alarm_markdown(alarms: list[Alarm], described: str) -> str:
    """For a job's summary."""
    rows = [" | ".join(clean(cell).replace("|", "\\|") for cell in each.cells) for each in alarms[:MOST_LINES]]
    table = [" | ".join(_HEADINGS), "|".join("-" * len(_HEADINGS)), *rows] if rows else []
    framed = [f"| {row} |" for row in table]
    return "\n".join([f"## {_title(alarms, described)}", "", *framed, *([""] if framed else []), *_more(alarms)]) + "\n"


def _more(alarms: list[Alarm]) -> list[str]:
    more = len(alarms) - MOST_LINES
    return [f"{more} more are on the regressions page."] if more > 0 else []
