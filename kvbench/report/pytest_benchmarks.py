"""Results of pytest-benchmark as a report shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvbench.report.text import clean
from kvbench.results.decode import read_json
from kvbench.results.pytest_benchmark import MADE_BY, Benchmark, PytestBenchmarks

__all__ = ["BenchmarkFile", "read_benchmarks"]


@dataclass(frozen=True)
class BenchmarkFile:
    """One result file, its texts fit to be shown; ``name`` is what it is called."""

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
    def machine(self) -> str:
        """What it was measured on."""
        machine = self.content.machine_info
        python = f"Python {machine.python_version}" if machine.python_version else None
        return ", ".join(part for part in (machine.cpu.brand_raw, python) if part)


def read_benchmarks(path: Path, name: str = "") -> BenchmarkFile:
    """Read one result file, called by its own name unless one is given. Raises ResultsError, as ``read_json`` does."""
    return BenchmarkFile(path, read_json(path, PytestBenchmarks, MADE_BY, prepare=clean), name or clean(path.name))
