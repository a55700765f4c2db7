"""How to ask the gate which commit it was."""

import json
import shlex
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from kvbench.history.series import Series
from kvbench.judge.change_points import ChangePoint
from kvbench.judge.changes import Change
from kvbench.report.bisection import author_of, bisect_command, command_of, subject_of

ROOT = Path(__file__).resolve().parents[3]
OPERATION = {"operation": "store", "geometry": "pong", "batch": "8", "backend": "new:slab", "device": "cpu"}
REPLAY = {"trace": "synthetic-pong", "backend": "new:paged", "device": "cpu"}
FILL = {"fill": "sliding", "geometry": "wide", "backend": "new:paged", "device": "cpu"}
STORES, LOOKUPS = "operation[new:slab- and -store]", "operation[new:private- and -lookup]"
REPLAYED, FILLED = "replay[new:paged-", "fill[new:paged- and -sliding]"


@pytest.mark.parametrize(
    ("name", "unit", "cell", "metric", "keyword"),
    [
        ("operations.Operations.track_time", "us", OPERATION, "time", STORES),
        ("operations.Operations.track_time_over_legacy", "ratio", OPERATION, "time", STORES),
        ("operations.Operations.track_tensor_operations", "operations per call", OPERATION, "tensor_ops", STORES),
        # The gate has neither this size nor this storage's own lookups.
        ("operations.Operations.track_time", "us", OPERATION | {"geometry": "wide", "operation": "lookup"}, "time",
         LOOKUPS),
        ("replays.Replays.track_bytes_copied", "bytes per step", REPLAY, "bytes_copied", REPLAYED),
        ("replays.Replays.track_step_time", "us", REPLAY, "time", REPLAYED),
        ("replays.Recordings.track_evictions", "evictions", REPLAY, "evictions", REPLAYED),
        ("replays.Replays.track_stale_hit_rate", "%", REPLAY, "stale_hit", REPLAYED),
        ("replays.Replays.track_stale_hit_rate_in_small_pool", "%", REPLAY, "stale_hit_in_small_pool", REPLAYED),
        ("fills.Fills.track_step_time_over_legacy", "ratio", FILL, "time", FILLED),
    ],
)  # fmt: skip
def test_a_metric_of_asvs_is_asked_for_as_the_gate_calls_it(name, unit, cell, metric, keyword):
    series = Series("github", name, "", unit, np.array([]), np.array([]), np.array([]), cell)
    assert bisect_command(series, "a" * 40, "b" * 40) == f"kvbench bisect {metric} aaaaaaaa bbbbbbbb -k '{keyword}'"


@pytest.mark.parametrize(
    ("name", "unit", "cell"),
    [
        ("fills.Fills.track_forward_over_legacy", "ratio", FILL),
        ("replays.Replays.track_lookup_time", "us", REPLAY),  # the gate times whole steps
        ("operations.Operations.track_time", "us", OPERATION | {"backend": "legacy"}),
        ("operations.Growth.track_time", "us", {"point": "layers=4", "backend": "new:slab", "device": "cpu"}),
    ],
)
def test_what_the_gate_does_not_measure_is_not_asked_for(name, unit, cell):
    series = Series("github", name, "", unit, np.array([]), np.array([]), np.array([]), cell)
    assert bisect_command(series, "a" * 40, "b" * 40) == ""


@pytest.mark.parametrize(
    ("between", "subject", "author", "asked"),
    [(0, "one", "somebody", False), (None, "one", "somebody", False), (2, "one of 3 commits, the last: one", "", True)],
)
def test_of_a_range_the_last_commit_is_not_blamed(between, subject, author, asked):
    none = np.array([])
    series = Series("github", "operations.Operations.track_time", "", "us", none, none, none, OPERATION)
    point = ChangePoint(series, Change(4, 1.0, 2.0, 2.0), "b" * 40, "a" * 40, between, "somebody", "one", True)
    assert (subject_of(point), author_of(point)) == (subject, author)
    assert bool(command_of(point)) is asked


def cells(described):
    """Series of asv's benchmarks, without values."""
    none = np.array([])
    for name, each in described.items():
        if name != "version":
            for values in product(*each["params"]):
                cell = {key: value.strip("'") for key, value in zip(each["param_names"], values, strict=True)}
                yield Series("github", name, "", each["unit"], none, none, none, cell)


@pytest.mark.slow
def test_the_gate_has_benchmarks_for_every_command():
    """Of all that asv measured in this repository."""
    described = json.loads((ROOT / "benchmarks" / "results" / "benchmarks.json").read_text())
    commands = [shlex.split(bisect_command(each, "a", "b")) for each in cells(described)]
    keywords = {command[-1] for command in commands if command}
    assert len(keywords) > 20
    command = [sys.executable, "-m", "pytest", "benchmarks/gates", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    missing = [
        each for each in keywords if not any(all(word in line for word in each.split(" and ")) for line in listed)
    ]
    assert missing == []
