"""A good file of each kind that is read, to be mutated."""

import json
import tempfile
from pathlib import Path

from asv_files import commit_name, write_results
from msgspec import to_builtins
from training_files import backend, results

from kvbench.trace.schema import TraceHeader
from kvcache import GEOMETRIES

__all__ = [
    "BENCHMARKS", "DESCRIBED", "GATE", "HEADER", "PROFILE", "REPLAYS", "RESULT", "SEARCH", "TOML", "TRAINING",
    "asv_folder",
]  # fmt: skip

VALUES = {("x.track_a", "new"): [1.0, 2.0, 2.0], ("operations.Growth.track_time", "legacy"): [4.0, 5.0, 6.0]}


def asv_folder(folder, result=None, described=None):
    """asv's results, with other bytes for the second commit's file or for ``benchmarks.json``."""
    write_results(Path(folder), VALUES)
    if described is not None:
        (Path(folder) / "benchmarks.json").write_bytes(described)
    if result is not None:
        (Path(folder) / "vm" / f"{commit_name(1)}-env.json").write_bytes(result)
    return folder


def asv():
    with tempfile.TemporaryDirectory() as folder:
        path = asv_folder(Path(folder)) / "vm" / f"{commit_name(1)}-env.json"
        return json.loads(path.read_text()), json.loads((Path(folder) / "benchmarks.json").read_text())


STATS = {"min": 1, "q1": 2, "median": 3, "q3": 4, "max": 5, "rounds": 6}
RESULT, DESCRIBED = asv()
BENCHMARKS = {
    "machine_info": {"cpu": {"brand_raw": "chip"}, "python_version": "3.11"}, "datetime": "now",
    "commit_info": {"id": "abc", "dirty": False},
    "benchmarks": [{"name": f"test_operation[new-pong-{name}]", "fullname": name, "stats": STATS} for name in "ab"],
}  # fmt: skip
TRAINING = to_builtins(results(backend("legacy"), backend("new", first_difference="search 2")))
TRACE = {
    "file": "t.parquet", "sha256": "0" * 64, "events": 5, "searches": 1, "recurrent_steps": 2,
    "geometry": GEOMETRIES["cartpole"].to_dict(), "source": {"library": "x"}, "synthetic": True, "backend": None,
}  # fmt: skip
PROFILE = {
    "format": "kvcache-profile", "schema_version": 1, "created": "now", "command": ["profile"], "trace": TRACE,
    "settings": {"searches": 2}, "machine": {"cores": 2},
    "profiles": [{
        "backend": "new", "ranges": [],
        "files": [{"kind": "flame", "path": "flame.svg", "bytes": 3, "opens_with": "x"}],
    }],
}  # fmt: skip
OUTCOMES = dict.fromkeys(("lookups", "hit", "stale_hit", "context_mismatch", "miss", "wrong_content"), 3)
LATENCY = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "samples": 9, "percentiles": [float(each) for each in range(101)]}
POOLS = ("init", "recur", "wm", "batch")
ONE = {
    "name": "legacy", "latency_us": {"recurrent_step": LATENCY, "store": LATENCY}, "device_latency_us": None,
    "outcomes": {
        "root": OUTCOMES, "node": OUTCOMES, "total": OUTCOMES, "recorded_lookups": 0,
        "disagreements_with_recorded_run": 0, "faults": [],
    },
    "evictions": {"init": 1, "recur": 2}, "bytes_reserved": dict.fromkeys(POOLS, 8), "peak_bytes": 9,
    "counts": {"store": {"tensor_ops": 3}}, "counts_per_recurrent_step_median": {"tensor_ops": 3.0},
    "timeline": {
        "steps": [1, 2], "entries": {"init": [1, 2], "recur": [1, 2]},
        "bytes_reserved": {pool: [1, 2] for pool in POOLS},
        "by_simulation": [{"simulation": -1, "hit": 1}, {"simulation": 0, "miss": 2}],
        "by_depth": [{"depth": 1, "hit": 1}],
    },
}  # fmt: skip
RATIO = {"median": 2.0, "p25": 1.9, "p75": 2.1, "lowest_repetition": 1.8, "highest_repetition": 2.2}
REPLAYED = [
    {
        "trace": TRACE, "device": "cpu", "capacity": {"label": label, "recur": slots}, "baseline": "legacy",
        "backends": [ONE, {**ONE, "name": "new"}], "baseline_over_backend": {"legacy": RATIO, "new": RATIO},
    }
    for label, slots in (("default", None), ("recur=5", 5), ("recur=9", 9))
]  # fmt: skip
REPLAYS = {
    "format": "kvcache-replay", "schema_version": 2, "created": "now", "command": ["replay"],
    "settings": {"threads": 1},
    "machines": {"cpu": {"processor": "chip"}}, "replays": REPLAYED,
    "not_measured": [{"device": "cuda", "reason": "x"}],
}  # fmt: skip
GATE = {
    "base": "abc", "machine": {"cores": 2}, "pairs": 3, "seconds": 1.5, "rows": [{"benchmark": "a", "metric": "time"}],
}  # fmt: skip
SEARCH = {
    "geometry": GEOMETRIES["cartpole"].to_dict(), "searches": 1, "seed": 0, "recur_slots": None, "validated": False,
    "machine": {"cores": 2}, "backends": [],
}  # fmt: skip
HEADER = json.loads(TraceHeader.create(GEOMETRIES["cartpole"], {"library": "x", "seed": 0}, synthetic=True).to_json())
TOML = (Path(__file__).parents[2] / "benchmarks" / "gates" / "thresholds.toml").read_bytes()
