"""asv's result files as one tidy frame."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["COLUMNS", "DURATION_COLUMNS", "ResultsError", "load_durations", "load_machines", "load_results"]

COLUMNS = ("machine", "environment", "commit", "date", "benchmark", "params", "value", "unit", "state")
DURATION_COLUMNS = ("machine", "commit", "date", "build", "benchmarks")
RESULTS_VERSION = 2  # of asv's result files (asv 0.6)


class ResultsError(ValueError):
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
    rows = [row for path, content in _files(folder) for row in _rows(path, content, benchmarks)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["value"] = frame["value"].astype(float)
    frame["machine"] = _machines(frame)
    return _in_order(frame, ["date", "commit", "machine", "benchmark"])


def _machines(frame: pd.DataFrame) -> pd.Series:
    """Names of machines; with what tells its environments apart for one that measured a commit in more than one."""
    several = frame.groupby(["machine", "commit"])["environment"].nunique().groupby("machine").max() > 1
    names = {}
    for machine, environments in frame.groupby("machine")["environment"].unique().items():
        parts = [set(each.split("-")) for each in environments]
        common = set.intersection(*parts)
        for environment in environments if several[machine] else ():
            own = [part for part in environment.split("-") if part not in common]
            names[machine, environment] = f"{machine} ({' '.join(own) or environment})"
    pairs = zip(frame["machine"], frame["environment"], strict=True)
    return pd.Series([names.get(pair, pair[0]) for pair in pairs], frame.index, dtype=object)


def load_durations(folder: str | Path) -> pd.DataFrame:
    """How long asv took for each commit: what a run took beyond these is its own (checkout, discovery, processes).

    Args:
        folder: as in ``load_results``.

    Returns:
        ``machine``, ``commit``, ``date``, ``build`` (seconds to build the wheel and install it; NaN where it was in
        place already) and ``benchmarks`` (seconds), in the order of dates.

    Raises:
        ResultsError: as in ``load_results``.
    """
    rows = [_durations(path, content) for path, content in _files(Path(folder))]
    return _in_order(pd.DataFrame(rows, columns=list(DURATION_COLUMNS)), ["date", "commit", "machine"])


def load_machines(folder: str | Path) -> dict[str, dict[str, str]]:
    """What each machine is and what ran on it, as asv says of its last commit: by the machine's name.

    Raises:
        ResultsError: as in ``load_results``.
    """
    found: dict[str, tuple[pd.Timestamp, dict[str, str]]] = {}
    for path, content in _files(Path(folder)):
        try:
            described = {name: str(value) for name, value in content["params"].items() if name != "machine"}
            machine, _, _, date = _origin(content)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ResultsError(path, f"not what asv writes: {error!r}") from error
        if machine not in found or found[machine][0] <= date:
            found[machine] = date, described
    return {machine: described for machine, (_, described) in sorted(found.items())}


def _in_order(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    frame["date"] = pd.to_datetime(frame["date"], utc=True)
    return frame.sort_values(columns, kind="stable", ignore_index=True)


def _files(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every machine's result files."""
    for path in sorted(folder.glob("*/*.json")):
        if path.name != "machine.json":
            yield path, _read(path)


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


def _origin(content: dict[str, Any]) -> tuple[str, str, str, pd.Timestamp]:
    """Machine, environment, commit and its date."""
    machine, environment, commit = content["params"]["machine"], content.get("env_name", ""), content["commit_hash"]
    for each in (machine, environment, commit):
        if not isinstance(each, str):
            raise TypeError(f"{each!r} is no name")
    return machine, environment, commit, pd.Timestamp(int(content["date"]), unit="ms", tz="UTC")


def _durations(path: Path, content: dict[str, Any]) -> tuple[Any, ...]:
    try:
        spent = dict(content["durations"])
        build = spent.pop("<build>", math.nan)
        column = content["result_columns"].index("duration")
        each = [values[column] for values in content["results"].values() if len(values) > column]
        benchmarks = sum(spent.values()) + sum(seconds for seconds in each if seconds is not None)
        machine, _, commit, date = _origin(content)
        return machine, commit, date, build, benchmarks
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ResultsError(path, f"not what asv writes: {error!r}") from error


def _rows(path: Path, content: dict[str, Any], benchmarks: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    try:
        machine, environment, commit, date = _origin(content)
        for name, values in content["results"].items():
            benchmark = benchmarks.get(name)
            # asv cuts off what a row has nothing of, from the right.
            result = dict(zip(content["result_columns"], values, strict=False))
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
                yield machine, environment, commit, date, name, params, number, benchmark["unit"], state
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ResultsError(path, f"not what asv writes: {error!r}") from error
