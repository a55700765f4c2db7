"""pytest-benchmark's files (``--benchmark-json``, ``--benchmark-save``): the fields of them that are read here."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["MADE_BY", "STATISTICS", "Benchmark", "PytestBenchmarks"]

MADE_BY = "pytest --benchmark-json"
STATISTICS = ("min", "q1", "median", "q3", "max")
_MICROSECONDS = 1e6


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

    @property
    def microseconds(self) -> dict[str, float]:
        """The spread of its rounds, by ``STATISTICS``."""
        return {name: _MICROSECONDS * getattr(self.stats, name) for name in STATISTICS}


class Processor(Struct, frozen=True):
    """A name, where the package that finds it was there."""

    brand_raw: str | None = None


class MachineInfo(Struct, frozen=True):
    """What the benchmarks ran on."""

    cpu: Processor = Processor()
    python_version: str | None = None


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
