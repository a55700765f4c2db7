"""The table of machines: on what was measured, of which commit, when and by which command, as far as the files say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kvbench.history.commits import Commits
from kvbench.history.series import History
from kvbench.report.front import with_age
from kvbench.report.input_files import BenchmarkFile, ReplayFile
from kvbench.report.panels import Cell, Table
from kvbench.report.text import clean
from kvbench.report.training import Training
from kvbench.report.whole_searches import WholeSearches
from kvbench.results.replay import COMMIT

__all__ = ["machine_table"]

_HEADINGS = ("source", "device", "commit", "machine and versions", "when", "command")


def machine_table(
    files: Iterable[ReplayFile],
    benchmarks: Iterable[BenchmarkFile],
    runs: Iterable[Training | WholeSearches],
    history: History,
    commits: Commits,
) -> Table:
    """A row for each file and for each environment of a history. What a file does not say is left empty."""
    rows: list[list[Cell]] = []
    for file in files:
        for device, machine in file.content.machines.items():
            described = f"{_described(machine)}; {_described(file.content.settings)}"
            commit = with_age(str(machine.get(COMMIT) or ""), commits)
            rows.append([file.name, device, commit, described, file.content.created, file.command])
    for benchmark in benchmarks:
        commit = with_age(benchmark.commit, commits)
        rows.append([benchmark.name, "", commit, _described(benchmark.settings), benchmark.content.datetime, ""])
    for run in runs:
        machine = run.content.machine
        commit = with_age(str(machine.get(COMMIT) or ""), commits)
        packages = f"; {_described(run.content.packages)}" if isinstance(run, Training) else ""
        rows.append([run.name, "", commit, f"{_described(machine)}{packages}", "", run.command])
    return Table(_HEADINGS, [*rows, *_of_history(history, commits)])


def _of_history(history: History, commits: Commits) -> Iterator[list[Cell]]:
    """A row for each environment that a machine measured in. asv says neither when that was nor by which command."""
    for machine, names in history.commits.items():
        environments = history.environments_of(machine)
        for place, settings in enumerate(environments.settings):
            own = [name for name, at in zip(names, environments.places, strict=True) if at == place]
            first = f"from {own[0][:8]} " if len(environments.settings) > 1 else ""
            commits_of = f"{first}up to {with_age(own[-1], commits)}"
            yield [f"asv, {clean(machine)}", "", commits_of, clean(_described(settings)), "", ""]


def _described(values: Mapping[str, object]) -> str:
    known = [(name, value) for name, value in values.items() if value is not None and name != COMMIT]
    return ", ".join(f"{name} {value}".rstrip() for name, value in known)
