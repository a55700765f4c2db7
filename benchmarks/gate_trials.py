"""Tries the gate: plants changes in a clone of this repository, runs the gate on them and counts what it says.

Usage: python benchmarks/gate_trials.py SERIES... [--runs 20] [--load] [--pairs 20] [--budget 900] [--output FILE]
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from gate_series import SERIES, Change, Series

from kvbench.judge.verdict import Verdict
from kvbench.measure.machine import Machine

ROOT = Path(__file__).parents[1]


@click.command(help=__doc__)
@click.argument("names", type=click.Choice(list(SERIES)), nargs=-1, required=True)
@click.option("--runs", default=20, show_default=True)
@click.option("--load", is_flag=True, help="Keep another core busy meanwhile.")
@click.option("--pairs", default=20, show_default=True, help="Pairs of processes of each gate run, at most.")
@click.option("--budget", default=900.0, show_default=True, help="Seconds of each gate run, at most.")
@click.option("--output", type=click.Path(path_type=Path), help="Append a line of JSON for every run.")
def main(names: tuple[str, ...], runs: int, load: bool, pairs: int, budget: float, output: Path | None) -> None:
    print(Machine.describe(), "; another core kept busy" if load else "")
    limits = ("--pairs", str(pairs), "--budget", str(budget))
    with tempfile.TemporaryDirectory() as folder, _load() if load else contextlib.nullcontext():
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for name in names:
            found = []
            for number in range(runs):
                change = SERIES[name].changes[number % len(SERIES[name].changes)]
                subprocess.run(["git", "checkout", "--quiet", "."], cwd=clone, check=True)
                change.plant(clone)
                found.append({"series": name, "load": load} | _run(clone, SERIES[name], change, limits))
                print(f"{name} {number + 1}: {found[-1]}", flush=True)
                if output is not None:
                    with output.open("a") as file:
                        file.write(json.dumps(found[-1]) + "\n")
            print(_summary(SERIES[name], found), flush=True)


def _run(clone: Path, series: Series, change: Change, limits: tuple[str, ...]) -> dict[str, object]:
    """One gate run: its exit code, which rows failed or are not decided, and how long it took."""
    verdicts = clone.parent / "verdicts.json"
    verdicts.unlink(missing_ok=True)
    keyword = ("-k", change.keyword) if series.is_narrow else ()
    began = time.monotonic()
    done = subprocess.run(
        [
            sys.executable, "-m", "kvbench", "gate", "--base", "HEAD", "--json", str(verdicts), *limits, *keyword,
            *series.options,
        ],
        cwd=clone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = round(time.monotonic() - began, 1)
    if not verdicts.exists():
        return {"change": change.name, "exit": done.returncode, "seconds": seconds, "said": done.stderr[-500:]}
    found = json.loads(verdicts.read_text())
    return {
        "change": change.name,
        "exit": done.returncode,
        "seconds": seconds,
        "pairs": found["pairs"],
        "rows": len(found["rows"]),
        "fail": [_named(row) for row in found["rows"] if Verdict(row["verdict"]).fails],
        "undecided": [_named(row) for row in found["rows"] if row["verdict"] == Verdict.NOT_DECIDED],
    }


def _named(row: dict) -> str:
    ratio = f" {row['ratio']:.3f}" if row["ratio"] else ""
    return f"{row['benchmark']} {row['metric']}{ratio}"


def _summary(series: Series, found: list[dict]) -> str:
    """A row of the table in benchmarks/gates/README.md."""
    right = sum(run["exit"] in series.wanted for run in found)
    exits = ", ".join(f"{code}: {count}" for code, count in sorted(Counter(run["exit"] for run in found).items()))
    fail, undecided = (sum(len(run.get(name, ())) for run in found) for name in ("fail", "undecided"))
    seconds = [run["seconds"] for run in found]
    return (
        f"| {series.what} | **{right}** of {len(found)} | {exits} | {fail} | {undecided} of "
        f"{sum(run.get('rows', 0) for run in found)} | {statistics.median(run.get('pairs', 0) for run in found):.0f} | "
        f"{statistics.median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f}) |"
    )


@contextlib.contextmanager
def _load() -> Iterator[None]:
    """A neighbour that computes and moves memory, as a training run would."""
    code = (
        "import torch; torch.set_num_threads(1); a = torch.rand(512, 512); b = torch.rand(8_000_000)\n"
        "while True: a @ a; b.add_(1.0)"
    )
    neighbour = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


if __name__ == "__main__":
    main()
