"""Tries the gate: plants changes in a clone of this repository, runs the gate on them and counts what it says.

Usage: python benchmarks/gate_trials.py SERIES... [--runs 20] [--load] [--budget 300] [--output FILE]
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from kvbench.measure.machine import Machine

ROOT = Path(__file__).parents[1]
PLANTED_IN = Path("kvcache") / "manager.py"

# Appended to the manager's module: methods are replaced by ones that do a little more.
SLOWED = """

def _slowed(method, share):
    import time

    def slowed(method, own):
        def slow(*arguments):
            start = time.perf_counter_ns()
            result = method(*arguments)
            end = start + (time.perf_counter_ns() - start) * (1 + share) - own
            while time.perf_counter_ns() < end:
                pass
            return result

        return slow

    # What the wrapper costs of itself is no part of what is planted.
    laps = []
    probe = slowed(min, 0)
    for _ in range(2000):
        before = time.perf_counter_ns()
        probe(1, 2)
        between = time.perf_counter_ns()
        min(1, 2)
        laps.append(2 * between - before - time.perf_counter_ns())
    return slowed(method, sorted(laps)[len(laps) // 2])


KVCacheManager.{method} = _slowed(KVCacheManager.{method}, {share})
"""
ADDED = """

def _added(method):
    import torch

    one, other = torch.zeros(1), torch.zeros(1)

    def more(*arguments):
        result = method(*arguments)
        {statement}
        return result

    return more


KVCacheManager.{method} = _added(KVCacheManager.{method})
"""
# The first lookup that would miss asks for some other key.
STALE = """

def _stale(lookup):
    def found(self, envs, keys, scope):
        keys = list(keys)
        for row, (env, key) in enumerate(zip(envs, keys)):
            missing = key is not None and key not in self.init_pools[env] and key not in self.recur_pool
            if missing and scope is Scope.NODE and len(self.recur_pool) and not getattr(self, "_was_stale", False):
                self._was_stale = True
                keys[row] = next(iter(self.recur_pool))
        return lookup(self, envs, keys, scope)

    return found


KVCacheManager.lookup = _stale(KVCacheManager.lookup)
"""

# Methods, and the benchmarks that are about them.
BENCHMARKS = {
    "hash_states": "hash",
    "lookup": "lookup",
    "assemble": "assemble",
    "store": "store or slide",
    "clear_recur_cache": "clear",
}


@dataclass(frozen=True)
class Series:
    """One kind of trial.

    Attributes:
        what: for the table.
        wanted: what the gate should say in a run.
        methods: where the change is planted, in turn.
        plant: source to append; empty for none.
        with_times: whether times are measured.
        keyword: of the benchmarks; None takes the method's own.
    """

    what: str
    wanted: str
    methods: tuple[str, ...] = ("assemble",)
    plant: str = ""
    with_times: bool = False
    keyword: str | None = None


COSTLY = ("assemble", "store")  # 3 % of the others is less than planting it costs
SERIES = {
    "same": Series("a commit against itself", "no worse", with_times=True, keyword=""),
    "slower-10": Series(
        "one operation 10 % slower",
        "worse",
        ("assemble", "store", "hash_states", "lookup"),
        SLOWED.replace("{share}", "0.10"),
        with_times=True,
    ),
    "slower-3": Series(
        "one operation 3 % slower", "no worse", COSTLY, SLOWED.replace("{share}", "0.03"), with_times=True
    ),
    "copy": Series(
        "one tensor copy more", "worse", tuple(BENCHMARKS), ADDED.replace("{statement}", "one.copy_(other)")
    ),
    "allocation": Series(
        "one allocation more", "worse", tuple(BENCHMARKS), ADDED.replace("{statement}", "torch.empty(1)")
    ),
    "stale": Series("one stale hit more", "worse", plant=STALE, keyword="replay"),
}


@click.command(help=__doc__)
@click.argument("names", type=click.Choice(list(SERIES)), nargs=-1, required=True)
@click.option("--runs", default=20, show_default=True)
@click.option("--load", is_flag=True, help="Keep another core busy meanwhile.")
@click.option("--budget", default=300.0, show_default=True, help="Seconds of each gate run.")
@click.option("--output", type=click.Path(path_type=Path), help="Append a line of JSON for every run.")
def main(names: tuple[str, ...], runs: int, load: bool, budget: float, output: Path | None) -> None:
    print(Machine.describe(), "; another core kept busy" if load else "")
    with tempfile.TemporaryDirectory() as folder, _load() if load else contextlib.nullcontext():
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        original = (clone / PLANTED_IN).read_text()
        for name in names:
            found = []
            for number in range(runs):
                series = SERIES[name]
                method = series.methods[number % len(series.methods)]
                (clone / PLANTED_IN).write_text(original + series.plant.replace("{method}", method))
                found.append(_run(clone, series, method, budget) | {"series": name, "method": method, "load": load})
                print(f"{name} {number + 1}: {found[-1]}", flush=True)
                if output is not None:
                    with output.open("a") as file:
                        file.write(json.dumps(found[-1]) + "\n")
            print(_summary(SERIES[name], found), flush=True)


def _run(clone: Path, series: Series, method: str, budget: float) -> dict[str, object]:
    """One gate run: which benchmarks it called what, and how long it took."""
    verdicts = clone / "verdicts.json"
    verdicts.unlink(missing_ok=True)
    keyword = BENCHMARKS[method] if series.keyword is None else series.keyword
    options = ["--budget", str(budget), "-k", keyword, *([] if series.with_times else ["--no-times"])]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "kvbench", "gate", "--base", "HEAD", "--json", str(verdicts), *options],
        cwd=clone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not verdicts.exists():
        raise RuntimeError(f"the gate gave no verdict:\n{done.stdout}{done.stderr}")
    rows = json.loads(verdicts.read_text())["rows"]
    timed = [row for row in rows if row["metric"] == "time"]
    judged = timed if series.with_times else [row for row in rows if row["metric"] != "time"]
    fails = ("worse", "gone", "failed")
    return {
        "exit": done.returncode,
        "worse": sorted({f"{row['benchmark']} {row['metric']}" for row in judged if row["verdict"] in fails}),
        "inconclusive": sorted(row["benchmark"] for row in timed if row["verdict"] == "inconclusive"),
        "benchmarks": len({row["benchmark"] for row in judged}),
        "ratios": {row["benchmark"]: round(row["ratio"], 4) for row in timed if row["ratio"]},
        "other_failures": [row["reason"] for row in rows if row["verdict"] in fails and row not in judged],
        "seconds": round(time.monotonic() - began, 1),
    }


def _summary(series: Series, found: list[dict]) -> str:
    worse = sum(bool(run["worse"]) for run in found)
    undecided = sum(bool(run["inconclusive"]) and not run["worse"] for run in found)
    rows = sum(len(run["worse"]) for run in found)
    benchmarks = sum(run["benchmarks"] for run in found)
    seconds = sorted(run["seconds"] for run in found)
    return (
        f"{series.what}: called worse in {worse} of {len(found)} runs (wanted: {series.wanted}); {undecided} runs "
        f"inconclusive; {rows} verdicts 'worse' on {benchmarks} benchmarks; {seconds[len(seconds) // 2]:.0f} s a run "
        f"({seconds[0]:.0f} to {seconds[-1]:.0f})"
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
