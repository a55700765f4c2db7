"""pytest-benchmark's files (``--benchmark-json``, ``--benchmark-save``): the fields of them that are read here."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = ["MADE_BY", "STATISTICS", "Benchmark", "PytestBenchmarks"]

MADE_BY = "pytest --benchmark-json"
STATISTICS = ("min", "q1", "median", "q3", "max")
_MICROSECONDS = 1e6
_OPTIONS = ("timer", "disable_gc", "warmup")


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
    options: dict[str, Any] | None = None

    @property
    def identity(self) -> str:
        """What tells it from others of a run: its file and name."""
        return self.fullname or self.name

    @property
    def settings(self) -> dict[str, str]:
        """How it was run, of what matters to a time."""
        given = self.options or {}
        return {name: str(given[name]) for name in _OPTIONS if given.get(name) is not None}

    @property
    def microseconds(self) -> dict[str, float]:
        """The spread of its rounds, by ``STATISTICS``."""
        return {name: _MICROSECONDS * getattr(self.stats, name) for name in STATISTICS}


class Processor(Struct, frozen=True):
    """A name, where the package that finds it was there, and how many there are."""

    brand_raw: str | None = None
    brand: str | None = None  # its older name
    arch: str | None = None
    count: int | None = None


class MachineInfo(Struct, frozen=True):
    """What the benchmarks ran on. A machine's name is left out: each run of a CI's jobs has another."""

    cpu: Processor = Processor()
    python_implementation: str | None = None
    python_version: str | None = None
    system: str | None = None
    release: str | None = None

    @property
    def settings(self) -> dict[str, str]:
        """By name, what is known."""
        python = "python" if self.python_implementation in (None, "CPython") else self.python_implementation
        os = " ".join(filter(None, (self.system, self.release)))
        found = {
            python: self.python_version,
            "arch": self.cpu.arch,
            "cpu": self.cpu.brand_raw or self.cpu.brand,
            "num_cpu": self.cpu.count,
            "os": os or None,
        }
        return {name: str(value) for name, value in found.items() if value is not None}


class CommitInfo(Struct, frozen=True):
    """The commit, ``dirty`` with changes; the gate's processes add the ``library`` that they measured.

    That is its file, its ``version``, and its ``compiled`` modules with what is used of them.
    """

    id: str | None = None
    dirty: bool = False
    library: str = ""
    version: str = ""
    compiled: dict[str, list[str]] = {}


class PytestBenchmarks(Struct, frozen=True):
    """The whole file."""

    machine_info: MachineInfo
    datetime: str
    benchmarks: list[Benchmark]
    commit_info: CommitInfo = CommitInfo()
