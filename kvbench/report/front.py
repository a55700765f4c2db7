"""Tables of the front page: what was not measured and why, and on what all of it ran."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from kvbench.history.commits import Commits
from kvbench.history.series import History
from kvbench.measure.machine import short_commit
from kvbench.report.comparisons import Comparison
from kvbench.report.input_files import BenchmarkFile, ReplayFile
from kvbench.report.panels import Cell, Link, Table
from kvbench.report.text import clean, words
from kvbench.report.training import Training
from kvbench.report.whole_searches import WholeSearches
from kvbench.results.decode import LeftOut
from kvbench.results.profile import ProfileIndex
from kvbench.results.pytest_benchmark import MADE_BY
from kvbench.results.replay import COMMIT
from kvcache import GEOMETRIES

__all__ = ["machine_table", "not_measured_table", "profile_table", "unmeasured_commits", "with_age"]

DEVICES = ("cpu", "cuda")
_SUITE_SKIPS = (
    "asv keeps no reason; the suite skips a device that is not there, a backend that the commit lacks, a pool too large"
)


def unmeasured_commits(commits: Commits, history: History) -> list[list[Cell]]:
    """A row where not all commits that count as new were measured, and which was the last: none where all were."""
    new = [each.name for each in commits.known if commits.is_new(each.name)]
    measured = {name for names in history.commits.values() for name in names}
    missing = sum(name not in measured for name in new)
    if not missing:
        return []
    last = next((each.name for each in reversed(commits.known) if each.name in measured), None)
    why = "no commit of this repository was" if last is None else f"the last measured is {with_age(last, commits)}"
    return [[f"{missing} of {len(new)} new commits ({commits.described})", why, "asv"]]


def with_age(commit: str, commits: Commits) -> str:
    """A commit's short name, and how far it lies behind the repository's newest."""
    name, changed, _ = commit.partition("-")
    behind = commits.behind(name)
    if behind is None:
        age = "not in this repository" if commits.known else ""
    elif behind:
        age = f"{behind} commit{'s' if behind > 1 else ''} ago"
    else:
        age = "newest"
    known = [text for text in (age, "with changes" if changed else "") if text]
    return ", ".join([short_commit(name), *known]) if name else ""


def not_measured_table(
    comparisons: Sequence[Comparison],
    files: Sequence[ReplayFile],
    history: History,
    absent: Iterable[tuple[str, str]],
    left_out: LeftOut,
) -> Table:
    """What has no number, and the reason; ``absent`` are kinds of input that were not given, and what makes them."""
    rows: list[list[Cell]] = [["results that do not fit, left out", why, path] for path, why in left_out.files]
    reasons: dict[str, str] = {}
    for file in files:
        for each in file.content.not_measured:
            reasons.setdefault(each.device, each.reason)
            rows.append([f"replays on {each.device}", each.reason, file.name])
    compared = {(each.geometry, each.device) for each in comparisons}
    skipped: Counter[tuple[str, str]] = Counter()
    for machine, _, device, number in history.skipped:
        skipped[machine, device] += number
    for device in DEVICES if files or comparisons else ():  # where nothing is said of legacy, it is not missed
        missing = [name for name in GEOMETRIES if (name, device) not in compared]
        if missing:
            some = any(found == device for _, found in compared)
            what = ", ".join(missing) if some else "every geometry"
            unknown = "no replay of it was given, and asv has none"
            rows.append([f"new against legacy, {what}, {device}", reasons.get(device, unknown), "replays, asv"])
    for (machine, device), number in sorted(skipped.items()):
        on = f" with device={device}" if device else ""
        rows.append([f"{number:,} values{on} on {machine}", reasons.get(device, _SUITE_SKIPS), "asv"])
    for series in history.series:
        known = np.flatnonzero(series.failed | ~np.isnan(series.values))
        if len(known) and series.failed[known[-1]]:
            commit = history.commits[series.machine][int(known[-1])][:8]
            rows.append([f"{series.metric}, {series.params} on {series.machine}", f"failed at {commit}", "asv"])
    if history.is_empty:
        rows.append(["asv's history", "no value of the benchmarks that its benchmarks.json describes", "asv"])
    rows += [[what, f"not given: {remedy}", "the command"] for what, remedy in absent]
    return Table(("what", "why", "according to"), rows)


def machine_table(
    files: Iterable[ReplayFile],
    benchmarks: Iterable[BenchmarkFile],
    runs: Iterable[Training | WholeSearches],
    machines: Mapping[str, Mapping[str, str]],
    history: History,
    commits: Commits,
) -> Table:
    """Machines, and versions of what ran on them, and of which commit; ``machines`` are asv's."""
    rows: list[list[Cell]] = []
    for file in files:
        for device, machine in file.content.machines.items():
            described = f"{_described(machine)}; {_described(file.content.settings)}"
            commit = with_age(str(machine.get(COMMIT) or ""), commits)
            rows.append([file.name, device, commit, described, file.content.created, file.command])
    for benchmark in benchmarks:
        commit = with_age(benchmark.commit, commits)
        rows.append([benchmark.name, "cpu", commit, benchmark.machine, benchmark.content.datetime, MADE_BY])
    for run in runs:
        machine = run.content.machine
        commit = with_age(str(machine.get(COMMIT) or ""), commits)
        packages = f"; {_described(run.content.packages)}" if isinstance(run, Training) else ""
        rows.append([run.name, "cpu", commit, f"{_described(machine)}{packages}", "", run.command])
    for name, versions in machines.items():
        last = next(reversed(history.commits.get(clean(name), ())), "")
        commit = f"up to {with_age(last, commits)}" if last else ""
        rows.append([f"asv, {clean(name)}", "", commit, clean(_described(versions)), "", "tox -e asv"])
    return Table(("source", "device", "commit", "machine and versions", "when", "command"), rows)


def _described(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None and name != COMMIT)


def profile_table(folder: Path, index: ProfileIndex, output: Path) -> Table:
    """What ``kvbench profile`` wrote: its files by address relative to the report's folder, ``output``."""
    rows: list[list[Cell]] = []
    for profile in index.profiles:
        for file in profile.files:
            address = quote(Path(os.path.relpath(folder / file.path, output)).as_posix())
            about = words(f"{file.kind} of {profile.backend}")
            rows.append([Link(clean(about), address), clean(file.opens_with), clean(index.trace.file), file.bytes])
    return Table(("file", "opens with", "trace", "bytes"), rows)
