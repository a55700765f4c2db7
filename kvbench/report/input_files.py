"""Result files as a report shows them: of ``kvbench replay --json`` and of pytest-benchmark, texts fit to be shown."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kvbench.errors import KvbenchError
from kvbench.report.text import clean, file_name
from kvbench.results import pytest_benchmark, replay
from kvbench.results.decode import LeftOut, ResultsError, read_rows
from kvbench.results.pytest_benchmark import Benchmark, PytestBenchmarks
from kvbench.results.replay import COMMIT, DEFAULT_CAPACITIES, BackendResult, ReplayResult, ReplayResults, Timeline

__all__ = ["BenchmarkFile", "Replay", "ReplayFile", "named_apart", "read_all", "read_benchmarks", "read_replays"]

Read = TypeVar("Read")


@dataclass(frozen=True)
class ReplayFile:
    """One file of replays; ``name`` is what it is called."""

    path: Path
    content: ReplayResults
    name: str

    @property
    def replays(self) -> list[Replay]:
        """In the order of the file."""
        return [Replay(self, each) for each in self.content.replays]

    @property
    def command(self) -> str:
        """The command that made it."""
        return shlex.join(["kvbench", *self.content.command])

    @property
    def commit(self) -> str:
        """Of the library that was measured, ``-dirty`` where files differed from it; empty where it is not known."""
        return next((str(each[COMMIT]) for each in self.content.machines.values() if each.get(COMMIT)), "")


@dataclass(frozen=True)
class Replay:
    """One replay, and the file that it is in."""

    file: ReplayFile
    result: ReplayResult

    @property
    def place(self) -> str:
        """What was replayed, and on what."""
        kind = "synthetic " if self.result.trace.synthetic else ""
        return f"{kind}{self.result.trace.file} on {self.result.device}"

    @property
    def described(self) -> str:
        """The same, and the size of the pools."""
        return f"{self.place}, slots: {self.result.capacity.label}"

    @property
    def identity(self) -> str:
        """What tells it from others: neither a result file's name nor a trace's need be the only one of its kind."""
        return f"{self.file.path} {self.result.trace.sha256}"

    @property
    def timelines(self) -> list[tuple[BackendResult, Timeline]]:
        """Backends that have a timeline."""
        return [(each, each.timeline) for each in self.result.backends if each.timeline]

    @property
    def is_default(self) -> bool:
        """Whether the pools have the sizes that they have without an option."""
        return self.result.capacity.label in DEFAULT_CAPACITIES

    def name(self, kind: str, *more: str) -> str:
        """Of a panel's files."""
        result = self.result
        parts = self.file.path.stem, Path(result.trace.file).stem, result.device, result.capacity.label
        return file_name(kind, *parts, *more, beside=self.identity)

    def title(self, what: str) -> str:
        """Of a panel: the same figure of another replay stands beside it."""
        capacity = [] if self.is_default else [self.result.capacity.label]
        device = [] if self.result.device == "cpu" else [self.result.device]
        return ", ".join([f"{what}: {Path(self.result.trace.file).stem}", *capacity, *device])


@dataclass(frozen=True)
class BenchmarkFile:
    """One file of pytest-benchmark; ``name`` is what it is called."""

    path: Path
    content: PytestBenchmarks
    name: str

    @property
    def benchmarks(self) -> list[Benchmark]:
        """Those that were timed: benchmarks of the gate can be counted only."""
        return [each for each in self.content.benchmarks if each.extra_info.timed]

    @property
    def commit(self) -> str:
        """What was measured, ``-dirty`` with changes; empty where it is not known."""
        commit = self.content.commit_info
        return f"{commit.id}-dirty" if commit.id and commit.dirty else commit.id or ""

    @property
    def settings(self) -> dict[str, str]:
        """What it was measured on."""
        return self.content.machine_info.settings

    @property
    def machine(self) -> str:
        """The most of it, in words."""
        machine = self.content.machine_info
        python = f"Python {machine.python_version}" if machine.python_version else None
        return ", ".join(part for part in (machine.cpu.brand_raw, python) if part)


def read_replays(path: Path, name: str = "", left_out: LeftOut | None = None) -> ReplayFile:
    """Read one result file, called by its own name unless one is given; replays that do not fit are left out.

    Raises ResultsError, as ``read_rows`` does.
    """
    left_out = LeftOut() if left_out is None else left_out
    content = read_rows(path, ReplayResults, replay.MADE_BY, "replays", ReplayResult, left_out)
    return ReplayFile(path, content, name or clean(path.name))


def read_benchmarks(path: Path, name: str = "", left_out: LeftOut | None = None) -> BenchmarkFile:
    """As ``read_replays``, of pytest-benchmark."""
    left_out = LeftOut() if left_out is None else left_out
    content = read_rows(path, PytestBenchmarks, pytest_benchmark.MADE_BY, "benchmarks", Benchmark, left_out)
    return BenchmarkFile(path, content, name or clean(path.name))


def named_apart(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file once, and what it is called: by its name, or by its path where another has that name."""
    once: dict[Path, Path] = {}
    for path in paths:
        once.setdefault(path.resolve(), path)
    names = Counter(path.name for path in once.values())
    return [(path, clean(path.name if names[path.name] == 1 else str(path))) for path in once.values()]


def read_all(paths: Sequence[Path], read: Callable[[Path, str], Read], left_out: LeftOut) -> list[Read]:
    """Files of one kind; one that cannot be read is left out. Raises its KvbenchError where none can."""
    found: list[Read] = []
    faults: list[tuple[Path, KvbenchError]] = []
    for path, name in named_apart(paths):
        try:
            found.append(read(path, name))
        except KvbenchError as error:
            faults.append((path, error))
    if faults and not found:
        raise faults[0][1]
    for path, fault in faults:
        told = fault.fault if isinstance(fault, ResultsError) else str(fault).removeprefix(f"{clean(str(path))}: ")
        left_out.add(path, told)
    return found
