"""The regressions page: commits at which metrics step, each step, and the histories that show them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvbench.report.changes import FEWEST_VALUES, LEVEL, PROCESS_SPREAD, SMALLEST_EFFECT
from kvbench.report.commits import Commits
from kvbench.report.histories import history_panels, pace_panels
from kvbench.report.history import History
from kvbench.report.panels import Panel
from kvbench.report.site import Group, PageLink, Site
from kvbench.report.steps import MACHINE, Step, commit_table, step_table

__all__ = ["PAGE", "write_pages"]

PAGE = "regressions.html"
MOST_STEPS = 1000  # on the page; the data has them all
_ALWAYS = ("worse", "better")
_TITLES = {
    "worse": "Steps for the worse",
    "better": "Steps for the better",
    MACHINE: "Steps of legacy's own times, which is left alone: the machine's, or the harness's",
    "": "Steps of metrics of which nobody said whether lower is better",
}


def write_pages(
    site: Site, history: History, commits: Commits, steps: Sequence[Step], most_histories: int, command: str
) -> dict[str, str]:
    """Write the page and those of its histories; the address of each history by ``history_name``."""
    panels = history_panels(history, steps, commits, most_histories)
    where: dict[str, str] = {}
    if panels:
        where = site.pages("histories", "Histories", [Group("", panels)], before=[PageLink(PAGE, "Steps")])
    files = list(dict.fromkeys(address.partition("#")[0] for address in where.values()))
    links = [
        PageLink(file, f"Histories {place}" if len(files) > 1 else "Histories") for place, file in enumerate(files, 1)
    ]
    by_verdict = {verdict: [step for step in steps if step.verdict == verdict] for verdict in _TITLES}
    groups = [
        Group(
            _TITLES[verdict], [_step_panel(verdict, found, where, command)] if found else [], "" if found else "None."
        )
        for verdict, found in by_verdict.items()
        if found or verdict in _ALWAYS
    ]
    if steps:
        groups.insert(0, Group("Commits with steps", [_commit_panel(steps, commits, command)]))
    groups.append(Group("Machines", pace_panels(history)))
    counts = {verdict: len(found) for verdict, found in by_verdict.items()}
    site.pages("regressions", "Regressions", groups, _lead(history, counts, len(panels)), after=links)
    return where


def _lead(history: History, counts: dict[str, int], drawn: int) -> list[str]:
    times = [each for each in history.series if not each.is_exact]
    short = sum(np.count_nonzero(history.judged(each)) < 2 * FEWEST_VALUES for each in times)
    paceless = sum(np.count_nonzero(np.isnan(pace)) for pace in history.pace.values())
    alone = f" {paceless} commits were measured without legacy: of times there nothing is told." if paceless else ""
    too_short = (
        f", nor is anything of {short:,} of the {len(times):,} measured series, which are shorter" if short else ""
    )
    return [
        f"{counts['worse']} steps for the worse, {counts['better']} for the better in {len(history.series):,} series. "
        f"{drawn} histories are drawn, those with steps first ('kvbench results' has all values).",
        "Deterministic metrics are compared exactly: every change is a step. Times step where ruptures finds the "
        f"likeliest place, the segments differ by {SMALLEST_EFFECT:.0%} or more, and the difference is significant "
        f"over all series taken together (false discovery rate {LEVEL:.0%}, against a spread of at least "
        f"{PROCESS_SPREAD:.0%} from process to process). That takes {FEWEST_VALUES} measured commits on either side: "
        f"what came with the last {FEWEST_VALUES - 1} is not told yet{too_short}. A slow drift shows as steps, too. "
        "What a step changes a time by is free of the machine's pace, below; what legacy's time of the same sizes "
        f"shows as well is the machine's.{alone} Lower is better in all that the suite measures.",
    ]


def _commit_panel(steps: Sequence[Step], commits: Commits, command: str) -> Panel:
    table = commit_table(steps, commits)
    return Panel("steps-by-commit", "Commits with steps, newest first", table, command=command, open=True)


def _step_panel(verdict: str, steps: Sequence[Step], pages: dict[str, str], command: str) -> Panel:
    return Panel(
        f"steps-{verdict or 'other'}",
        f"{_TITLES[verdict]}, largest first",
        step_table(steps[:MOST_STEPS], pages),
        f"The largest {MOST_STEPS:,} of {len(steps):,}; the data has all." if len(steps) > MOST_STEPS else "",
        command,
        data=step_table(steps, {}),
        open=True,
    )
