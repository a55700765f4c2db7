"""A storage, an eviction policy, a trace source and a metric are added to a copy of the packages, as docs/extending.md
says: in the files that it names, and nowhere else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```(?:python|text)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
(
    STORAGE,
    STORAGES_LINE,
    POLICY,
    STRATEGY_LINE,
    POLICIES_LINE,
    SOURCE,
    COMMAND,
    METRIC_LINE,
    COUNTS_LINE,
    COUNTED_LINE,
) = _BLOCK.findall((ROOT / "docs" / "extending.md").read_text())

CHECK_STORAGE = """
from kvbench.replay.operations import OPERATION_KINDS, operation_config, prepare_operation
from kvcache import BACKENDS, GEOMETRIES, make_backend

assert "new:mirrored" in BACKENDS
config = operation_config(GEOMETRIES["cartpole"], rows=2)
for kind in OPERATION_KINDS:
    prepare_operation(kind, make_backend("new:mirrored", config)).counts()  # raises where the content is wrong
import sys
sys.path.insert(0, "benchmarks")
from suite import operations, replays
assert "new:mirrored" in operations.BACKENDS
assert "new:mirrored" in replays.BACKENDS
sys.path.insert(0, "benchmarks/gates")
import test_gate_operations as gate
assert "new:mirrored" in gate.BACKENDS
import claim_traces
assert "new:mirrored" in claim_traces.STORAGES
"""

CHECK_POLICY = """
from kvcache import KVCachePool
pool = KVCachePool(2, "newest", storage="reference")
for key in (1, 2, 3):
    pool.set(key, object())
assert pool.get(1) is not None and pool.get(2) is None and pool.get(3) is not None
from kvbench.cli.replay import replay
assert "newest" in next(each for each in replay.params if each.name == "eviction").type.choices
"""

CHECK_SOURCE = """
from click.testing import CliRunner
from kvbench.cli import main
from kvbench.trace.reader import TraceReader
ran = CliRunner().invoke(main, ["record", "one", "one.parquet"], catch_exceptions=False)
assert ran.exit_code == 0, ran.output
TraceReader("one.parquet").check()
ran = CliRunner().invoke(main, ["replay", "one.parquet", "--repetitions", "0"], catch_exceptions=False)
assert ran.exit_code == 0, ran.output
"""

CHECK_METRIC = """
from click.testing import CliRunner
from kvbench.cli import main
trace = "benchmarks/traces/cartpole-lightzero-0.2.0-seed0.parquet"
command = ["replay", trace, "--searches", "2", "--repetitions", "0", "--json", "out.json"]
ran = CliRunner().invoke(main, command, catch_exceptions=False, env={"COLUMNS": "120"})
assert "largest write" in ran.output, ran.output
import json
assert "largest_write" in json.dumps(json.load(open("out.json")))
from kvbench.gate.thresholds import Thresholds
from pathlib import Path
path = Path("benchmarks/gates/thresholds.toml")
limit = Thresholds.parse(path.read_text(), path.name).limit_of("largest_write")
assert limit is not None and limit.direction == "lower"
import sys
sys.path.insert(0, "benchmarks")
from suite import operations, replays
assert hasattr(operations.Operations, "track_largest_write")
assert hasattr(replays.Replays, "track_largest_write")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what docs/extending.md speaks of, with the compiled parts that this environment has."""
    for name in ("kvcache", "kvbench"):
        package = __import__(name).__path__[0]
        shutil.copytree(package, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("suite", "gates", "traces"):
        shutil.copytree(ROOT / "benchmarks" / name, tmp_path / "benchmarks" / name)
    for path in (ROOT / "benchmarks").glob("*.py"):
        shutil.copy(path, tmp_path / "benchmarks")
    return tmp_path


def _insert(path: Path, before: str, text: str) -> None:
    """Put ``text`` in front of ``before``, which the file has once."""
    found = path.read_text()
    assert found.count(before) == 1, f"{path.name} has {found.count(before)} of {before!r}"
    path.write_text(found.replace(before, text + before))


def _run(checkout: Path, program: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout


def test_a_storage_takes_two_files(checkout):
    package = checkout / "kvcache" / "storage"
    (package / "mirrored.py").write_text(STORAGE)
    table = package / "__init__.py"
    _insert(table, "from kvcache.storage.paged", "from kvcache.storage.mirrored import MirroredStorage\n")
    _insert(table, '    "private": PrivateStorage,\n', STORAGES_LINE)
    _run(checkout, CHECK_STORAGE)


def test_an_eviction_policy_takes_two_files(checkout):
    package = checkout / "kvcache" / "eviction"
    (package / "newest.py").write_text(POLICY)
    table = package / "__init__.py"
    _insert(table, "from kvcache.eviction.priority", "from kvcache.eviction.newest import NewestPolicy\n")
    _insert(table, "    PRIORITY = ", STRATEGY_LINE)
    _insert(table, "    EvictionStrategy.PRIORITY: ", POLICIES_LINE)
    _run(checkout, CHECK_POLICY)


def test_a_trace_source_takes_two_files_and_its_test(checkout):
    (checkout / "kvbench" / "record" / "one.py").write_text(SOURCE)
    _insert(checkout / "kvbench" / "cli" / "record.py", "@record.command()\n@lightzero_options", COMMAND + "\n\n")
    _run(checkout, CHECK_SOURCE)


def test_a_metric_takes_two_files(checkout):
    _insert(checkout / "kvbench" / "metrics.py", '    Metric("synchronisations",', METRIC_LINE)
    counters = checkout / "kvbench" / "measure" / "counters.py"
    _insert(counters, "\n    def __add__", COUNTS_LINE)
    _insert(counters, "        counts.tensor_ops += 1\n        for storage", COUNTED_LINE)
    _run(checkout, CHECK_METRIC)
