"""Traces and replay results for tests of reports, made by the commands that users have."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from click.testing import CliRunner

from kvbench.cli import main
from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step, read_steps
from kvcache.geometry import GEOMETRIES, Geometry

__all__ = ["COMMITTED", "replay", "steps_of", "synthetic", "tiny"]

COMMITTED = Path(__file__).parents[3] / "benchmarks" / "traces" / "cartpole-lightzero-0.2.0-seed0.parquet"


def synthetic(path: Path, searches: int = 1) -> Path:
    """A synthetic trace of cartpole's geometry, with keys that are met again."""
    for _ in write_synthetic_trace(path, SyntheticSearch(GEOMETRIES["cartpole"], searches, 0, transpositions=0.2)):
        pass
    return path


def tiny(path: Path) -> Path:
    """One search of a model so small that a replay takes no time."""
    shape = Geometry("tiny", 2, 2, 16, 8, 2, 6, "absolute")
    for _ in write_synthetic_trace(path, SyntheticSearch(shape, 1, 0, transpositions=0.2)):
        pass
    return path


def steps_of(path: Path, searches: int | None = None) -> list[Step]:
    return [step for step in read_steps(TraceReader(path).events()) if searches is None or step.search < searches]


def replay(trace: Path, file: Path, *options: str) -> Path:
    """``kvbench replay`` of legacy and new: its result file."""
    arguments = ["replay", str(trace), "--backend", "legacy", "--backend", "new", *options, "--json", str(file)]
    with mock.patch.object(sys, "argv", ["kvcache", *arguments]):  # what the file says made it
        result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return file
