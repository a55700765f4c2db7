"""What a report is made of, and which command makes each part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KINDS", "MOST_HISTORIES", "Inputs"]

MOST_HISTORIES = 120  # a page of two commits compared has all series
# What a report is made of, and what makes that.
KINDS = (
    ("asv's history", "tox -e asv, then --results benchmarks/results"),
    ("replays", "kvbench replay ... --json FILE, then --replay FILE"),
    ("single operations", "pytest benchmarks/gates --benchmark-json FILE, then --benchmark FILE"),
    ("traces", "--trace FILE"),
    ("profiles", "kvbench profile ..., then --profile FOLDER"),
    ("training runs", "kvbench train ... --json FILE, then --training FILE"),
    ("whole searches", "kvbench search ... --json FILE, then --search FILE"),
    ("sweeps", "kvbench sweep ..., then --sweep FOLDER"),
    ("a GPU", "tox -e gpu on a machine that has one, then --gpu FILE"),
)


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
        sweeps: folders of ``kvbench sweep``.
        gpus: files of ``tox -e gpu``.
        base, head: two commits to compare: revisions of the repository, or names that measured ones begin with. Empty
            for the last one measured, and the one before it.
        gate: a file of ``kvbench gate --json``.
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
    sweeps: Sequence[Path] = ()
    gpus: Sequence[Path] = ()
    base: str = ""
    head: str = ""
    gate: Path | None = None
