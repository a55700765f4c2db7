"""From input files to a folder of pages."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from kvbench.capacity.bounds import Future
from kvbench.history.commits import Commits, read_commits
from kvbench.history.series import CONTROL, History, read_history
from kvbench.judge.change_points import Judgement, judge_history
from kvbench.judge.two_commits import chosen_pair
from kvbench.report import backends, capacities, comparisons, costs, front, regressions, trace_pages
from kvbench.report.alarm import Alarm, find_alarms
from kvbench.report.benchmark_runs import benchmark_run_panels
from kvbench.report.compare import COMPARE, measured_commits, write_comparison
from kvbench.report.front_page import FRONT, LAST_COMMIT, FrontPage
from kvbench.report.gpu import Gpu, read_gpu
from kvbench.report.input_files import read_all, read_benchmarks, read_replays
from kvbench.report.inputs import KINDS, Inputs
from kvbench.report.machines import machine_table
from kvbench.report.pair import read_gate
from kvbench.report.panels import Panel, Table
from kvbench.report.searches import Searches, read_searches
from kvbench.report.site import Group, PageLink, ReportError, Site
from kvbench.report.sweeps import Sweep, read_sweep_page
from kvbench.report.text import clean, file_name
from kvbench.report.training import Training, read_training
from kvbench.report.training import headlines as training_headlines
from kvbench.report.whole_searches import WholeSearches, read_whole_searches, split_panels
from kvbench.results.decode import LeftOut
from kvbench.results.profile import read_profile_index
from kvcache import __version__

__all__ = ["build_report"]

BACKENDS = "backends.html"

_OF_REPLAYS = [
    "A replay asks every backend for the same recorded requests, in turns, step by step. It is open-loop: it "
    "does not show how a search would have gone with other answers."
]
Progress = Callable[[str], None]


def build_report(
    inputs: Inputs,
    output: Path,
    progress: Progress = lambda what: None,
    warn: Callable[[str], None] = lambda line: None,
    alarm: Callable[[list[Alarm], str], None] = lambda alarms, described: None,
) -> list[Path]:
    """Read all inputs, then write the pages.

    Args:
        inputs: of the report.
        output: folder of the pages; pages of an earlier report in it are replaced.
        progress: called with what is being done.
        warn: called with a line for each file of which something was left out, since it did not fit.
        alarm: called with the regressions that are new, and which commits count as new.

    Returns:
        The pages, the front page first.

    Raises:
        ReportError, HistoryError, ResultsError, TraceError: an input cannot be used, or a file that no
            report wrote is in the way. Nothing was written then.
    """
    progress("reading")
    report = _Report(inputs, output, progress)
    for line in report.left_out.lines:
        warn(line)
    with report.site.writing():
        report.write()
    pages = [output / name for name in report.site.finish()]
    alarm(find_alarms(report.judgement), _described(report.commits, report.history))
    return pages


def _described(commits: Commits, history: History) -> str:
    """Which commits count as new, and whether that says anything: of none that was measured, no step is known."""
    measured = {name for names in history.commits.values() for name in names}
    none = commits.new and not measured & commits.new
    return f"{commits.described}, of which none was measured" if none else commits.described


Page = TypeVar("Page", Training, Sweep, Gpu)


def _pages(kind: str, found: Sequence[Page]) -> dict[str, Page]:
    """Each by the file of its page."""
    return {f"{file_name(kind, each.name)}.html": each for each in found}


class _Report:
    """All inputs, read, and the site that their pages are written to."""

    def __init__(self, inputs: Inputs, output: Path, progress: Progress) -> None:
        self.inputs = inputs
        self.progress = progress
        self.command = clean(inputs.command)
        self.commits = read_commits(inputs.repository, inputs.since)
        self.left_out = left_out = LeftOut()
        self.history = History() if inputs.results is None else read_history(inputs.results, self.commits, left_out)
        self.files = read_all(inputs.replays, lambda path, name: read_replays(path, name, left_out), left_out)
        self.benchmarks = read_all(
            inputs.benchmarks, lambda path, name: read_benchmarks(path, name, left_out), left_out
        )
        self.traces = read_all(inputs.traces, lambda path, _: read_searches(path), left_out)
        self.trainings = _pages("training", read_all(inputs.trainings, read_training, left_out))
        self.searches = read_all(inputs.searches, read_whole_searches, left_out)
        self.sweeps = _pages(
            "sweep", read_all(inputs.sweeps, lambda path, name: read_sweep_page(path, name, left_out), left_out)
        )
        self.gpus = _pages("gpu", read_all(inputs.gpus, read_gpu, left_out))
        self.gate = None if inputs.gate is None else read_gate(inputs.gate, left_out)
        self.pair = chosen_pair(inputs.repository, self.history, self.commits, (inputs.base, inputs.head))
        if inputs.profile is not None and not inputs.profile.is_dir():
            raise ReportError(inputs.profile, "no folder of profiles")
        self.profile = None if inputs.profile is None else read_profile_index(inputs.profile)
        # Replays that are more than a point of a curve over capacities: timed ones, and those at default capacity.
        self.replays = [
            each for file in self.files for each in file.replays if each.result.first.latency_us or each.is_default
        ]
        made = datetime.now(UTC).replace(microsecond=0).isoformat()
        self.site = Site(output, "kvbench report", f"Made by: {self.command}; kvcache {__version__}, {made}")
        self.site.check()
        self.site.commits |= measured_commits(self.history, self.commits)
        self.site.control = CONTROL if any(each.param("backend") == CONTROL for each in self.history.series) else ""

    @cached_property
    def judgement(self) -> Judgement:
        return judge_history(self.history, self.commits)

    def write(self) -> None:
        traces = {f"{file_name('trace', each.path.stem, beside=each.sha256)}.html": each for each in self.traces}
        backend_groups = self._backends()
        title = "Backends" if self.files or self.searches or self.history.series else "Benchmarks"
        self.site.navigation += [
            PageLink(FRONT, "Report"),
            *([PageLink(regressions.PAGE, "Regressions")] if self.inputs.results else []),
            *([COMPARE] if self.history.series else []),
            *([PageLink(BACKENDS, title)] if backend_groups else []),
            *(PageLink(file, each.name) for file, each in traces.items()),
            *(PageLink(file, each.title) for file, each in self._whole_pages()),
        ]
        judgement, pages = self.judgement, {}
        if self.inputs.results:
            self.progress("regressions")
            most = self.inputs.histories
            pages = regressions.write_pages(self.site, self.history, self.commits, judgement, most, self.command)
        if self.history.series:
            write_comparison(self.site, self.history)
        if backend_groups:
            self.progress("backends")
            lead = _OF_REPLAYS if self.replays else []
            self.site.pages(Path(BACKENDS).stem, title, backend_groups, lead)
        for file, searches in traces.items():
            self.progress(searches.name)
            self._trace(file, searches)
        for file, each in self._whole_pages():
            self.progress(each.name)
            self.site.pages(Path(file).stem, each.title, each.groups(), each.lead)
        self.progress("front page")
        self._front(pages)

    def _whole_pages(self) -> list[tuple[str, Training | Sweep | Gpu]]:
        """Files and folders that are a page each, by its name."""
        return [*self.trainings.items(), *self.sweeps.items(), *self.gpus.items()]

    def _backends(self) -> list[Group]:
        """What the page of backends has to show."""
        replays, at_a_glance = self.replays, (backends.step_panels, backends.outcome_panels, backends.work_panels)
        over_time, alone = benchmark_run_panels(self.benchmarks, self.command)
        groups = {
            "At a glance": [panel for make in at_a_glance for panel in make(replays)],
            "Whole searches": list(split_panels(self.searches)),
            "Hit rate against capacity": list(capacities.capacity_panels(self.files, self._future)),
            "How long calls take": list(backends.distribution_panels(replays)),
            "Memory": list(backends.memory_panels(replays)),
            "Cost against size": costs.growth_panels(self.history, self.command),
            "Benchmarks over time": over_time,
            "Single operations": alone,
        }
        return [Group(title, panels) for title, panels in groups.items() if panels]

    def _future(self, sha256: str, searches: int) -> Future | None:
        """The requests of a part of a trace, which is named by its SHA-256; None where the trace is not given."""
        for trace in self.traces:
            if trace.sha256 == sha256:
                return (trace if trace.searches == searches else read_searches(trace.path, searches)).future
        return None

    def _trace(self, file: str, searches: Searches) -> None:
        replays = [each for each in self.replays if each.result.trace.sha256 == searches.sha256]
        header = Panel(
            file_name("header", searches.path.stem, beside=searches.sha256),
            "What the trace says of itself",
            trace_pages.trace_table(searches),
            command=clean(shlex.join(["kvbench", "trace", "show", str(searches.path)])),
        )
        groups = [
            Group("The search as it ran", trace_pages.search_panels(searches)),
            Group("Where lookups fall", trace_pages.place_panels(replays)),
            Group("How full pools are", list(trace_pages.occupancy_panels(replays))),
            Group("The trace", [header]),
        ]
        lead = [] if replays else ["No replay of this trace was given (--replay): pools and stale hits are not shown."]
        self.site.pages(Path(file).stem, searches.name, groups, lead)

    def _front(self, pages: dict[str, str]) -> None:
        found = [
            *comparisons.from_replays(self.files),
            *comparisons.from_history(self.history, self.judgement.smallest),
        ]
        given = (
            self.inputs.results, self.files, self.benchmarks, self.traces, self.profile, self.trainings, self.searches,
            self.sweeps, self.gpus,
        )  # fmt: skip
        # What belongs to a cache is missed only where one was measured.
        is_of_a_cache = bool(found) or any(each for each in given if each not in (self.inputs.results, self.benchmarks))
        absent = [kind for kind, value in zip(KINDS, given, strict=True) if is_of_a_cache and not value]
        not_measured = front.not_measured_table(found, self.files, self.history, absent, self.left_out)
        unmeasured = front.unmeasured_commits(self.commits, self.history) if self.inputs.results else []
        not_measured = Table(not_measured.headings, [*unmeasured, *not_measured.rows])
        FrontPage(
            history=self.history,
            commits=self.commits,
            judgement=self.judgement,
            pages=pages,
            comparisons=found,
            ends=self.pair,
            gate=self.gate,
            trainings=training_headlines(self.trainings.values()),
            not_measured=not_measured,
            absent=len(absent),
            tables=self._front_tables(not_measured),
        ).write(self.site, "Two commits" if self.inputs.base or self.inputs.head else LAST_COMMIT)

    def _front_tables(self, not_measured: Table) -> list[Panel]:
        runs: list[Training | WholeSearches] = [*self.trainings.values(), *self.searches]
        machines = machine_table(self.files, self.benchmarks, runs, self.history, self.commits)
        panels = [
            Panel("not-measured", "What was not measured, and why", not_measured, open=True),
            Panel("machines", "Machines and versions", machines, open=True),
        ]
        if self.profile is not None and self.inputs.profile is not None:
            command = clean(shlex.join(["kvbench", *self.profile.command]))
            table = front.profile_table(self.inputs.profile, self.profile, self.site.folder)
            panels.append(Panel("profiles", "Profiles", table, command=command, open=True))
        return [panel for panel in panels if panel.table.rows]
