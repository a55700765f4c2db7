"""What somebody has to look at now: regressions that are new and still stand, and benchmarks newly without values.

Whoever runs ``kvbench report --fail-on-new`` has these lines, its exit code, and the table for a job's summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvbench.judge.change_points import ChangePoint, Judgement
from kvbench.judge.lost import Lost
from kvbench.judge.verdict import Verdict
from kvbench.report.bisection import command_of, subject_of
from kvbench.report.text import clean, number

__all__ = ["MOST_LINES", "Alarm", "alarm_lines", "alarm_markdown", "find_alarms"]

MOST_LINES = 50  # of a table; the report has all
_TO_FIND = "To find the commit of a range, which the gate measures one by one:"
_HEADINGS = ("commit", "metric", "parameters", "how much", "machine", "subject")


@dataclass(frozen=True)
class Alarm:
    """Of one metric what a commit, or a range of commits, did: in which of its series most, and how much.

    ``number`` is how many series it is. ``command`` finds the commit of a range; empty where nothing does.
    """

    where: str
    metric: str
    params: str
    how_much: str
    machine: str
    subject: str
    number: int = 1
    command: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        others = f" and {self.number - 1} more" if self.number > 1 else ""
        return self.where, self.metric, f"{self.params}{others}", self.how_much, self.machine, self.subject


def find_alarms(judgement: Judgement) -> list[Alarm]:
    """Benchmarks without values first, then regressions, the worst first."""
    lost = [_of_lost(each) for each in judgement.lost if each.is_new]
    worse = [each for each in judgement.change_points if _is_alarming(each) and each.is_new and each.stands]
    together: dict[tuple[str, ...], list[ChangePoint]] = {}
    for point in worse:
        together.setdefault((point.where, point.series.benchmark, point.series.machine), []).append(point)
    return [*lost, *map(_of_changes, together.values())]


def _is_alarming(point: ChangePoint) -> bool:
    """Whether somebody has to look. What rose on another machine, and depends on none, may be a commit's."""
    rises = point.change.ratio > 1 and point.series.lower_is_better
    return point.verdict is Verdict.WORSE or (point.is_unexplained and rises)


def _of_lost(lost: Lost) -> Alarm:
    where = f"{lost.previous[:8]}..{lost.commit[:8]}"
    with_it = f"with the environment: {lost.environment}" if lost.environment else ""
    return Alarm(where, lost.benchmark, lost.params, lost.state, lost.machine, with_it, lost.number)


def _of_changes(points: Sequence[ChangePoint]) -> Alarm:
    """Of one metric at one commit, the worst first."""
    point = points[0]
    change, series = point.change, point.series
    share = "from 0" if point.percent is None else f"{point.percent:+.1f} %"
    how_much = f"{share} ({number(change.before)} to {number(change.after)} {series.unit})"
    as_well = "the machine changed as well: " if point.is_unexplained else ""
    cells = (point.where, series.metric, series.params, how_much, series.machine, f"{as_well}{subject_of(point)}")
    # The gate may not have the worst one's backend.
    return Alarm(*cells, len(points), next(filter(None, map(command_of, points)), ""))


def _title(alarms: list[Alarm], described: str) -> str:
    if not alarms:
        return f"No new regressions {described}."
    number, places = sum(each.number for each in alarms), len({each.where for each in alarms})
    plural = ["" if each == 1 else "s" for each in (number, places)]
    return f"{number} new regression{plural[0]} {described}, at {places} commit{plural[1]}."


def alarm_lines(alarms: list[Alarm], described: str) -> list[str]:
    """For a terminal; ``described`` says which commits are new."""
    lines = [clean("  ".join(part for part in each.cells if part)) for each in alarms[:MOST_LINES]]
    commands = _commands(alarms)
    asked = [_TO_FIND, *(f"  {each}" for each in commands)] if commands else []
    return [_title(alarms, described), *lines, *filter(None, _more(alarms)), *asked]


def alarm_markdown(alarms: list[Alarm], described: str) -> str:
    """For a job's summary."""
    rows = [" | ".join(clean(cell).replace("|", "\\|") for cell in each.cells) for each in alarms[:MOST_LINES]]
    table = [" | ".join(_HEADINGS), "|".join("-" * len(_HEADINGS)), *rows] if rows else []
    framed = [f"| {row} |" for row in table]
    commands = _commands(alarms)
    asked = ["", _TO_FIND, "", *(f"    {each}" for each in commands)] if commands else []
    whole = [f"## {_title(alarms, described)}", "", *framed, *_more(alarms), *asked]
    return "\n".join(whole) + "\n"


def _commands(alarms: list[Alarm]) -> list[str]:
    """What finds the commits of ranges, each once."""
    return list(dict.fromkeys(clean(each.command) for each in alarms[:MOST_LINES] if each.command))


def _more(alarms: list[Alarm]) -> list[str]:
    more = len(alarms) - MOST_LINES
    return ["", f"{more} more rows are left out: the regressions page has all."] if more > 0 else []
