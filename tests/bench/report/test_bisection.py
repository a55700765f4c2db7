"""How to ask the gate which commit it was."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kvbench.history.series import Series
from kvbench.report.bisection import bisect_command

ROOT = Path(__file__).resolve().parents[3]
OPERATION = {"operation": "store", "geometry": "pong", "batch": "8", "backend": "new:slab", "device": "cpu"}
REPLAY = {"trace": "synthetic-pong", "backend": "new:paged", "device": "cpu"}
FILL = {"fill": "sliding", "geometry": "wide", "backend": "new:paged", "device": "cpu"}
OPERATED, REPLAYED, FILLED = (
    "operation[new:slab-pong-store]", "replay[new:paged-synthetic-pong]", "fill[new:paged-wide-sliding]",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "unit", "cell", "asked"),
    [
        ("operations.Operations.track_time", "us", OPERATION, f"{OPERATED}:time"),
        ("operations.Operations.track_time_over_legacy", "ratio", OPERATION, f"{OPERATED}:time"),
        ("operations.Operations.track_tensor_operations", "operations per call", OPERATION, f"{OPERATED}:tensor_ops"),
        ("replays.Replays.track_bytes_copied", "bytes per step", REPLAY, f"{REPLAYED}:bytes_copied"),
        ("replays.Recordings.track_evictions", "evictions", REPLAY, f"{REPLAYED}:evictions"),
        ("replays.Replays.track_stale_hit_rate", "%", REPLAY, f"{REPLAYED}:stale_hit"),
        ("replays.Replays.track_stale_hit_rate_in_small_pool", "%", REPLAY, f"{REPLAYED}:stale_hit_in_small_pool"),
        ("fills.Fills.track_step_time_over_legacy", "ratio", FILL, f"{FILLED}:time"),
        ("fills.Fills.track_forward_over_legacy", "ratio", FILL, ""),
        ("operations.Growth.track_time", "us", {"point": "layers=4", "backend": "new", "device": "cpu"}, ""),
    ],
)
def test_a_metric_of_asvs_is_asked_for_as_the_gate_calls_it(name, unit, cell, asked):
    series = Series("github", name, "", unit, np.array([]), np.array([]), cell)
    command = bisect_command(series, "a" * 40, "b" * 40)
    assert command == (f"kvbench bisect '{asked}' aaaaaaaa bbbbbbbb" if asked else "")


@pytest.mark.slow
def test_the_gate_has_the_benchmarks_that_are_named():
    command = [sys.executable, "-m", "pytest", "benchmarks/gates", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"::test_{name}\n" in listed for name in (OPERATED, REPLAYED, FILLED))
