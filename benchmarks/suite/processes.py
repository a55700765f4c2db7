"""Cells measured in several processes: noise is per process, and the middle of three leaves most of it out."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .bridge import ROOT

__all__ = ["measure_elsewhere", "middle"]

_HERE = "from suite.processes import measure_here; measure_here()"


def measure_elsewhere(benchmark: Any, count: int) -> list[dict[Any, Any]]:
    """The cells of a benchmark by so many further processes, one after the other, each with a hash seed of its own.

    Raises RuntimeError: a process failed, or measured another library.
    """
    seed = os.environ.get("PYTHONHASHSEED", "0")
    first = int(seed) if seed.isdecimal() else 0
    return [_measure(benchmark, first + number) for number in range(1, count + 1)]


def _measure(benchmark: Any, seed: int) -> dict[Any, Any]:
    paths = [str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": str(seed)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells"
        asked = pickle.dumps((str(path), type(benchmark).__module__, type(benchmark).__name__, benchmark.params))
        # The library is the installed one, and not that of the folder which asv happens to be in.
        command = [sys.executable, "-P", "-c", _HERE]
        done = subprocess.run(command, input=asked, env=os.environ | own, check=False, stderr=subprocess.PIPE)
        if done.returncode:
            raise RuntimeError(f"a process that measures failed: {done.stderr.decode(errors='replace')[-2000:]}")
        library, cells = pickle.loads(path.read_bytes())
    ours = importlib.import_module("kvcache").__file__
    if library != ours:
        raise RuntimeError(f"{ours} is measured, and a further process measured {library}")
    return dict(cells)


def measure_here() -> None:
    """In a further process: measure what standard input asks for, and write it where that says."""
    path, module, name, params = pickle.load(sys.stdin.buffer)
    benchmark = getattr(importlib.import_module(module), name)()
    benchmark.params, benchmark.processes = params, 1
    cells = benchmark.all_cells()
    Path(path).write_bytes(pickle.dumps((importlib.import_module("kvcache").__file__, cells)))


def middle(values: Sequence[Any]) -> Any:
    """Of cells, the middle of each number; of what is skipped or failed in one of the processes, that."""
    odd = next((each for each in values if not isinstance(each, (dict, int, float))), None)
    if odd is not None:
        return odd
    if isinstance(values[0], dict):
        return {name: middle([each[name] for each in values]) for name in values[0]}
    return median(values)
