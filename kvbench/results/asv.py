"""asv's result files as one tidy frame: what does not fit is left out, counted and named, and the rest is read."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from msgspec import Meta, Struct

from kvbench.parse import parse_json
from kvbench.results.decode import LeftOut, ResultsError, convert, read_json

__all__ = ["COLUMNS", "DURATION_COLUMNS", "load_durations", "load_machines", "load_results", "load_undescribed"]

COLUMNS = ("machine", "environment", "commit", "date", "benchmark", "params", "value", "unit", "state", "cell")
DURATION_COLUMNS = ("machine", "commit", "date", "build", "benchmarks")
_MADE_BY = "'asv run' of asv 0.6"
_VERSION = 2  # of asv's files
_LATEST = 9_000_000_000_000  # ms: pandas' dates end in 2262
_MOST_PLACES = 100_000  # sets of parameters of one benchmark


class Commit(Struct, frozen=True, kw_only=True):
    """asv's result file: one commit on one machine, in one environment. ``results`` has cells by ``result_columns``."""

    version: Literal[2]
    commit_hash: Annotated[str, Meta(pattern="^[0-9A-Za-z]{1,64}$")]  # commands are made of it
    env_name: str = ""
    date: Annotated[int, Meta(ge=0, le=_LATEST)]  # ms
    params: dict[str, Any]
    result_columns: list[str]
    results: dict[str, Any]
    durations: Any = None  # seconds, by what took them

    def __post_init__(self) -> None:
        if not isinstance(self.params.get("machine"), str):
            raise ValueError("params have no machine")


class Cells(Struct, frozen=True, kw_only=True):
    """What is read of one benchmark's cells; asv cuts off what there is nothing of, from the right."""

    result: list[Any] | None = None
    params: list[list[str]] = []
    version: str | None = None
    duration: float | None = None  # seconds


class Benchmark(Struct, frozen=True):
    """What is read of a benchmark in ``benchmarks.json``."""

    version: str
    param_names: list[str]
    unit: str


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

    Raises:
        ResultsError: the folder holds no ``benchmarks.json`` of asv 0.6, or no result that fits.
    """
    with_warnings = left_out is None
    left_out = LeftOut() if left_out is None else left_out
    benchmarks = _benchmarks(Path(folder) / "benchmarks.json", left_out)
    seen: set[tuple[str, ...]] = set()
    rows = [row for file in _files(Path(folder), left_out) for row in _rows(file, benchmarks, seen, left_out)]
    _check(rows, left_out, with_warnings)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["value"] = frame["value"].astype(float)
    return _in_order(frame, ["date", "commit", "machine", "benchmark"])


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
    with_warnings = left_out is None
    left_out = LeftOut() if left_out is None else left_out
    rows = []
    for file in _files(Path(folder), left_out):
        if file.content.durations is None:
            left_out.add(file.path, "durations is missing")
            continue
        try:
            spent = convert(file.path, file.content.durations, dict[str, float], _MADE_BY, "$.durations")
        except ResultsError as error:
            left_out.add(file.path, error.fault)
            continue
        build = spent.pop("<build>", math.nan)
        benchmarks = sum(spent.values()) + sum(cells.duration or 0 for _, cells in file.cells(left_out))
        rows.append((file.machine, file.content.commit_hash, file.date, build, benchmarks))
    _check(rows, left_out, with_warnings)
    return _in_order(pd.DataFrame(rows, columns=list(DURATION_COLUMNS)), ["date", "commit", "machine"])


def load_machines(folder: str | Path, left_out: LeftOut | None = None) -> dict[str, dict[str, str]]:
    """What each machine is and what ran on it, as asv says of its last commit: by the machine's name, as in
    ``load_results``.

    Raises:
        ResultsError: as in ``load_results``.
    """
    with_warnings = left_out is None
    left_out = LeftOut() if left_out is None else left_out
    files = sorted(_files(Path(folder), left_out), key=lambda file: file.content.date)
    _check(files, left_out, with_warnings)
    last = {file.machine: file.content.params for file in files}
    return {
        machine: {name: str(value) for name, value in params.items() if name != "machine"}
        for machine, params in sorted(last.items())
    }


def load_undescribed(folder: str | Path, left_out: LeftOut | None = None) -> dict[tuple[str, str], set[str]]:
    """Commits with results of benchmarks that ``benchmarks.json`` does not describe, by machine and benchmark: they are
    gone from the suite, or have other names.

    Raises:
        ResultsError: as in ``load_results``.
    """
    left_out = LeftOut() if left_out is None else left_out
    described = _benchmarks(Path(folder) / "benchmarks.json", left_out)
    found: dict[tuple[str, str], set[str]] = {}
    for file in _files(Path(folder), left_out):
        for name in file.content.results.keys() - described.keys():
            found.setdefault((file.machine, name), set()).add(file.content.commit_hash)
    return found


def _check(found: list[Any], left_out: LeftOut, with_warnings: bool) -> None:
    """Raise ResultsError where everything was left out; warn of what was."""
    if not found and left_out:
        path, why = left_out.files[0]
        raise ResultsError(path, why, _MADE_BY)
    for line in left_out.lines if with_warnings else ():
        warnings.warn(line, stacklevel=3)


def _in_order(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    frame["date"] = pd.to_datetime(frame["date"], utc=True)
    return frame.sort_values(columns, kind="stable", ignore_index=True)


@dataclass
class _File:
    """One result file, and its machine's name."""

    path: Path
    content: Commit

    def __post_init__(self) -> None:
        self.machine = str(self.content.params["machine"])

    @property
    def date(self) -> pd.Timestamp:
        """Of the commit."""
        return pd.Timestamp(self.content.date, unit="ms", tz="UTC")

    def cells(self, left_out: LeftOut) -> Iterator[tuple[str, Cells]]:
        """The benchmarks' names and cells."""
        for name, values in self.content.results.items():
            where = f"$.results[{name!r}]"
            try:
                listed = convert(self.path, values, list[Any], _MADE_BY, where)
                named = dict(zip(self.content.result_columns, listed, strict=False))
                yield name, convert(self.path, named, Cells, _MADE_BY, where)
            except ResultsError as error:
                left_out.add(self.path, error.fault)


def _files(folder: Path, left_out: LeftOut) -> list[_File]:
    """Every machine's result files; a machine that measured a commit in several environments is several."""
    paths = [path for path in sorted(folder.glob("*/*.json")) if path.name != "machine.json"]
    files = []
    for path in paths:
        try:
            files.append(_File(path, convert(path, _read(path), Commit, _MADE_BY)))
        except ResultsError as error:
            left_out.add(path, error.fault)
    measured = sorted({(file.machine, file.content.commit_hash, file.content.env_name) for file in files})
    frame = pd.DataFrame(measured, columns=["machine", "commit", "environment"])
    for machine, own in frame.groupby("machine"):
        if own["commit"].is_unique:
            continue
        common = set.intersection(*(set(each.split("-")) for each in own["environment"]))
        for file in files:
            if file.content.params["machine"] == machine:
                environment = file.content.env_name
                parts = [part for part in environment.split("-") if part not in common]
                file.machine = f"{machine} ({' '.join(parts) or environment})"
    return files


def _read(path: Path) -> dict[str, Any]:
    """A file of asv's, of its present version. asv writes NaN, which JSON has not."""
    if path.exists() and not path.is_file():
        raise ResultsError(path, "not a file", _MADE_BY)
    content = read_json(path, dict[str, Any], _MADE_BY, lambda text: parse_json(text, float, keeps_rest=True))
    version = content.get("version")
    if version == 1:
        raise ResultsError(path, "of asv's version 1: run 'asv update'")
    if version != _VERSION:
        raise ResultsError(path, f"not asv's version {_VERSION}", _MADE_BY)
    return content


def _benchmarks(path: Path, left_out: LeftOut) -> dict[str, Benchmark]:
    """What ``benchmarks.json`` describes."""
    found = {}
    for name, described in _read(path).items():
        if name != "version":
            try:
                found[name] = convert(path, described, Benchmark, _MADE_BY, f"$[{name!r}]")
            except ResultsError as error:
                left_out.add(path, error.fault)
    return found


def _rows(
    file: _File, benchmarks: dict[str, Benchmark], seen: set[tuple[str, ...]], left_out: LeftOut
) -> Iterator[tuple[Any, ...]]:
    """A row for each value of a file that was not ``seen`` before."""
    of_file = (file.machine, file.content.env_name, file.content.commit_hash, file.date)
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
            key = file.machine, file.content.commit_hash, name, params
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
