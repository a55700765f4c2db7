"""Two whole reports: one of real numbers, and one in which whatever a file can name is hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from asv_files import write_results
from git_history import make_history
from replay_files import replay, synthetic
from search_files import write_searches
from training_files import backend, results

from kvbench.replay.summary import describe_trace
from kvbench.report import Inputs, build_report
from kvbench.results.decode import write_json
from kvbench.results.gpu import GpuPart, GpuResults, GpuRow
from kvbench.results.profile import FORMAT, INDEX, SCHEMA_VERSION
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceHeader
from kvbench.trace.writer import TraceWriter

__all__ = ["HISTORY", "HOSTILE", "SEEN", "make_hostile", "make_plain"]

HISTORY = {
    ("x.track_bytes_reserved", "new"): [100.0, 100.0, 250.5, 250.5],
    ("x.track_bytes_reserved", "legacy"): [400.0] * 4,
    ("operations.Growth.track_time", "new"): [1.25, 1.5, 1.75, 123456.789],
}
CAPACITIES = ("default", "recur=20", "recur=100", "recur=50KB", "recur=100KB")

HOSTILE = "<script>alert('$x^2$')</script>\"&'\x00\x1b]{{7*7}}-->"
SEEN = "<script>alert('$x^2$')</script>\"&'"


def make_plain(folder: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    """The replays in the JSON file, and the pages; trace and results lie in the folder."""
    trace = synthetic(folder / "trace.parquet")
    capacities = [f"--capacity={each}" for each in CAPACITIES]
    file = replay(trace, folder / "replay.json", "--repetitions", "1", *capacities)
    history = write_results(folder / "results", HISTORY, units={"x.track_bytes_reserved": "bytes"})
    training = folder / "training.json"
    write_json(training, results(backend("legacy"), backend("new"), backend("new:slab", first_difference="search 2")))
    searches = write_searches(folder / "search.json", "legacy", "new")
    inputs = Inputs(history, [file], [], [trace], repository=folder, trainings=[training], searches=[searches])
    pages = build_report(inputs, folder / "html")
    return json.loads(file.read_text())["replays"], pages


def make_hostile(folder: Path) -> list[Path]:
    """The pages of a report whose inputs are hostile wherever a text may stand."""
    repository, names = make_history(folder / "repository", [f"{SEEN}{{{{7*7}}}} {number}" for number in range(8)])
    inputs = Inputs(
        _results(folder / "results", names),
        [_replay(folder)],
        [_benchmark(folder / "benchmark.json")],
        [folder / TRACE],
        folder / "profile",
        repository,
        command=f"kvcache {SEEN}",
        trainings=[_training(folder / "training<script>.json")],
        searches=[_searches(folder / "search<script>.json")],
        gpus=[_gpu(folder / "gpu<script>.json")],
        gate=_gate(folder / "gate<script>.json"),
    )
    (folder / "profile").mkdir()
    name = "<img src=x onerror=alert(1)>#?.json"
    (folder / "profile" / name).write_text("{}")
    file = {"kind": SEEN, "path": name, "bytes": 2, "opens_with": SEEN}
    index = {
        "format": FORMAT, "schema_version": SCHEMA_VERSION, "created": SEEN, "command": ["profile", SEEN],
        "trace": describe_trace(TraceReader(folder / TRACE), []) | {"file": SEEN}, "settings": {SEEN: SEEN},
        "machine": {SEEN: SEEN}, "profiles": [{"backend": SEEN, "files": [file], "ranges": []}],
    }  # fmt: skip
    (folder / "profile" / INDEX).write_text(json.dumps(index))
    return build_report(inputs, folder / "html")


TRACE = "<script>alert(1)<script>.parquet"


def _results(folder: Path, names: list[str]) -> Path:
    values: dict[tuple[str, str], list[float]] = {
        (f"suite.track_{HOSTILE}", f"{HOSTILE}{number}"): np.repeat([1.0, 2.0], 4).tolist() for number in range(2)
    }
    values[f"suite.track_time{HOSTILE}", "legacy"] = np.arange(1.0, 9.0).tolist()
    write_results(folder, values, commits=names, units=dict.fromkeys((name for name, _ in values), HOSTILE))
    for file in folder.glob("vm/*-env.json"):
        content = json.loads(file.read_text())
        content["params"] |= {"machine": HOSTILE, "cpu": HOSTILE, HOSTILE: HOSTILE}
        file.write_text(json.dumps(content))
    return folder


def _replay(folder: Path) -> Path:
    reader = TraceReader(synthetic(folder / "trace.parquet"))
    header = TraceHeader(reader.header.geometry, {HOSTILE: HOSTILE, "library": HOSTILE}, True, recorder=HOSTILE)
    with TraceWriter(folder / TRACE, header) as writer:
        for event in reader.events():
            writer.add(**event)
    capacities = ("--capacity", "recur=20", "--capacity", "recur=50")
    file = replay(folder / TRACE, folder / "replay.json", "--repetitions", "1", *capacities)
    content = json.loads(file.read_text())
    content["command"] = ["replay", HOSTILE]
    content["machines"]["cpu"]["processor"] = HOSTILE
    content["not_measured"] = [{"device": HOSTILE, "reason": HOSTILE}]
    for each in content["replays"]:
        each["trace"]["file"] = each["trace"]["geometry"]["name"] = each["device"] = each["capacity"]["label"] = HOSTILE
        each["baseline_over_backend"][HOSTILE] = each["baseline_over_backend"]["new"]
        each["backends"][1]["name"] = HOSTILE
    file.write_text(json.dumps(content))
    return file


def _gpu(path: Path) -> Path:
    part = GpuPart(name=SEEN, status="failed", seconds=1, reason=SEEN)
    row = GpuRow(part=SEEN, name=SEEN, value=1, unit=SEEN, wanted=SEEN, holds=False, reason=SEEN)
    told = {"date": SEEN, "device": "cuda", "quick": True, "card": {"name": SEEN, SEEN: SEEN}, "machine": {SEEN: SEEN}}
    write_json(path, GpuResults(**told, parts=[part], rows=[row]))
    return path


def _gate(path: Path) -> Path:
    row = {"benchmark": HOSTILE, "metric": HOSTILE, "verdict": "worse", "base": 1, "head": 2, "reason": HOSTILE}
    content = {"base": HOSTILE, "machine": {"kvcache_commit": HOSTILE}, "pairs": 1, "seconds": 1, "rows": [row]}
    path.write_text(json.dumps(content))
    return path


def _training(path: Path) -> Path:
    texts = {"ended_with": HOSTILE, "first_difference": HOSTILE}
    write_json(path, results(backend(HOSTILE), backend(f"{HOSTILE}2", **texts)))
    content = json.loads(path.read_text())
    content |= {"environment": HOSTILE, "library": HOSTILE, "command": [HOSTILE], "machine": {HOSTILE: HOSTILE}}
    content |= {"settings": {HOSTILE: {HOSTILE: [HOSTILE]}}, "packages": {HOSTILE: HOSTILE}}
    path.write_text(json.dumps(content))
    return path


def _searches(path: Path) -> Path:
    content = json.loads(write_searches(path, HOSTILE, f"{HOSTILE}2").read_text())
    content |= {"machine": {HOSTILE: HOSTILE}, "command": [HOSTILE]}
    content["geometry"]["name"] = HOSTILE
    path.write_text(json.dumps(content))
    return path


def _benchmark(path: Path) -> Path:
    stats = {"min": 1, "q1": 2, "median": 3, "q3": 4, "max": 5, "rounds": 6}
    content = {
        "machine_info": {"cpu": {"brand_raw": HOSTILE}, "python_version": HOSTILE},
        "datetime": HOSTILE,
        "commit_info": {"id": HOSTILE},
        "benchmarks": [{"name": HOSTILE, "stats": stats}],
    }
    path.write_text(json.dumps(content))
    return path
