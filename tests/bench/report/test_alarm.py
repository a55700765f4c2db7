"""What a night tells of: which commit, which metric, how much; and how to ask which commit it was."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kvbench.history.series import Series
from kvbench.judge.change_points import ChangePoint
from kvbench.judge.changes import Change
from kvbench.report.alarm import alarm_text, bisect_command, new_regressions

ROOT = Path(__file__).resolve().parents[3]
OPERATION = {"operation": "store", "geometry": "pong", "batch": "8", "backend": "new:slab", "device": "cpu"}
COUNTED = "operations.Operations.track_tensor_operations"


def series(benchmark=COUNTED, unit="operations per call", cell=OPERATION):
    params = ", ".join(f"{name}={value}" for name, value in cell.items())
    return Series("github", benchmark, params, unit, np.array([]), np.array([]), cell)


def point(of=None, ratio=1.25, commit="b" * 40, between=0, subject="faster @everyone, see #1", is_new=True):
    change = Change(3, 40.0, 40.0 * ratio, ratio, 0.9987)
    return ChangePoint(of or series(), change, commit, "a" * 40, between, "somebody", subject, is_new)


def test_nothing_new_is_nothing_to_tell():
    assert alarm_text([], "since v1") == ""
    assert alarm_text([point(is_new=False), point(ratio=0.8)], "since v1") == ""


def test_which_commit_which_metric_and_how_much():
    lines = alarm_text([point()], "since v1").splitlines()
    assert lines[0] == "### 1 commit made something worse, since v1"
    assert lines[2] == "- **bbbbbbbb** faster \\@everyone, see \\#1 (somebody): 1 metric"
    assert lines[3].startswith("  - Operations.tensor_operations, operation=store, geometry=pong, ")
    assert lines[3].endswith(", on github: +25.0 % (40 to 50 operations per call), 100 % certain")
    assert lines[4] == "  - `kvbench bisect 'operation[new:slab-pong-store]:tensor_ops' aaaaaaaa bbbbbbbb`"


def test_commits_that_were_not_measured_are_told():
    assert "3 commits between aaaaaaaa and it were not measured" in alarm_text([point(between=3)], "")
    assert "an unknown number of commits" in alarm_text([point(between=None)], "")


def test_a_metric_that_was_nothing_has_no_percentage():
    assert ": from nothing (" in alarm_text([point(ratio=float("inf"))], "")


def test_many_metrics_of_a_commit_are_counted():
    text = alarm_text([point() for _ in range(14)] + [point(commit="c" * 40)], "since v1")
    assert text.startswith("### 2 commits made something worse")
    assert "(somebody): 14 metrics" in text
    assert "  - and 4 more, in the report" in text
    assert text.count("kvbench bisect") == 2


def test_what_fails_is_told_without_change_points():
    text = alarm_text([], "since v1", ["Fills.time fails since abc: an error"])
    assert text.splitlines()[2] == "- Fills.time fails since abc: an error"
    assert not new_regressions([point(is_new=False)])


REPLAY = {"trace": "synthetic-pong", "backend": "new:paged", "device": "cpu"}
REPLAYED = "replay[new:paged-synthetic-pong]"
FILL = {"fill": "sliding", "geometry": "wide", "backend": "new:paged", "device": "cpu"}


@pytest.mark.parametrize(
    ("name", "unit", "cell", "asked"),
    [
        ("operations.Operations.track_time", "us", OPERATION, "operation[new:slab-pong-store]:time"),
        ("operations.Operations.track_time_over_legacy", "ratio", OPERATION, "operation[new:slab-pong-store]:time"),
        (
            "replays.Replays.track_bytes_copied",
            "bytes per step",
            REPLAY,
            "replay[new:paged-synthetic-pong]:bytes_copied",
        ),
        ("fills.Fills.track_step_time_over_legacy", "ratio", FILL, "fill[new:paged-wide-sliding]:time"),
        ("fills.Fills.track_forward_over_legacy", "ratio", FILL, ""),
        ("operations.Growth.track_time", "us", {"point": "layers=4", "backend": "new", "device": "cpu"}, ""),
    ],
)
def test_a_metric_of_asvs_is_asked_for_as_the_gate_calls_it(name, unit, cell, asked):
    command = bisect_command(point(series(name, unit, cell)))
    assert command == (f"kvbench bisect '{asked}' aaaaaaaa bbbbbbbb" if asked else "")


@pytest.mark.slow
def test_the_gate_has_the_benchmarks_that_are_named():
    command = [sys.executable, "-m", "pytest", "benchmarks/gates", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in ("operation[new:slab-pong-store]", "replay[new:paged-synthetic-pong]", "fill[new:paged-wide-sliding]"):
        assert f"::test_{name}\n" in listed
