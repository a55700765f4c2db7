"""What happened to one metric of one storage, as a line of the front page: how much, to what, where, and since when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from kvbench.history.series import RATIO, Series
from kvbench.judge.verdict import Verdict
from kvbench.report.history_figures import OVER_LEGACY, history_name, ratio_name
from kvbench.report.text import number, words

__all__ = ["Finding", "grouped", "how_much", "of_series"]

_NAMED_BY_THEMSELVES = ("geometry", "trace", "point")  # parameters whose values need no name beside them
_ELSEWHERE = ("backend", "operation")
_MOST_PERCENT = 900  # more is said in times

Of = TypeVar("Of")


@dataclass(frozen=True)
class Finding:
    """One line: of the cell in which it is most.

    Attributes:
        verdict: of it.
        much: how much, with its sign.
        metric: its name, and the operation.
        where: geometry and sizes; ``storage`` is the backend.
        since: a commit, or a range of them; empty where that is plain.
        about: what somebody sees who points at it.
        address: of its history; empty where none is drawn.
        cells: in how many cells.
        is_new: whether its commit counts as new.
    """

    verdict: Verdict
    much: str
    metric: str
    where: str
    storage: str
    since: str = ""
    about: str = ""
    address: str = ""
    cells: int = 1
    is_new: bool = False


def how_much(percent: float | None, before: float, after: float, series: Series) -> str:
    """A change in words: its share, and the values of what is counted; times are judged beside others."""
    share = "" if percent is None else _share(percent)
    values = f"{number(before)} to {number(after)} {series.unit}"
    if percent is None or (series.is_exact and series.unit == "%"):
        return values
    return f"{share} ({values})" if series.is_exact else share


def _share(percent: float) -> str:
    if percent > _MOST_PERCENT:
        return f"{1 + percent / 100:,.0f} times"
    return f"{percent:+.0f} %" if abs(percent) >= 1 else f"{percent:+.2g} %"


def place_of(series: Series) -> str:
    """Geometry and sizes of a cell, without its backend and the device that all have; the machine where it has none."""
    parts = [
        value if name in _NAMED_BY_THEMSELVES else f"{name} {value}"
        for name, value in series.cell.items()
        if name not in _ELSEWHERE and (name, value) != ("device", "cpu")
    ]
    return ", ".join(parts) or series.machine


def metric_of(series: Series) -> str:
    """What a reader calls the metric: of a cache by its operation; of anything else by the benchmark's name."""
    if "backend" not in series.cell:
        return series.metric
    name = series.benchmark.rpartition(".")[2].removeprefix("track_").removesuffix(OVER_LEGACY)
    return words(" ".join(part for part in (series.cell.get("operation", ""), name) if part))


def of_series(series: Series, verdict: Verdict, much: str, pages: Mapping[str, str]) -> Finding:
    """The line of one cell; ``pages`` has the address of each history, by ``history_name``."""
    storage = series.cell.get("backend", "")
    # A picture of times over legacy shows the times' steps as well.
    drawn = (history_name(series), ratio_name(series))
    address = next((pages[name] for name in drawn if name in pages), "")
    about = ", ".join(part for part in (series.metric, series.params, series.machine) if part)
    return Finding(verdict, much, metric_of(series), place_of(series), storage, about=about, address=address)


def grouped(found: Iterable[Of], series_of: Callable[[Of], Series], line: Callable[[Of], Finding]) -> list[Finding]:
    """One line for each metric, storage, verdict and commit: of the first of its cells.

    A time over legacy is no other metric than the time.
    """
    first: dict[tuple[object, ...], Finding] = {}
    cells: dict[tuple[object, ...], set[str]] = {}
    for each in found:
        series, own = series_of(each), line(each)
        benchmark = series.benchmark.removesuffix(OVER_LEGACY) if series.unit == RATIO else series.benchmark
        key = series.machine, benchmark, series.cell.get("operation"), own.storage, own.verdict, own.since
        first.setdefault(key, own)
        cells.setdefault(key, set()).add(series.params)
    return [replace(own, cells=len(cells[key])) for key, own in first.items()]
