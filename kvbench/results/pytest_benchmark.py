"""pytest-benchmark's files (``--benchmark-json``, ``--benchmark-save``): the fields of them that are read here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from kvbench.results.decode import read_json

__all__ = ["Benchmark", "PytestBenchmarks", "read_pytest_benchmarks"]


class Stats(Struct, frozen=True):
    """Seconds of the rounds, and how many there were."""

    min: float
    q1: float
    median: float
    q3: float
    max: float
    rounds: int


class Extra(Struct, frozen=True):
    """What the gate's benchmarks add: whether their times count, and their deterministic metrics."""

    timed: bool = True
    metrics: dict[str, int | float] | None = None


class Benchmark(Struct, frozen=True):
    """One benchmark; ``fullname`` has its file."""

    name: str
    stats: Stats
    fullname: str = ""
    extra_info: Extra = Extra()


class Processor(Struct, frozen=True):
    """Its name, where the library that knows it was there."""

    brand_raw: str | None = None


class MachineInfo(Struct, frozen=True):
    """What it ran on."""

    cpu: Processor = Processor()
    python_version: str | None = None


class CommitInfo(Struct, frozen=True):
    """Of what: ``dirty`` with changes; the gate's processes add the folder of the ``library`` that they measured."""

    id: str | None = None
    dirty: bool = False
    library: str = ""


class PytestBenchmarks(Struct, frozen=True):
    """The whole file."""

    machine_info: MachineInfo
    datetime: str
    benchmarks: list[Benchmark]
    commit_info: CommitInfo = CommitInfo()


def read_pytest_benchmarks(
    path: str | Path, prepare: Callable[[Any], Any] = lambda content: content
) -> PytestBenchmarks:
    """Read one file. Raises ResultsError, as ``read_json`` does; ``prepare`` is its."""
    return read_json(path, PytestBenchmarks, "pytest --benchmark-json", prepare=prepare)
