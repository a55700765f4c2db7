"""Tables of the front page: what was not measured and why, and profiles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from kvbench.history.commits import Commits
from kvbench.history.series import History
from kvbench.measure.machine import short_commit
from kvbench.report.comparisons import Comparison
from kvbench.report.input_files import ReplayFile
from kvbench.report.panels import Cell, Link, Table
from kvbench.report.text import clean, words
from kvbench.results.decode import LeftOut
from kvbench.results.profile import ProfileIndex
from kvcache import GEOMETRIES

__all__ = ["not_measured_table", "profile_table", "unmeasured_commits", "with_age"]

DEVICES = ("cpu", "cuda")


def unmeasured_commits(commits: Commits, history: History) -> list[list[Cell]]:
    """A row where not all commits that count as new were measured, and which was the last: none where all were."""
    new = [each.name for each in commits.known if commits.is_new(each.name)]
    measured = {name for names in history.commits.values() for name in names}
    missing = sum(name not in measured for name in new)
    if not missing:
        return []
    last = next((each.name for each in reversed(commits.known) if each.name in measured), None)
    unknown = "this repository has no measured commit, --repository gives another" if measured else "no commit was"
    why = unknown if last is None else f"the last measured is {with_age(last, commits)}"
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
    for device in DEVICES if files or comparisons else ():  # where nothing is said of legacy, it is not missed
        missing = [name for name in GEOMETRIES if (name, device) not in compared]
        if missing:
            some = any(found == device for _, found in compared)
            what = ", ".join(missing) if some else "every geometry"
            unknown = "no replay of it was given, and asv has none"
            rows.append([f"new against legacy, {what}, {device}", reasons.get(device, unknown), "replays, asv"])
    for machine, skipped in history.skipped:
        rows.append([f"{skipped.number:,} values on {machine}", f"{skipped.why} ({skipped.commits})", "asv"])
    for series in history.series:
        known = np.flatnonzero(series.failed | ~np.isnan(series.values))
        if len(known) and series.failed[known[-1]]:
            commit = history.commits[series.machine][int(known[-1])][:8]
            rows.append([f"{series.metric}, {series.params} on {series.machine}", f"failed at {commit}", "asv"])
    if history.is_empty:
        rows.append(["asv's history", "no value of the benchmarks that its benchmarks.json describes", "asv"])
    rows += [[what, f"not given: {remedy}", "the command"] for what, remedy in absent]
    return Table(("what", "why", "according to"), rows)


def profile_table(folder: Path, index: ProfileIndex, output: Path) -> Table:
    """What ``kvbench profile`` wrote: its files by address relative to the report's folder, ``output``."""
    rows: list[list[Cell]] = []
    for profile in index.profiles:
        for file in profile.files:
            address = quote(Path(os.path.relpath(folder / file.path, output)).as_posix())
            about = words(f"{file.kind} of {profile.backend}")
            rows.append([Link(clean(about), address), clean(file.opens_with), clean(index.trace.file), file.bytes])
    return Table(("file", "opens with", "trace", "bytes"), rows)
