"""From input files to a folder of pages."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from kvbench.capacity.bounds import Future
from kvbench.history.commits import read_commits
from kvbench.history.series import CONTROL, History, read_history
from kvbench.judge.change_points import Judgement, judge_history
from kvbench.report import backends, capacities, comparisons, costs, front, regressions, trace_pages
from kvbench.report.alarm import Alarm, find_alarms
from kvbench.report.compare import COMPARE, measured_commits, write_comparison
from kvbench.report.gpu import Gpu, read_gpu
from kvbench.report.input_files import read_benchmarks, read_replays
from kvbench.report.panels import Panel
from kvbench.report.searches import Searches, read_searches
from kvbench.report.site import Group, PageLink, ReportError, Site
from kvbench.report.text import clean, file_name
from kvbench.report.training import Training, read_training
from kvbench.report.training import headlines as training_headlines
from kvbench.report.whole_searches import read_whole_searches, split_panels
from kvbench.results.asv import load_machines
from kvbench.results.decode import LeftOut
from kvbench.results.profile import read_profile_index
from kvcache import __version__

__all__ = ["MOST_HISTORIES", "Inputs", "build_report"]

FRONT, BACKENDS = "index.html", "backends.html"
MOST_HISTORIES = 120  # a page of two commits compared has all series
# What a report is made of, and what makes that.
_KINDS = (
    ("asv's history", "tox -e asv, then --results benchmarks/results"),
    ("replays", "kvbench replay ... --json FILE, then --replay FILE"),
    ("single operations", "pytest benchmarks/gates --benchmark-json FILE, then --benchmark FILE"),
    ("traces", "--trace FILE"),
    ("profiles", "kvbench profile ..., then --profile FOLDER"),
    ("training runs", "kvbench train ... --json FILE, then --training FILE"),
    ("whole searches", "kvbench search ... --json FILE, then --search FILE"),
    ("a GPU", "tox -e gpu on a machine that has one, then --gpu FILE"),
)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Inputs:
    """What a report is made of.

    Attributes:
        results: asv's results folder.
        replays: files of ``kvbench replay --json``.
        benchmarks: files of pytest-benchmark.
        traces: trace files.
        profile: a folder that ``kvbench profile`` wrote.
        repository: a folder in the checkout whose commits were measured.
        since: a tag, another revision or a number of commits; empty for the last tag.
        histories: how many figures of histories are drawn at most, those with change points first.
        command: that makes the report, as a reader would repeat it.
        trainings: files of ``kvbench train --json``.
        searches: files of ``kvbench search --json``.
        gpus: files of ``tox -e gpu``.
    """

    results: Path | None = None
    replays: Sequence[Path] = ()
    benchmarks: Sequence[Path] = ()
    traces: Sequence[Path] = ()
    profile: Path | None = None
    repository: Path = Path()
    since: str = ""
    histories: int = MOST_HISTORIES
    command: str = "kvbench report"
    trainings: Sequence[Path] = ()
    searches: Sequence[Path] = ()
    gpus: Sequence[Path] = ()


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
    alarm(find_alarms(report.judgement), report.commits.described)
    return pages


def _named_apart(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file once, and what it is called: by its name, or by its path where another has that name."""
    once: dict[Path, Path] = {}
    for path in paths:
        once.setdefault(path.resolve(), path)
    names = Counter(path.name for path in once.values())
    return [(path, clean(path.name if names[path.name] == 1 else str(path))) for path in once.values()]


class _Report:
    """All inputs, read, and the site that their pages are written to."""

    def __init__(self, inputs: Inputs, output: Path, progress: Progress) -> None:
        self.inputs = inputs
        self.progress = progress
        self.command = clean(inputs.command)
        self.commits = read_commits(inputs.repository, inputs.since)
        self.left_out = left_out = LeftOut()
        self.history = History() if inputs.results is None else read_history(inputs.results, self.commits, left_out)
        self.machines = {} if inputs.results is None else load_machines(inputs.results, left_out)
        self.files = [read_replays(path, name, left_out) for path, name in _named_apart(inputs.replays)]
        self.benchmarks = [read_benchmarks(path, name, left_out) for path, name in _named_apart(inputs.benchmarks)]
        self.traces = [read_searches(path) for path, _ in _named_apart(inputs.traces)]
        self.trainings = {
            f"{file_name('training', name)}.html": read_training(path, name)
            for path, name in _named_apart(inputs.trainings)
        }
        self.searches = [read_whole_searches(path, name) for path, name in _named_apart(inputs.searches)]
        self.gpus = {f"{file_name('gpu', name)}.html": read_gpu(path, name) for path, name in _named_apart(inputs.gpus)}
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
        self.site.navigation += [
            PageLink(FRONT, "Report"),
            PageLink(regressions.PAGE, "Regressions"),
            *([COMPARE] if self.history.series else []),
            PageLink(BACKENDS, "Backends"),
            *(PageLink(file, each.name) for file, each in traces.items()),
            *(PageLink(file, each.title) for file, each in self._whole_pages()),
        ]
        self.progress("regressions")
        judgement = self.judgement
        pages = regressions.write_pages(
            self.site, self.history, self.commits, judgement, self.inputs.histories, self.command
        )
        if self.history.series:
            write_comparison(self.site, self.history)
        self.progress("backends")
        self._backends()
        for file, searches in traces.items():
            self.progress(searches.name)
            self._trace(file, searches)
        for file, each in self._whole_pages():
            self.progress(each.name)
            self.site.pages(Path(file).stem, each.title, each.groups(), each.lead)
        self.progress("front page")
        self._front(judgement, pages)

    def _whole_pages(self) -> list[tuple[str, Training | Gpu]]:
        """Files that are a page each, by its name."""
        return [*self.trainings.items(), *self.gpus.items()]

    def _backends(self) -> None:
        replays, at_a_glance = self.replays, (backends.step_panels, backends.outcome_panels, backends.work_panels)
        groups = {
            "At a glance": [panel for make in at_a_glance for panel in make(replays)],
            "Whole searches": list(split_panels(self.searches)),
            "Hit rate against capacity": capacities.capacity_panels(self.files, self._requests()),
            "How long calls take": backends.distribution_panels(replays),
            "Memory": backends.memory_panels(replays),
            "Cost against size": costs.growth_panels(self.history),
            "Single operations": [panel for file in self.benchmarks for panel in costs.benchmark_panels(file)],
        }
        lead = (
            "A replay asks every backend for the same recorded requests, in turns, step by step. It is open-loop: it "
            "does not show how a search would have gone with other answers."
        )
        parts = [Group(title, list(panels)) for title, panels in groups.items()]
        self.site.pages(Path(BACKENDS).stem, "Backends", parts, [lead])

    def _requests(self) -> dict[tuple[str, int], Future]:
        """Requests of every replayed part of a given trace, by the trace's SHA-256 and the number of searches."""
        traces = {each.sha256: each for each in self.traces}
        asked = {(each.trace.sha256, each.trace.searches) for file in self.files for each in file.content.replays}
        return {
            (sha256, searches): (trace if trace.searches == searches else read_searches(trace.path, searches)).future
            for sha256, searches in asked
            for trace in [traces.get(sha256)]
            if trace is not None
        }

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

    def _front(self, judgement: Judgement, pages: dict[str, str]) -> None:
        found = [*comparisons.from_replays(self.files), *comparisons.from_history(self.history)]
        sentence, changed = front.changed_table(judgement.change_points, self.commits, self.history, pages)
        given = (
            self.inputs.results, self.files, self.benchmarks, self.traces, self.profile, self.trainings, self.searches,
            self.gpus,
        )  # fmt: skip
        absent = [kind for kind, value in zip(_KINDS, given, strict=True) if not value]
        not_measured = front.not_measured_table(found, self.files, self.history, absent, self.left_out)
        machines = front.machine_table(
            self.files,
            self.benchmarks,
            [*self.trainings.values(), *self.searches],
            self.machines,
            self.history,
            self.commits,
        )
        panels = {
            "details": Panel("verdicts", "Every comparison", comparisons.comparison_table(found), open=len(found) < 2),
            "changed": Panel("changed", "Change points", changed, sentence, open=True),
            "not_measured": Panel("not-measured", "Not measured", not_measured, open=True),
            "machines": Panel("machines", "Machines", machines, open=True),
        }
        if self.profile is not None and self.inputs.profile is not None:
            command = clean(shlex.join(["kvbench", *self.profile.command]))
            table = front.profile_table(self.inputs.profile, self.profile, self.site.folder)
            panels["profiles"] = Panel("profiles", "Profiles", table, command=command, open=True)
        sources = ["asv's results"] if self.inputs.results else []
        self.site.page(
            FRONT,
            "front.html",
            "kvbench report",
            compared=[
                *((each, "") for each in training_headlines(self.trainings.values())),
                *((each, comparisons.where_legacy_lies(each, found)) for each in comparisons.headlines(found)),
            ],
            sources=", ".join([*sources, *(file.name for file in self.files)]),
            since=self.commits.described or "(no repository of it was given)",
            **{name: self.site.panel(panel) for name, panel in panels.items()},
        )
