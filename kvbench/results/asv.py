"""asv's result files as one tidy frame: what does not fit is left out, counted and named, and the rest is read."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kvbench.results.asv_files import MADE_BY, AsvFile, Benchmark, read_asv_files, read_described
from kvbench.results.decode import LeftOut, ResultsError, convert
from kvbench.results.environment import Settings

__all__ = [
    "COLUMNS", "DURATION_COLUMNS", "AsvResults", "check_found", "load_durations", "load_results",
    "read_asv",
]  # fmt: skip

COLUMNS = ("machine", "environment", "commit", "date", "benchmark", "params", "value", "unit", "state", "cell")
DURATION_COLUMNS = ("machine", "commit", "date", "build", "benchmarks")
_MOST_PLACES = 100_000  # sets of parameters of one benchmark


@dataclass
class AsvResults:
    """A results folder, read once: its files, what ``benchmarks.json`` describes, and what did not fit so far."""

    files: list[AsvFile]
    described: Mapping[str, Benchmark]
    left_out: LeftOut

    def values(self) -> pd.DataFrame:
        """As ``load_results``."""
        seen: set[tuple[str, ...]] = set()
        rows = [row for file in self.files for row in _rows(file, self.described, seen, self.left_out)]
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        frame["value"] = frame["value"].astype(float)
        return _in_order(frame, ["date", "commit", "machine", "benchmark"])

    def settings(self) -> dict[tuple[str, str], Settings]:
        """In what each machine, as ``load_results`` names it, measured each commit."""
        return {(file.line, file.content.commit_hash): file.settings for file in self.files}

    def undescribed(self) -> dict[tuple[str, str], set[str]]:
        """Commits with results of benchmarks that ``benchmarks.json`` does not describe, by machine and benchmark:
        they are gone from the suite, or have other names.
        """
        found: dict[tuple[str, str], set[str]] = {}
        for file in self.files:
            for name in file.content.results.keys() - self.described.keys():
                found.setdefault((file.line, name), set()).add(file.content.commit_hash)
        return found


def read_asv(folder: str | Path, left_out: LeftOut) -> AsvResults:
    """Read asv's ``results_dir``.

    Raises:
        ResultsError: the folder holds no ``benchmarks.json`` of asv 0.6, or all results in it were left out.
    """
    described = read_described(Path(folder), left_out)
    results = AsvResults(read_asv_files(Path(folder), left_out), described, left_out)
    if not results.files:
        check_found(left_out)
    return results


def load_results(folder: str | Path, left_out: LeftOut | None = None) -> pd.DataFrame:
    """All results under asv's ``results_dir``, where ``benchmarks.json`` is; a row for each value.

    Args:
        folder: asv's ``results_dir``.
        left_out: collects what does not fit; without one it is warned of.

    Returns:
        ``machine``, ``environment`` (asv's name of it), ``commit`` (its full hash), ``date`` (of the commit, UTC),
        ``benchmark``, ``params`` (``name=value, ...``), ``value``, ``unit``, ``state`` (``ok``, ``failed`` or
        ``skipped``; the latter two have no value) and ``cell`` (the parameters as pairs), in the order of dates. Values
        measured by another version of a benchmark than ``benchmarks.json`` describes are left out, as asv does. A
        machine that measured a commit in several environments is several machines, named after what tells those apart.
        Where one environment takes another's place, the machine's name stays: ``AsvResults.settings`` tells them apart.

    Raises:
        ResultsError: the folder holds no ``benchmarks.json`` of asv 0.6, or no result that fits.
    """
    given = LeftOut() if left_out is None else left_out
    frame = read_asv(folder, given).values()
    if frame.empty:
        check_found(given)
    if left_out is None:
        _warn(given)
    return frame


def load_durations(folder: str | Path, left_out: LeftOut | None = None) -> pd.DataFrame:
    """How long asv took for each commit: what a run took beyond these is its own (checkout, discovery, processes).

    Args:
        folder: asv's ``results_dir``.
        left_out: as in ``load_results``.

    Returns:
        ``machine`` (as in ``load_results``), ``commit``, ``date``, ``build`` (seconds to build the wheel and install
        it; NaN where it was in place already) and ``benchmarks`` (seconds), in the order of dates.

    Raises:
        ResultsError: no file has durations that fit.
    """
    given = LeftOut() if left_out is None else left_out
    rows = []
    for file in read_asv_files(Path(folder), given):
        if file.content.durations is None:
            given.add(file.path, "durations is missing")
            continue
        try:
            spent = convert(file.path, file.content.durations, dict[str, float], MADE_BY, "$.durations")
        except ResultsError as error:
            given.add(file.path, error.fault)
            continue
        build = spent.pop("<build>", math.nan)
        benchmarks = sum(spent.values()) + sum(cells.duration or 0 for _, cells in file.cells(given))
        rows.append((file.line, file.content.commit_hash, file.date, build, benchmarks))
    if not rows:
        check_found(given)
    if left_out is None:
        _warn(given)
    return _in_order(pd.DataFrame(rows, columns=list(DURATION_COLUMNS)), ["date", "commit", "machine"])


def check_found(left_out: LeftOut) -> None:
    """Raise ResultsError, where there is nothing since all was left out."""
    for path, why in left_out.files[:1]:
        raise ResultsError(path, why, "" if why in left_out.alike else MADE_BY)


def _warn(left_out: LeftOut) -> None:
    for line in left_out.lines:
        warnings.warn(line, stacklevel=3)


def _in_order(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    frame["date"] = pd.to_datetime(frame["date"], utc=True)
    return frame.sort_values(columns, kind="stable", ignore_index=True)


def _rows(
    file: AsvFile, benchmarks: Mapping[str, Benchmark], seen: set[tuple[str, ...]], left_out: LeftOut
) -> Iterator[tuple[Any, ...]]:
    """A row for each value of a file that was not ``seen`` before."""
    of_file = (file.line, file.content.env_name, file.content.commit_hash, file.date)
    for name, cells in file.cells(left_out):
        benchmark = benchmarks.get(name)
        if benchmark is None or cells.version != benchmark.version:
            continue
        number = math.prod(map(len, cells.params))
        known = number if cells.result is None else len(cells.result)
        if number != known or number > _MOST_PLACES or len(cells.params) != len(benchmark.param_names):
            left_out.add(file.path, f"{name!r} has other values than parameters")
            continue
        values = [None] * number if cells.result is None else cells.result
        places = _places(tuple(benchmark.param_names), tuple(map(tuple, cells.params)))
        for (params, cell), value in zip(places, values, strict=True):
            key = file.line, file.content.commit_hash, name, params
            fault = "there twice" if key in seen else _fault(value)
            if fault:
                left_out.add(file.path, f"{name!r}, {params}: {fault}")
                continue
            seen.add(key)
            state = "failed" if value is None else "skipped" if math.isnan(value) else "ok"
            yield (*of_file, name, params, value, benchmark.unit, state, cell)


@functools.lru_cache(maxsize=256)  # commits and metrics share most of them
def _places(names: tuple[str, ...], params: tuple[tuple[str, ...], ...]) -> list[tuple[str, tuple[Any, ...]]]:
    """Each set of parameters, as a text and as pairs."""
    cells = [tuple(zip(names, map(_bare, place), strict=True)) for place in itertools.product(*params)]
    return [(", ".join(map("=".join, cell)), cell) for cell in cells]


def _fault(value: Any) -> str:
    """What is wrong with a benchmark's value."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"Expected a number, got {type(value).__name__}"
    return "infinite" if math.isinf(value) else ""


def _bare(text: str) -> str:
    """A parameter, of asv's ``repr`` of it: a text without its quotes."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
