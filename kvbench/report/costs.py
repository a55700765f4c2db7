"""What single operations take, and how the cost of a step grows: from pytest-benchmark and asv."""

from __future__ import annotations

from collections.abc import Container, Sequence

from kvbench.history.series import History
from kvbench.measure.machine import short_commit
from kvbench.report.input_files import BenchmarkFile
from kvbench.report.panels import Cell, Panel, Plot, Series, Table
from kvbench.report.text import file_name, number, words
from kvbench.results.pytest_benchmark import STATISTICS, Benchmark

__all__ = ["benchmark_panels", "growth_panels"]

_GROWTH = "operations.Growth."
_METRICS = {"time": "us", "tensor_operations": "", "bytes_reserved": ""}  # and their units, where the name says less
_FEWEST_SIZES = 3
_MOST_DIGITS = 15  # of a size: what is larger is no size
_AXES = {
    "context": "context length, tokens",
    "environments": "batch size, environments",
    "layers": "layers",
    "slots": "slots of the recurrent pool",
}


def growth_panels(history: History, command: str) -> list[Panel]:
    """What a recurrent batch costs against each size, at the last commit at which asv measured that.

    A commit of which one point or two were measured, as a run of some benchmarks does, shows no growth.
    """
    panels: list[Panel] = []
    for machine in history.commits:
        for metric in _METRICS:
            shown: dict[tuple[str, str], Panel] = {}
            benchmark = f"{_GROWTH}track_{metric}"
            for commit, values in history.at(machine, benchmark):
                for place, by_backend in _points(values, history.cells(machine, benchmark)).items():
                    if place not in shown and any(len(each) >= _FEWEST_SIZES for each in by_backend.values()):
                        shown[place] = _growth_panel((machine, commit, command), metric, place, by_backend)
            panels += shown.values()
    order = list(_AXES)
    return sorted(panels, key=lambda panel: order.index(panel.name.split("-")[1]))


def _points(
    values: dict[str, float], cells: dict[str, dict[str, str]]
) -> dict[tuple[str, str], dict[str, dict[int, float]]]:
    """Values by size, of each backend, for each axis and device."""
    points: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for params, value in values.items():
        cell = cells[params]
        axis, _, size = cell.get("point", "").partition("=")
        if axis in _AXES and size.isdecimal() and len(size) <= _MOST_DIGITS:
            by_backend = points.setdefault((axis, cell.get("device", "")), {})
            by_backend.setdefault(cell.get("backend", ""), {})[int(size)] = value
    return points


def _growth_panel(
    source: tuple[str, str, str], metric: str, place: tuple[str, str], by_backend: dict[str, dict[int, float]]
) -> Panel:
    """``source``: the machine, its commit, and the command that draws it."""
    machine, commit, command = source
    unit, (axis, device) = _METRICS[metric], place
    counted = unit or words(metric)

    def hover(size: float, value: float, backend: str) -> str:
        return f"{number(value)} {counted}\n{backend}\n{axis} {size}"

    sizes = sorted({size for values in by_backend.values() for size in values})
    lines = [
        Series(backend, sorted(values), [values[size] for size in sorted(values)], hover)
        for backend, values in by_backend.items()
    ]
    rows: list[list[Cell]] = [[size, *(values.get(size) for values in by_backend.values())] for size in sizes]
    label = f"{words(metric)}, {unit}" if unit else counted
    above_zero = all(value > 0 for line in lines for value in line.y)
    return Panel(
        file_name("growth", axis, machine, device, metric),
        f"{words(metric).capitalize()} against {_AXES[axis].partition(',')[0]}",
        Table((_AXES[axis], *(f"{backend}, {counted}" for backend in by_backend)), rows),
        f"A recurrent batch (lookup, assemble, store) without the model, {device} of {machine}, commit {commit[:8]}.",
        command,
        Plot(_AXES[axis], label, lines, log_x=True, log_y=above_zero),
    )


def benchmark_panels(file: BenchmarkFile, command: str, drawn: Container[str] = ()) -> list[Panel]:
    """The spread of each timed benchmark of pytest-benchmark, slowest first: a panel for each operation.

    ``drawn`` are those that are drawn elsewhere; ``command`` made the panels.
    """
    groups: dict[str, list[tuple[str, Benchmark]]] = {}
    own = [each for each in file.benchmarks if each.identity not in drawn]
    for each in sorted(own, key=lambda each: -each.microseconds["median"]):
        operation, label = _operation(each.name)
        groups.setdefault(operation, []).append((label, each))
    return [_benchmark_panel(file, operation, groups[operation], command) for operation in sorted(groups)]


def _operation(name: str) -> tuple[str, str]:
    """Operation, and what it was measured of: of ``test_operation[backend-geometry-operation]``, as pytest has it."""
    head, opened, inside = name.partition("test_operation[")
    of, _, operation = inside.removesuffix("]").rpartition("-")
    return (operation, of) if opened and of and not head else ("", name.removeprefix("test_"))


def _benchmark_panel(
    file: BenchmarkFile, operation: str, found: Sequence[tuple[str, Benchmark]], command: str
) -> Panel:
    labels = [label for label, _ in found]
    spreads = [list(each.microseconds.values()) for _, each in found]
    rows: list[list[Cell]] = [
        [each.name, *spread, each.stats.rounds] for (_, each), spread in zip(found, spreads, strict=True)
    ]
    return Panel(
        file_name("benchmark", file.path.stem, operation, beside=str(file.path)),
        f"{words(operation).capitalize() or 'Single operations'}: {file.name}",
        Table(("benchmark", *(f"{name}, us" for name in STATISTICS), "rounds"), rows),
        f"{file.content.datetime}, {file.machine}, commit {short_commit(file.commit) or 'unknown'}. From the fastest "
        "round to the slowest, quartiles thick, the median marked.",
        command,
        Plot("us", categories=labels, spreads=spreads, log_x=all(lowest > 0 for lowest, *_ in spreads)),
    )
