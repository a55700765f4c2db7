"""What docs/sweeps.md says of sweeps: ``python benchmarks/sweep_claims.py``. It takes some minutes.

One plan runs on two workers, on one, and on two of which one is killed, and then the client; the same command goes on.
All three folders must have the same cells, equal in every exact column, and nothing else may be left.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from kvbench.measure.machine import Machine
from kvbench.results.sweep import COLUMNS, read_sweep

TRACES = Path(__file__).parent / "traces"
EXACT = [each.name for each in COLUMNS if each.exact]
_PATIENCE = 600  # seconds for anything
PLAN = """
trace = [{traces}]
backend = ["legacy", "new"]
storage = ["private", "slab", "paged"]
capacity = ["default", "recur=1/2", "recur=1/4", "recur=1/8B"]
eviction = ["fifo", "lru", "priority"]
searches = {searches}
"""


@dataclass
class Sweeps:
    """Sweeps of a plan, with temporary folders of their own."""

    plan: Path
    temporary: Path

    def start(self, output: Path, workers: int) -> subprocess.Popen[str]:
        """Start the command."""
        command = [sys.executable, "-P", "-m", "kvbench", "sweep", str(self.plan), "--output", str(output),
                   "--workers", str(workers)]  # fmt: skip
        own = os.environ | {"TMPDIR": str(self.temporary)}
        return subprocess.Popen(command, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, output: Path, workers: int) -> float:
        """Run it to its end; seconds."""
        start = time.monotonic()
        said, _ = (process := self.start(output, workers)).communicate(timeout=_PATIENCE)
        assert process.returncode == 0, said
        return time.monotonic() - start

    def run_killed(self, output: Path, worker_after: int, client_after: int) -> int:
        """Kill a worker, then the client, and run the command again; the cells that were there before that."""
        client = self.start(output, workers=2)
        try:
            wait_until(lambda: files_of(output) >= worker_after)
            os.kill(workers_of(client.pid)[0].pid, signal.SIGKILL)
            wait_until(lambda: files_of(output) >= client_after)
            processes = psutil.Process(client.pid).children(recursive=True)
        finally:
            client.kill()
            client.communicate()
        wait_until(lambda: not any(is_alive(each) for each in processes))
        there = files_of(output)
        self.run(output, workers=2)
        return there

    def left_over(self, output: Path) -> list[str]:
        """What is in the temporary folder, and what is half written."""
        return [each.name for folder in (self.temporary, output) for each in folder.glob("*")
                if folder == self.temporary or each.name.endswith(".tmp")]  # fmt: skip


def files_of(output: Path) -> int:
    """The cells that are there."""
    return len([each for each in output.glob("*.parquet") if not each.name.startswith(".")])


def workers_of(client: int) -> list[psutil.Process]:
    """The processes of Dask's workers."""
    children = psutil.Process(client).children()
    return [each for each in children if any("dask_worker" in part for part in each.cmdline())]


def is_alive(process: psutil.Process) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait, but not for ever."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < _PATIENCE, "nothing happened"
        time.sleep(0.05)


def exact_columns(output: Path) -> pd.DataFrame:
    """The exact columns of a folder, by cell."""
    return read_sweep(output)[EXACT].set_index("cell").sort_index()


def main(searches: int) -> None:
    """Print the figures."""
    names = ("cartpole-lightzero-0.2.0-seed0.parquet", "minigrid-lightzero-0.2.0-seed0.parquet")
    traces = ", ".join(f'"{TRACES / each}"' for each in names)
    with tempfile.TemporaryDirectory(prefix="sweep-claims") as place:
        folder = Path(place)
        (folder / "tmp").mkdir()
        (folder / "plan.toml").write_text(PLAN.format(traces=traces, searches=searches))
        sweeps = Sweeps(folder / "plan.toml", folder / "tmp")
        print(f"load before: {os.getloadavg()[0]:.1f}; {Machine.describe()}")
        there = sweeps.run_killed(folder / "killed", 10, 30)
        seconds = {workers: sweeps.run(folder / f"of {workers}", workers) for workers in (2, 1)}
        frames = [exact_columns(folder / name) for name in ("of 2", "of 1", "killed")]
        alike = all(each.equals(frames[0]) for each in frames)
        left = [each for name in ("of 2", "of 1", "killed") for each in sweeps.left_over(folder / name)]
        print(f"cells: {', '.join(str(len(each)) for each in frames)} (2 workers, 1 worker, killed after {there})")
        print(f"equal in {len(EXACT)} exact columns: {alike}; left over: {left or 'nothing'}")
        print(f"2 workers: {seconds[2]:.1f} s, 1 worker: {seconds[1]:.1f} s: {seconds[1] / seconds[2]:.2f} times")
        print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--searches", type=int, default=20, help="of each trace: how long a cell takes")
    main(parser.parse_args().searches)
