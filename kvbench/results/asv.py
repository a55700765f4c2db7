"""asv's result files as one tidy frame."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from msgspec import Meta, Struct

from kvbench.results.decode import Kind, ResultsError, convert, read_json

__all__ = ["COLUMNS", "DURATION_COLUMNS", "load_durations", "load_machines", "load_results"]

COLUMNS = ("machine", "environment", "commit", "date", "benchmark", "params", "value", "unit", "state")
DURATION_COLUMNS = ("machine", "commit", "date", "build", "benchmarks")
_MADE_BY = "'asv run' of asv 0.6"
_LATEST = 9_000_000_000_000  # ms: pandas' dates end in 2262


class Commit(Struct, frozen=True, kw_only=True):
    """asv's result file: one commit on one machine, in one environment. ``results`` has cells by ``result_columns``."""

    version: Literal[2]
    commit_hash: str
    env_name: str = ""
    date: Annotated[int, Meta(ge=0, le=_LATEST)]  # ms
    params: dict[str, str | int | float | None]
    result_columns: list[str]
    results: dict[str, list[Any]]
    durations: dict[str, float] | None = None  # seconds

    def __post_init__(self) -> None:
        if not isinstance(self.params.get("machine"), str):
            raise ValueError("params have no machine")


class Cells(Struct, frozen=True, kw_only=True):
    """What is read of one benchmark's cells; asv cuts off what there is nothing of, from the right."""

    result: list[float | None] | None = None
    params: list[list[str]] = []
    version: str | None = None
    duration: float | None = None  # seconds


class Benchmark(Struct, frozen=True):
    """What is read of a benchmark in ``benchmarks.json``."""

    version: str
    param_names: list[str]
    unit: str


def load_results(folder: str | Path) -> pd.DataFrame:
    """All results under asv's ``results_dir``, where ``benchmarks.json`` is; a row for each value.

    Returns:
        ``machine``, ``environment`` (asv's name of it), ``commit`` (its full hash), ``date`` (of the commit, UTC),
        ``benchmark``, ``params`` (``name=value, ...``), ``value``, ``unit``, ``state`` (``ok``, ``failed`` or
        ``skipped``; the latter two have no value), in the order of dates. Values measured by another version of a
        benchmark than ``benchmarks.json`` describes are left out, as asv does. A machine that measured a commit in
        several environments is several machines, named after what tells those apart.

    Raises:
        ResultsError: the folder holds no results, or a file is not what asv 0.6 writes.
    """
    folder = Path(folder)
    path = folder / "benchmarks.json"
    benchmarks = _read(path, dict[str, Benchmark | int])
    if benchmarks.get("version") != 2:
        raise ResultsError(path, f"not asv's version 2: give what {_MADE_BY} wrote")
    rows = [row for file in _files(folder) for row in _rows(file, benchmarks)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["value"] = frame["value"].astype(float)
    return _in_order(frame, ["date", "commit", "machine", "benchmark"])


def load_durations(folder: str | Path) -> pd.DataFrame:
    """How long asv took for each commit: what a run took beyond these is its own (checkout, discovery, processes).

    Returns:
        ``machine`` (as in ``load_results``), ``commit``, ``date``, ``build`` (seconds to build the wheel and install
        it; NaN where it was in place already) and ``benchmarks`` (seconds), in the order of dates.

    Raises:
        ResultsError: as in ``load_results``.
    """
    rows = []
    for file in _files(Path(folder)):
        if file.content.durations is None:
            raise ResultsError(file.path, f"durations is missing: give what {_MADE_BY} wrote")
        spent = dict(file.content.durations)
        build = spent.pop("<build>", math.nan)
        benchmarks = sum(spent.values()) + sum(cells.duration or 0 for _, cells in file.cells())
        rows.append((file.machine, file.content.commit_hash, file.date, build, benchmarks))
    return _in_order(pd.DataFrame(rows, columns=list(DURATION_COLUMNS)), ["date", "commit", "machine"])


def load_machines(folder: str | Path) -> dict[str, dict[str, str]]:
    """What each machine is and what ran on it, as asv says of its last commit: by the machine's name, as in
    ``load_results``.

    Raises:
        ResultsError: as in ``load_results``.
    """
    files = sorted(_files(Path(folder)), key=lambda file: file.content.date)
    last = {file.machine: file.content.params for file in files}
    return {
        machine: {name: str(value) for name, value in params.items() if name != "machine"}
        for machine, params in sorted(last.items())
    }


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

    def cells(self) -> Iterator[tuple[str, Cells]]:
        """The benchmarks' names and cells. Raises ResultsError."""
        for name, values in self.content.results.items():
            named = dict(zip(self.content.result_columns, values, strict=False))
            yield name, convert(self.path, named, Cells, _MADE_BY)


def _files(folder: Path) -> list[_File]:
    """Every machine's result files; a machine that measured a commit in several environments is several."""
    paths = [path for path in sorted(folder.glob("*/*.json")) if path.name != "machine.json"]
    files = [_File(path, _read(path, Commit)) for path in paths]
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


def _read(path: Path, kind: type[Kind]) -> Kind:
    return read_json(path, kind, _MADE_BY, parse=json.loads)  # asv writes NaN, which JSON has not


def _rows(file: _File, benchmarks: dict[str, Benchmark | int]) -> Iterator[tuple[Any, ...]]:
    of_file = (file.machine, file.content.env_name, file.content.commit_hash, file.date)
    for name, cells in file.cells():
        benchmark = benchmarks.get(name)
        if not isinstance(benchmark, Benchmark) or cells.version != benchmark.version:
            continue
        places = list(itertools.product(*cells.params))
        values = [None] * len(places) if cells.result is None else cells.result
        if len(values) != len(places) or len(cells.params) != len(benchmark.param_names):
            raise ResultsError(file.path, f"{name!r} has other values than parameters: give what {_MADE_BY} wrote")
        for place, value in zip(places, values, strict=True):
            texts = [text.strip("'") for text in place]
            params = ", ".join(map("{}={}".format, benchmark.param_names, texts))
            state = "failed" if value is None else "skipped" if math.isnan(value) else "ok"
            yield (*of_file, name, params, value, benchmark.unit, state)
