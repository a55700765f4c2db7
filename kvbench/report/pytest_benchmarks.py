"""Results of pytest-benchmark as a report shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvbench.report.text import clean
from kvbench.results.pytest_benchmark import PytestBenchmarks, read_pytest_benchmarks

__all__ = ["STATISTICS", "BenchmarkFile", "BenchmarkResult", "read_benchmarks"]

STATISTICS = ("min", "q1", "median", "q3", "max")
_MICROSECONDS = 1e6


@dataclass(frozen=True)
class BenchmarkResult:
    """One benchmark: the spread of its rounds, us, and how many there were."""

    name: str
    microseconds: dict[str, float]
    rounds: int


@dataclass(frozen=True)
class BenchmarkFile:
    """One result file: when it was made, of which commit (``-dirty`` with changes), on what.

    ``label`` is what it is called where its name is not enough.
    """

    path: Path
    created: str
    commit: str
    machine: str
    benchmarks: tuple[BenchmarkResult, ...]
    label: str = ""

    @property
    def name(self) -> str:
        """What the file is called, fit to be shown."""
        return self.label or str(clean(self.path.name))


def read_benchmarks(path: str | Path) -> BenchmarkFile:
    """Read one result file; benchmarks of the gate that were only counted, not timed, are left out.

    Raises:
        ResultsError: it cannot be read, or is not what pytest-benchmark writes.
    """
    content = read_pytest_benchmarks(path, prepare=clean)
    found = []
    for each in content.benchmarks:
        if each.extra_info.timed:
            spread = {name: _MICROSECONDS * getattr(each.stats, name) for name in STATISTICS}
            found.append(BenchmarkResult(each.name, spread, each.stats.rounds))
    commit = content.commit_info.id or ""
    dirty = "-dirty" if commit and content.commit_info.dirty else ""
    return BenchmarkFile(Path(path), content.datetime, commit + dirty, _machine(content), tuple(found))


def _machine(content: PytestBenchmarks) -> str:
    machine = content.machine_info
    named = {"": machine.cpu.brand_raw, "Python ": machine.python_version}
    return ", ".join(f"{called}{found}" for called, found in named.items() if found is not None)
