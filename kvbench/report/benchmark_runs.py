"""Runs of pytest-benchmark over time: a chart of each benchmark that was run often, with environment and commit.

A line breaks where the environment changes. Runs stand in the order of their times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kvbench.history.environments import Environments
from kvbench.measure.machine import short_commit
from kvbench.report.costs import benchmark_panels
from kvbench.report.environments import border_marks, border_sentence, shortened
from kvbench.report.input_files import BenchmarkFile
from kvbench.report.panels import Cell, Panel, Plot, Series, Table
from kvbench.report.text import file_name, number
from kvbench.results.pytest_benchmark import STATISTICS, Benchmark

__all__ = ["benchmark_run_panels"]

_MOST_TICKS = 4
_DAY = len("2026-01-31")
_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _Run:
    """One benchmark in one file."""

    file: BenchmarkFile
    benchmark: Benchmark

    @property
    def commit(self) -> str:
        return short_commit(self.file.commit)

    @property
    def settings(self) -> dict[str, str]:
        """Its environment: the machine, Python, and how it was run."""
        return self.file.settings | self.benchmark.settings

    @property
    def environment(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.settings.items())


def benchmark_run_panels(files: Sequence[BenchmarkFile], command: str) -> tuple[list[Panel], list[Panel]]:
    """A chart of each benchmark that several files have; of the others, how their rounds are spread."""
    runs: dict[str, list[_Run]] = {}
    for file in sorted(files, key=_when):
        for each in file.benchmarks:
            runs.setdefault(each.identity, []).append(_Run(file, each))
    several = {name: found for name, found in runs.items() if len(found) > 1}
    charts = [_panel(name, found, command) for name, found in several.items()]
    return charts, [panel for file in files for panel in benchmark_panels(file, command, several)]


def _when(file: BenchmarkFile) -> datetime:
    """When a file was written, which says it in ISO's form; one that does not comes first."""
    try:
        found = datetime.fromisoformat(file.content.datetime)
    except ValueError:
        return _EARLIEST
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _panel(name: str, runs: Sequence[_Run], command: str) -> Panel:
    environments = Environments.of(run.settings for run in runs)
    marks = border_marks(environments, range(len(runs)))
    labels = [run.commit or run.file.name for run in runs]
    rows: list[list[Cell]] = [
        [run.file.content.datetime[:_DAY], run.commit, *run.benchmark.microseconds.values(), run.benchmark.stats.rounds,
         run.environment, run.file.name]
        for run in runs
    ]  # fmt: skip
    headings = ("date", "commit", *(f"{each}, us" for each in STATISTICS), "rounds", "environment", "file")
    return Panel(
        file_name("runs", name),
        name,
        Table(headings, rows),
        f"{len(runs)} runs: the median of their rounds, and the fastest round.{border_sentence(marks, labels)}",
        command,
        _plot(runs, labels, marks),
    )


def _plot(runs: Sequence[_Run], labels: Sequence[str], marks: Sequence[tuple[int, str]]) -> Plot:
    def hover(place: float, value: float, what: str) -> str:
        run = runs[int(place)]
        return f"{number(value)} us, {what}\n{run.file.content.datetime[:_DAY]} {labels[int(place)]}\n{run.environment}"

    every = -(-len(runs) // _MOST_TICKS)
    lines = [
        Series(what, range(len(runs)), [run.benchmark.microseconds[name] for run in runs], hover, style)
        for what, name, style in (("median", "median", "line"), ("fastest round", "min", "dashed"))
    ]
    return Plot(
        "run, oldest first",
        "us",
        lines,
        marks=[(at - 0.5, shortened(change)) for at, change in marks],
        breaks=[at - 0.5 for at, _ in marks],
        x_ticks=[(place, runs[place].file.content.datetime[:_DAY]) for place in range(0, len(runs), every)],
    )
