"""The regressions page: commits at which metrics change, each change point, and the histories that show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from kvbench.history.commits import Commits
from kvbench.history.series import History, Series
from kvbench.judge.change_points import ChangePoint, Judgement
from kvbench.judge.changes import FEWEST_VALUES, FIRST_LEVEL, LEVEL
from kvbench.judge.lost import Lost
from kvbench.judge.smallest import POWER
from kvbench.judge.verdict import SMALLEST_EFFECT, Verdict
from kvbench.report.bisection import author_of, command_of, subject_of
from kvbench.report.environments import environment_panel
from kvbench.report.facets import facets_together
from kvbench.report.history_figures import history_name, history_panels, pace_panel, ratio_name
from kvbench.report.panels import Cell, Link, Panel, Table
from kvbench.report.site import Group, PageLink, Site

__all__ = ["PAGE", "change_table", "write_pages"]

PAGE = "regressions.html"
MOST_CHANGES = 1000  # on the page; the data has them all
_ALWAYS = (Verdict.WORSE, Verdict.BETTER)
_TITLES = {
    Verdict.WORSE: "Change points for the worse",
    Verdict.BETTER: "Change points for the better",
    Verdict.ENVIRONMENT: "Steps that came with another environment, and no commit",
    Verdict.MACHINE: "Change points of legacy's own times: the machine or the harness changed, legacy did not",
    Verdict.UNKNOWN: "Change points of metrics whose better direction is not known",
}
# Where and how much, and behind them, opened row by row, what a reader asks for next.
_CHANGE_HEADINGS = (
    "change, %", "metric", "parameters", "commit", "before", "after", "unit",
    "verdict", "certainty, %", "subject", "author", "machine", "measured before at", "unmeasured between",
    "to find the commit",
)  # fmt: skip
_FIRST = 7
_COMMIT_HEADINGS = (
    "commit", "for the worse", "for the better", "subject", "the worst, or the best, %", "of metric", "parameters",
    "author",
)  # fmt: skip


def write_pages(
    site: Site, history: History, commits: Commits, judgement: Judgement, most_histories: int, command: str
) -> dict[str, str]:
    """Write the page and those of its histories; the address of each history by ``history_name``."""
    points = judgement.change_points
    panels = history_panels(history, points, most_histories, command)
    back = PageLink(PAGE, "Change points")
    where = site.pages("histories", "Histories", [Group("", panels)], before=[back]) if panels else {}
    files = list(dict.fromkeys(address.partition("#")[0] for address in where.values()))
    links = [
        PageLink(file, f"Histories {place}" if len(files) > 1 else "Histories") for place, file in enumerate(files, 1)
    ]
    groups = []
    if points:
        title = "Commits with change points"
        table = _commit_table(points, history, commits)
        panel = Panel("change-points-by-commit", f"{title}, newest first", table, command=command, open=True)
        groups.append(Group(title, [panel]))
    by_verdict = {verdict: [point for point in points if point.verdict is verdict] for verdict in _TITLES}
    for verdict, found in by_verdict.items():
        if found:
            groups.append(Group(_TITLES[verdict], [_change_panel(verdict, change_table(found, where), command)]))
        elif verdict in _ALWAYS:
            groups.append(Group(_TITLES[verdict], note="None."))
    if any(each.borders() for each in history.environments.values()):
        groups.append(Group("Environments", [environment_panel(history, points, command)]))
    if judgement.lost:
        groups.append(Group("Benchmarks without values", [_lost_panel(judgement.lost, command)]))
    if any(step.middle for step in judgement.smallest.values()):
        groups.append(Group("What could have been found", [_smallest_panel(judgement, command)]))
    paces = [pace_panel(machine, history.commits[machine], pace, command) for machine, pace in judgement.pace.items()]
    groups += [Group("Machines", paces)] if paces else []
    summary = (
        f"{len(by_verdict[Verdict.WORSE])} change points for the worse, {len(by_verdict[Verdict.BETTER])} for the "
        f"better in {len(history.series):,} series. {len(panels)} histories are drawn, those with change points "
        "first. 'kvbench results' has all values."
    )
    site.pages("regressions", "Regressions", groups, [summary, " ".join(_method(history, judgement))], after=links)
    return where


def _method(history: History, judgement: Judgement) -> list[str]:
    """Sentences: how change points are found, of what there is in this history."""
    times = [each for each in history.series if not each.is_exact]
    found = []
    if len(times) < len(history.series):
        found.append("Deterministic metrics are compared exactly: every change is a change point.")
    if times:
        found += _method_of_times(times, judgement)
    if any(each.borders() for each in history.environments.values()):
        found.append("Values are compared within one environment. A step between two is no commit's.")
    return found


def _method_of_times(times: Sequence[Series], judgement: Judgement) -> list[str]:
    found = []
    if judgement.pace:
        found += [
            "A time is judged over legacy's of the same cell. How far that scatters is estimated for each family.",
            "Where legacy was not measured, a time is divided by the machine's pace.",
        ]
    found += [
        f"A measured value must differ by {SMALLEST_EFFECT:.0%} or more. The test covers all series together: it is "
        f"set for at most {LEVEL:.0%} false ones of all change points, and for none in a history without one (at "
        f"{FIRST_LEVEL:.1%}).",
        f"A change point needs {FEWEST_VALUES} measured commits on either side: what came with the last "
        f"{FEWEST_VALUES - 1} is not decided yet.",
    ]
    short = sum(np.count_nonzero(judgement.judged(each)) < 2 * FEWEST_VALUES for each in times)
    if short:
        found.append(f"{short:,} of the {len(times):,} measured series are too short for one.")
    alone = sum(np.count_nonzero(np.isnan(pace)) for pace in judgement.pace.values())
    if alone:
        found.append(f"{alone} commits were measured without legacy: times are not judged there.")
    return [*found, "A slow drift shows as change points, too."]


def _lost_panel(lost: Sequence[Lost], command: str) -> Panel:
    rows: list[list[Cell]] = [
        [
            each.state, each.benchmark, each.params, each.number, each.commit[:8], each.previous[:8], each.machine,
            each.environment,
        ]
        for each in lost
    ]  # fmt: skip
    headings = (
        "what", "metric", "parameters", "series", "commit", "measured before at", "machine", "environment changed",
    )  # fmt: skip
    return Panel(
        "lost", "Benchmarks that fail, are skipped or are gone", Table(headings, rows), command=command, open=True
    )


def _smallest_panel(judgement: Judgement, command: str) -> Panel:
    """Families of times, the least sensitive first."""
    rows: list[list[Cell]] = []
    families = sorted(judgement.smallest.items(), key=lambda each: -each[1].spread)
    for (machine, benchmark, operation), step in families:
        if step.middle is None:
            continue  # too short for any
        sizes = [None if each is None else 100 * each for each in (step.middle, step.latest)]
        metric = ", ".join(part for part in (benchmark, operation) if part)
        rows.append([metric, step.series, step.commits, 100 * step.spread, *sizes, machine])
    headings = (
        "metric", "series", "commits", "spread, %", "smallest step in the middle, %",
        f"in the last {FEWEST_VALUES} commits, %", "machine",
    )  # fmt: skip
    about = f"A step of this size, the only one of the history, is found with a probability of {POWER:.0%}."
    return Panel(
        "smallest-steps", "Smallest steps that could have been found", Table(headings, rows), about, command, open=True
    )


def change_table(points: Sequence[ChangePoint], pages: dict[str, str]) -> Table:
    """Change points as rows; ``pages`` has the address of each history, by ``history_name``."""
    rows: list[list[Cell]] = []
    for point in points:
        series, change = point.series, point.change
        page = pages.get(history_name(series)) or pages.get(ratio_name(series))
        metric = Link(series.metric, page) if page else series.metric
        rows.append(
            [
                point.percent, metric, series.params, point.where, change.before, change.after, series.unit,
                point.verdict, point.certainty, subject_of(point), author_of(point), series.machine,
                point.previous[:8], point.between, command_of(point),
            ]
        )  # fmt: skip
    facets = [facets_together([point.series]) | {"commit": [point.commit[:8]]} for point in points]
    return Table(_CHANGE_HEADINGS, rows, _FIRST, facets)


def _commit_table(points: Sequence[ChangePoint], history: History, commits: Commits) -> Table:
    """Commits with change points, or ranges of them, the newest first: how many, and what changes most there."""
    by_commit: dict[str, list[ChangePoint]] = {}
    for point in points:
        if point.verdict.is_of_a_commit:
            by_commit.setdefault(point.where, []).append(point)
    rows: list[list[Cell]] = []

    def when(found: Sequence[ChangePoint]) -> tuple[int, pd.Timestamp | None]:
        """Its place; where the repository does not know it, its date."""
        return commits.places.get(found[0].commit, -1), history.dates.get(found[0].commit)

    newest_first = sorted(by_commit.values(), key=when, reverse=True)
    for found in newest_first:
        first = found[0]  # the worst is first
        counts = [sum(point.verdict is verdict for point in found) for verdict in _ALWAYS]
        series = first.series
        rows.append(
            [
                first.where, *counts, subject_of(first), first.percent, series.metric, series.params,
                author_of(first),
            ]
        )  # fmt: skip
    return Table(_COMMIT_HEADINGS, rows)


def _change_panel(verdict: Verdict, table: Table, command: str) -> Panel:
    cut = f"The largest {MOST_CHANGES:,} of {len(table.rows):,}; the data has all."
    return Panel(
        f"change-points-{verdict.replace(' ', '-') or 'other'}",
        f"{_TITLES[verdict]}, largest first",
        replace(table, rows=table.rows[:MOST_CHANGES], facets=table.facets[:MOST_CHANGES]),
        cut if len(table.rows) > MOST_CHANGES else "",
        command,
        data=table,
        open=True,
    )
