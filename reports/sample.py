"""Makes ``reports/sample``: a real report that is small enough to keep, of a few searches and a part of the history.

``python reports/sample.py`` measures anew and replaces the folder. CI keeps full reports as artifacts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["LARGEST", "SAMPLE", "main", "size_of"]

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "reports" / "sample"
TRACE = ROOT / "benchmarks" / "traces" / "cartpole-lightzero-0.2.0-seed0.parquet"
LARGEST = 500_000  # bytes of the whole folder
KEPT = tuple(f"replays.Replays.track_{name}" for name in ("step_time", "tensor_operations", "bytes_reserved", "stale"))
HISTORIES = 1


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def part_of_history(folder: Path) -> None:
    """Copy asv's results, with the replays' benchmarks only."""
    shutil.copytree(ROOT / "benchmarks" / "results", folder)
    for file in folder.rglob("*.json"):
        content = json.loads(file.read_text())
        if file.name == "benchmarks.json":
            content = {name: each for name, each in content.items() if name == "version" or name.startswith(KEPT)}
        elif "results" in content:
            content["results"] = {name: each for name, each in content["results"].items() if name.startswith(KEPT)}
        file.write_text(json.dumps(content))


def main() -> None:
    kvbench = [sys.executable, "-m", "kvbench"]
    with tempfile.TemporaryDirectory() as folder:
        results, replay = Path(folder) / "results", Path(folder) / "replay.json"
        part_of_history(results)
        subprocess.run(
            [*kvbench, "replay", TRACE, "--searches", "6", "--repetitions", "2",
             "--capacity", "recur=50", "--json", replay],
            check=True,
        )  # fmt: skip
        shutil.rmtree(SAMPLE, ignore_errors=True)
        subprocess.run(
            [*kvbench, "report", "--replay", replay, "--results", results, "--repository", ROOT, "--output", SAMPLE,
             "--histories", str(HISTORIES), "--command", "python reports/sample.py"],
            check=True,
        )  # fmt: skip
    print(f"{SAMPLE}: {size_of(SAMPLE):,} bytes, at most {LARGEST:,}")


if __name__ == "__main__":
    main()
