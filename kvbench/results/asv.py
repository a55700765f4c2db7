"""asv's result files as one tidy frame."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from kvbench.errors import KvbenchError

__all__ = ["COLUMNS", "DURATION_COLUMNS", "ResultsError", "load_durations", "load_machines", "load_results"]

COLUMNS = ("machine", "environment", "commit", "date", "benchmark", "params", "value", "unit", "state")
DURATION_COLUMNS = ("machine", "commit", "date", "build", "benchmarks")
RESULTS_VERSION = 2  # of asv's result files (asv 0.6)


class ResultsError(KvbenchError):
    """Results that cannot be read: which file, and what is wrong."""

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(f"{path}: {fault}")


def load_results(folder: str | Path) -> pd.DataFrame:
    """All results under asv's ``results_dir``, a row for each value.

    Args:
        folder: with ``benchmarks.json`` and a folder for each machine.

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
    benchmarks = _read(folder / "benchmarks.json")
    rows = [row for file in _files(folder) for row in _rows(file, benchmarks)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["value"] = frame["value"].astype(float)
    return _in_order(frame, ["date", "commit", "machine", "benchmark"])


def load_durations(folder: str | Path) -> pd.DataFrame:
    """How long asv took for each commit: what a run took beyond these is its own (checkout, discovery, processes).

    Args:
        folder: as in ``load_results``.

    Returns:
        ``machine`` (as in ``load_results``), ``commit``, ``date``, ``build`` (seconds to build the wheel and install
        it; NaN where it was in place already) and ``benchmarks`` (seconds), in the order of dates.

    Raises:
        ResultsError: as in ``load_results``.
    """
    rows = [_durations(file) for file in _files(Path(folder))]
    return _in_order(pd.DataFrame(rows, columns=list(DURATION_COLUMNS)), ["date", "commit", "machine"])


def load_machines(folder: str | Path) -> dict[str, dict[str, str]]:
    """What each machine is and what ran on it, as asv says of its last commit: by the machine's name, as in
    ``load_results``.

    Raises:
        ResultsError: as in ``load_results``.
    """
    found: dict[str, tuple[pd.Timestamp, dict[str, str]]] = {}
    for file in _files(Path(folder)):
        described = {name: str(value) for name, value in file.content["params"].items() if name != "machine"}
        if file.machine not in found or found[file.machine][0] <= file.date:
            found[file.machine] = file.date, described
    return {machine: described for machine, (_, described) in sorted(found.items())}


def _in_order(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    frame["date"] = pd.to_datetime(frame["date"], utc=True)
    return frame.sort_values(columns, kind="stable", ignore_index=True)


class _File(NamedTuple):
    """One result file: the results of one commit on one machine, in one environment."""

    path: Path
    content: dict[str, Any]
    machine: str
    environment: str
    commit: str
    date: pd.Timestamp


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What is found where something else was expected is the file's fault."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ResultsError(path, f"not what asv writes: {error!r}") from error


def _files(folder: Path) -> list[_File]:
    """Every machine's result files; a machine that measured a commit in several environments is several."""
    files = [_file(path, _read(path)) for path in sorted(folder.glob("*/*.json")) if path.name != "machine.json"]
    names = {}
    for machine in {file.machine for file in files}:
        own = {(file.commit, file.environment) for file in files if file.machine == machine}
        environments = {environment for _, environment in own}
        if len({commit for commit, _ in own}) < len(own):
            common = set.intersection(*(set(each.split("-")) for each in environments))
            for each in environments:
                parts = [part for part in each.split("-") if part not in common]
                names[machine, each] = f"{machine} ({' '.join(parts) or each})"
    return [file._replace(machine=names.get((file.machine, file.environment), file.machine)) for file in files]


def _file(path: Path, content: dict[str, Any]) -> _File:
    with _reading(path):
        machine, environment, commit = content["params"]["machine"], content.get("env_name", ""), content["commit_hash"]
        for each in (machine, environment, commit):
            if not isinstance(each, str):
                raise TypeError(f"{each!r} is no name")
        date = pd.Timestamp(int(content["date"]), unit="ms", tz="UTC")
    return _File(path, content, machine, environment, commit, date)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ResultsError(path, "no such file: is this asv's results_dir, and has 'asv run' been here?") from None
    except NotADirectoryError:
        raise ResultsError(path.parent, "no folder: asv's results_dir was meant") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(path, f"cannot be read as JSON: {error}") from None
    if not isinstance(content, dict) or content.get("version") != RESULTS_VERSION:
        raise ResultsError(path, f"not asv's version {RESULTS_VERSION}")
    return content


def _durations(file: _File) -> tuple[Any, ...]:
    with _reading(file.path):
        spent = dict(file.content["durations"])
        build = spent.pop("<build>", math.nan)
        column = file.content["result_columns"].index("duration")
        each = [values[column] for values in file.content["results"].values() if len(values) > column]
        benchmarks = sum(spent.values()) + sum(seconds for seconds in each if seconds is not None)
    return file.machine, file.commit, file.date, build, benchmarks


def _rows(file: _File, benchmarks: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    with _reading(file.path):
        for name, values in file.content["results"].items():
            benchmark = benchmarks.get(name)
            # asv cuts off what a row has nothing of, from the right.
            result = dict(zip(file.content["result_columns"], values, strict=False))
            if benchmark is None or result.get("version") != benchmark["version"]:
                continue
            cells = list(itertools.product(*result["params"]))
            measured = result["result"] if result["result"] is not None else [None] * len(cells)
            for cell, value in zip(cells, measured, strict=True):
                params = ", ".join(
                    f"{param}={text.strip(chr(39))}" for param, text in zip(benchmark["param_names"], cell, strict=True)
                )
                state = "failed" if value is None else "skipped" if math.isnan(value) else "ok"
                number = None if value is None else float(value)
                yield (
                    file.machine, file.environment, file.commit, file.date, name, params, number, benchmark["unit"],
                    state,
                )  # fmt: skip
