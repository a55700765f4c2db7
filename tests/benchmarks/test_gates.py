"""The gate's benchmarks: what they watch is fixed, and a broken cache fails them instead of being fast."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gates import test_gate_fills as fills
from gates import test_gate_operations as operations
from gates import test_gate_replays as replays

from kvbench.measure.counters import Counts
from kvbench.record.fills import FILLS
from kvbench.replay.operations import OPERATION_KINDS
from kvcache.geometry import GEOMETRIES
from kvcache.registry import BACKENDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

# Appended to a copy of the manager: its three ways of being broken, each at one geometry.
BROKEN = """

def _assemble(self, assemble=KVCacheManager.assemble):
    if self.geometry.name == "pong":
        raise RuntimeError("out of slots")
    sizes = assemble(self)
    if self.geometry.name == "cartpole":
        self._batch._view.heads[:, : len(sizes)] += 1
    return sizes


def _lookup(self, envs, keys, scope, lookup=KVCacheManager.lookup):
    if self.geometry.name == "visual-match":
        keys = [None if key is None else -1 for key in keys]
    return lookup(self, envs, keys, scope)


KVCacheManager.assemble, KVCacheManager.lookup = _assemble, _lookup
"""


def measure(folder, library, keyword):
    """Run gates around a library, metrics only: pytest's exit code, the benchmarks' numbers, and why tests failed."""
    numbers, outcomes = folder / "numbers.json", folder / "outcomes.xml"
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider",
        f"--benchmark-json={numbers}", f"--junitxml={outcomes}", "--gate-pass=metrics", "-k", keyword,
        str(ROOT / "benchmarks" / "gates"),
    ]  # fmt: skip
    environment = {"PYTHONPATH": str(library), "PATH": "/usr/bin:/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert outcomes.exists(), done.stdout + done.stderr
    measured = json.loads(numbers.read_text())["benchmarks"] if numbers.exists() else []
    cases = {case.get("name"): case.find("failure") for case in ElementTree.parse(outcomes).iter("testcase")}
    reasons = {name: None if failure is None else failure.get("message") for name, failure in cases.items()}
    return done.returncode, {each["name"]: each["extra_info"] for each in measured}, reasons


def test_what_is_watched_does_not_depend_on_what_is_installed():
    assert list(OPERATION_KINDS) == operations.KINDS
    assert set(operations.GEOMETRIES) <= set(GEOMETRIES)
    assert set(operations.BACKENDS) | set(replays.BACKENDS) <= set(BACKENDS)
    assert set(replays.NOT_TIMED) < set(replays.BACKENDS)
    assert set(replays.SEARCHES) == {*replays.TRACES, *replays.RECORDINGS}
    assert (list(FILLS), list(GEOMETRIES)) == (fills.FILLS, fills.GEOMETRIES)
    assert set(fills.BACKENDS) == set(operations.BACKENDS)
    assert all("," not in name for name in (*operations.KINDS, *operations.BACKENDS, *replays.SEARCHES))


def test_every_recorded_trace_is_watched():
    assert {path.stem for path in replays.COMMITTED.glob("*.parquet")} <= set(replays.SEARCHES)


def test_every_new_backend_that_copies_is_watched():
    others = {"new:reference", "new:auto"}  # which keeps what it is given, and which is one of the rest
    copying = {name for name in BACKENDS if name.startswith("new:")} - others
    assert copying <= set(operations.BACKENDS)
    assert copying <= set(replays.BACKENDS) - set(replays.NOT_TIMED)


def test_the_clock_of_replays_runs_while_the_backend_works_and_stands_otherwise():
    clock = replays.BackendClock()
    time.sleep(0.002)
    assert clock() == 0
    assert clock.meter("lookup", lambda *given: (time.sleep(0.002), given)[1], 1, 2) == (1, 2)
    worked = clock()
    assert worked >= 0.002
    time.sleep(0.002)
    assert clock() == worked


def test_metrics_of_one_operation(tmp_path):
    code, measured, _ = measure(tmp_path, ROOT, "private and cartpole and hash")
    ((name, extra),) = measured.items()
    assert (code, name, extra["timed"]) == (0, "test_operation[new:private-cartpole-hash]", False)
    assert set(extra["metrics"]) == {each.name for each in fields(Counts)}


def test_metrics_of_every_fill(tmp_path):
    code, measured, _ = measure(tmp_path, ROOT, "test_fill and paged and cartpole and not resident and not exact")
    assert (code, len(measured)) == (0, len(FILLS))
    counted = {name: extra["metrics"] for name, extra in measured.items()}
    assert {*counted["test_fill[new:paged-cartpole-full]"]} == {
        *(each.name for each in fields(Counts)), "bytes_reserved", "strided_bytes",
    }  # fmt: skip
    assert all(each["strided_bytes"] == 0 for each in counted.values())
    # A longer episode moves more: what is called sliding is no start.
    moved = [counted[f"test_fill[new:paged-cartpole-{each}]"]["bytes_copied"] for each in ("start", "full", "sliding")]
    assert sorted(set(moved)) == moved


@pytest.fixture(scope="module")
def reasons(tmp_path_factory):
    """Why the benchmarks of a broken cache failed, by their names."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(ROOT / "kvcache", folder / "kvcache", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "kvcache" / "manager.py").open("a") as file:
        file.write(BROKEN)
    code, _, found = measure(
        folder, folder, "private and (retrieve or replay or sliding) and (cartpole or pong or visual-match)"
    )
    assert code == 1
    return found


@pytest.mark.parametrize(
    ("geometry", "trace", "of_operation", "of_replay"),
    [
        (
            "cartpole",
            replays.TRACES[0],
            "row 0 of the batch is not what was stored",
            "returned wrong content: search 0",
        ),
        ("pong", "synthetic-pong", "RuntimeError: out of slots", "RuntimeError: out of slots"),
        ("visual-match", "synthetic-visual-match", "and lookup returned [-1, ", "nothing found under key"),
    ],
    ids=["wrong content", "raises", "finds nothing"],
)
def test_a_broken_cache_fails_with_its_reason(reasons, geometry, trace, of_operation, of_replay):
    assert of_operation in reasons[f"test_operation[new:private-{geometry}-retrieve]"]
    assert of_replay in reasons[f"test_replay[new:private-{trace}]"]
    assert of_replay in reasons[f"test_fill[new:private-{geometry}-sliding]"]
