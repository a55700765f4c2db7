"""asv's result files as one tidy frame."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["COLUMNS", "ResultsError", "load_results"]

COLUMNS = ("machine", "commit", "date", "benchmark", "params", "value", "unit", "state")
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
        ``machine``, ``commit`` (its full hash), ``date`` (of the commit, UTC), ``benchmark``, ``params``
        (``name=value, ...``), ``value``, ``unit``, ``state`` (``ok``, ``failed`` or ``skipped``; the latter two have
        no value), in the order of dates. Values measured by another version of a benchmark than ``benchmarks.json``
        describes are left out, as asv does.

    Raises:
        ResultsError: the folder holds no results, or a file is not what asv 0.6 writes.
    """
    folder = Path(folder)
    benchmarks = _read(folder / "benchmarks.json")
    rows = [
        row
        for path in sorted(folder.glob("*/*.json"))
        if path.name != "machine.json"
        for row in _rows(path, _read(path), benchmarks)
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["date"] = pd.to_datetime(frame["date"], unit="ms", utc=True)
    frame["value"] = frame["value"].astype(float)
    return frame.sort_values(["date", "commit", "machine", "benchmark"], kind="stable", ignore_index=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ResultsError(path, "no such file: is this asv's results_dir, and has 'asv run' been here?") from None
    except (OSError, ValueError) as error:
        raise ResultsError(path, f"cannot be read as JSON: {error}") from None
    if not isinstance(content, dict) or content.get("version") != RESULTS_VERSION:
        raise ResultsError(path, f"not asv's version {RESULTS_VERSION}")
    return content


def _rows(path: Path, content: dict[str, Any], benchmarks: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    try:
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
                yield (
                    content["params"]["machine"], content["commit_hash"], content["date"],
                    name, params, value, benchmark["unit"], state,
                )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(path, f"not what asv writes: {error!r}") from error
