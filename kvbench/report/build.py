"""From input files to a folder of pages."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from kvbench.capacity.bounds import Future
from kvbench.history.commits import Commits, read_commits
from kvbench.history.series import History, read_history
from kvbench.judge.change_points import Judgement, judge_history
from kvbench.report import backends, capacities, comparisons, costs, front, regressions, trace_pages
from kvbench.report.errors import ReportError
from kvbench.report.panels import Panel, Table
from kvbench.report.result_files import BenchmarkFile, Replay, ReplayFile, read_benchmarks, read_replays
from kvbench.report.searches import Searches, read_searches
from kvbench.report.site import Group, PageLink, Site
from kvbench.report.text import clean, file_name
from kvbench.results.asv import load_machines
from kvbench.results.profile import ProfileIndex, read_profile_index
from kvcache import __version__

__all__ = ["MOST_HISTORIES", "Inputs", "build_report"]

FRONT, BACKENDS = "index.html", "backends.html"
MOST_HISTORIES = 240
_KINDS = {
    "results": ("asv's history", "tox -e asv, then --results benchmarks/results"),
    "replays": ("replays", "kvbench replay ... --json FILE, then --replay FILE"),
    "benchmarks": ("single operations", "pytest benchmarks/gates --benchmark-json FILE, then --benchmark FILE"),
    "traces": ("traces", "--trace FILE"),
    "profile": ("profiles", "kvbench profile ..., then --profile FOLDER"),
}  # fmt: skip

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


def build_report(inputs: Inputs, output: Path, progress: Progress = lambda what: None) -> list[Path]:
    """Read all inputs, then write the pages.

    Args:
        inputs: of the report.
        output: folder of the pages; pages of an earlier report in it are replaced.
        progress: called with what is being done.

    Returns:
        The pages, the front page first.

    Raises:
        ReportError, HistoryError, ResultsError, TraceError: an input cannot be used, or a file that no
            report wrote is in the way. Nothing was written then.
    """
    progress("reading")
    commits = read_commits(inputs.repository, inputs.since)
    history = History() if inputs.results is None else read_history(inputs.results, commits)
    machines = {} if inputs.results is None else load_machines(inputs.results)
    files = [read_replays(path, name) for path, name in _named_apart(inputs.replays)]
    benchmarks = [read_benchmarks(path, name) for path, name in _named_apart(inputs.benchmarks)]
    traces = [read_searches(path, _digest(path)) for path, _ in _named_apart(inputs.traces)]
    if inputs.profile is not None and not inputs.profile.is_dir():
        raise ReportError(inputs.profile, "no folder of profiles")
    profile = None if inputs.profile is None else read_profile_index(inputs.profile)
    made = datetime.now(UTC).replace(microsecond=0).isoformat()
    site = Site(output, "kvbench report", f"Made by: {clean(inputs.command)}; kvcache {__version__}, {made}")
    site.check()
    _Build(inputs, site, commits, history, machines, files, benchmarks, traces, profile, progress).run()
    return [output / name for name in site.finish()]


def _named_apart(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file once, and what it is called: by its name, or by its path where another has that name."""
    once: dict[Path, Path] = {}
    for path in paths:
        once.setdefault(path.resolve(), path)
    names = Counter(path.name for path in once.values())
    return [(path, clean(path.name if names[path.name] == 1 else str(path))) for path in once.values()]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@dataclass(frozen=True)
class _Build:
    inputs: Inputs
    site: Site
    commits: Commits
    history: History
    machines: dict[str, dict[str, str]]
    files: list[ReplayFile]
    benchmarks: list[BenchmarkFile]
    traces: list[Searches]
    profile: ProfileIndex | None
    progress: Progress

    def run(self) -> None:
        traces = {f"{file_name('trace', each.path.stem, beside=each.sha256)}.html": each for each in self.traces}
        self.site.navigation += [
            PageLink(FRONT, "Report"),
            PageLink(regressions.PAGE, "Regressions"),
            PageLink(BACKENDS, "Backends"),
            *(PageLink(file, each.name) for file, each in traces.items()),
        ]
        judgement = judge_history(self.history, self.commits)
        self.progress("regressions")
        command, histories = clean(self.inputs.command), self.inputs.histories
        pages = regressions.write_pages(self.site, self.history, self.commits, judgement, histories, command)
        self.progress("backends")
        self._backends()
        for file, searches in traces.items():
            self.progress(searches.name)
            self._trace(file, searches)
        self.progress("front page")
        self._front(judgement, pages)

    def _backends(self) -> None:
        requests = self._bounded()
        full = self._full()
        groups = [
            ("At a glance", [*backends.step_panels(full), *backends.outcome_panels(full), *backends.work_panels(full)]),
            ("Hit rate against capacity", capacities.capacity_panels(self.files, requests)),
            ("How long calls take", backends.distribution_panels(full)),
            ("Memory", backends.memory_panels(full)),
            ("Cost against size", costs.growth_panels(self.history)),
            ("Single operations", [panel for file in self.benchmarks for panel in costs.benchmark_panels(file)]),
        ]
        lead = [
            "A replay asks every backend for the same recorded requests, in turns, step by step. It is open-loop: it "
            "does not show how a search would have gone with other answers."
        ]
        self.site.pages(Path(BACKENDS).stem, "Backends", [Group(title, list(panels)) for title, panels in groups], lead)

    def _bounded(self) -> dict[tuple[str, int], Future]:
        """Requests of every replayed part of a given trace."""
        paths = {each.sha256: each for each in self.traces}
        found = {}
        for file in self.files:
            for replay in file.replays:
                sha256, searches = key = replay.result.trace.sha256, replay.result.trace.searches
                trace = paths.get(sha256)
                if trace is not None and key not in found:
                    whole = trace.searches == searches
                    found[key] = (trace if whole else read_searches(trace.path, sha256, searches)).future
        return found

    def _trace(self, file: str, searches: Searches) -> None:
        replays = [each for each in self._full() if each.result.trace.sha256 == searches.sha256]
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

    def _full(self) -> list[Replay]:
        """Replays that are more than a point of a curve over capacities: timed ones, and those at default capacity."""
        return [
            replay
            for file in self.files
            for replay in file.replays
            if replay.result.first.latency_us or replay.is_default
        ]

    def _front(self, judgement: Judgement, pages: dict[str, str]) -> None:
        found = [*comparisons.from_replays(self.files), *comparisons.from_history(self.history)]
        sentence, changed = front.changed_table(judgement.change_points, self.commits, self.history, pages)
        given = {
            "results": self.inputs.results, "replays": self.files, "benchmarks": self.benchmarks,
            "traces": self.traces, "profile": self.inputs.profile,
        }  # fmt: skip
        absent = [_KINDS[kind] for kind, value in given.items() if not value]
        self.site.page(
            FRONT,
            "front.html",
            "kvbench report",
            compared=[(each, comparisons.where_legacy_lies(each, found)) for each in comparisons.headlines(found)],
            details=self._table("verdicts", "Every comparison", comparisons.comparison_table(found), len(found) < 2),
            nothing_compared=self._nothing_compared(),
            since=self.commits.described or "(no repository of it was given)",
            changed=self._table("changed", "Change points", changed, True, sentence),
            not_measured=self._table(
                "not-measured", "Not measured",
                front.not_measured_table(found, self.files, self.history, absent), True,
            ),
            machines=self._table(
                "machines", "Machines",
                front.machine_table(self.files, self.benchmarks, self.machines, self.history, self.commits), True,
            ),
            profiles=self._profiles(),
        )  # fmt: skip

    def _nothing_compared(self) -> str:
        given = [*(["asv's results"] if self.inputs.results else []), *(file.name for file in self.files)]
        if not given:
            return "No replay and no asv result was given: there is nothing to compare."
        return f"Nothing in {', '.join(given)} compares a backend with legacy."

    def _profiles(self) -> Markup:
        folder, index = self.inputs.profile, self.profile
        if folder is None or index is None:
            return Markup()
        command = clean(shlex.join(["kvbench", *index.command]))
        table = front.profile_table(folder, index, self.site.folder)
        return self.site.panel(Panel("profiles", "Profiles", table, command=command, open=True))

    def _table(self, name: str, title: str, table: Table, is_open: bool, note: str = "") -> Markup:
        return self.site.panel(Panel(name, title, table, note, open=is_open))
