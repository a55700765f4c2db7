"""What a night measures: the newest commits that have no results yet, one at a time, as many as the time allows.

Usage: python benchmarks/nightly.py [--commits 20] [--seconds 5400] [--summary FILE] [--environment FILE]

asv saves a commit's results when it is done with it: whatever ends a night, only the last commit is measured again. A
commit that leaves the library as it was has the results of the one before it, and is left out.

With ``--environment`` it writes ``SINCE=COMMIT`` to a file: the report shall call new what came after. A regression is
seen some measured commits after its own, and by then it is not among the last ten of a history most of whose commits
leave the library as it was.

Exit code: 0 all that was begun is measured, 1 a commit is not (asv failed, or took all the time), 2 nothing can be.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from run_asv import asv_command, machine_name

__all__ = ["Night", "missing_commits"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MEASURED = ("kvcache", "setup.py")  # the library: the suite is this checkout's, whichever commit is measured
ASV_FAILED_BENCHMARKS = 2  # asv's exit code: they are part of the results
NEW = 10  # commits that change the library count as new
ROOM = 1.25  # times the slowest commit so far: is there time for another?
GRACE = 60.0  # seconds for asv to end when it is asked to


@dataclass
class Night:
    """What became of a night's commits; seconds of those that were measured."""

    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def summary(self, describe: Callable[[str], str]) -> str:
        """All of it as Markdown."""
        lines = [f"### The night measured {len(self.seconds)} commits, and left {len(self.left)} for the next ones", ""]
        lines += [f"- {describe(each)}: {spent:.0f} s" for each, spent in self.seconds.items()]
        lines += [f"- **not measured** {describe(each)}: {why}" for each, why in self.failed.items()]
        return "\n".join(lines) + "\n"


def missing_commits(commits: Iterable[str], results: Path) -> list[str]:
    """Those of which asv has no results; its files are called after the first eight digits."""
    return [each for each in commits if not any(results.glob(f"{each[:8]}-*.json"))]


def measure(
    commits: Iterable[str],
    run: Callable[[str, float], str],
    budget: float,
    clock: Callable[[], float] = time.monotonic,
) -> Night:
    """Measure commits in their order until the time does not suffice for another.

    ``run`` measures one within so many seconds, and returns why it could not; empty where it did.
    """
    night, began, slowest = Night(), clock(), 0.0
    for commit in commits:
        left = budget - (clock() - began)
        if left <= ROOM * slowest:
            night.left.append(commit)
            continue
        start = clock()
        fault = run(commit, left)
        spent = clock() - start
        slowest = max(slowest, spent)
        if fault:
            night.failed[commit] = fault
        else:
            night.seconds[commit] = spent
    return night


def run_asv(commit: str, seconds: float, results: Path) -> str:
    """Let asv measure a commit; why it did not, or nothing."""
    process = subprocess.Popen(asv_command([f"{commit}^!"]), cwd=ROOT, start_new_session=True)
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"it took more than the {seconds:.0f} s that were left"
    finally:
        _end(process)
    if missing_commits([commit], results):
        return f"asv ended with exit code {code}, and saved nothing"
    return "" if code in (0, ASV_FAILED_BENCHMARKS) else f"asv ended with exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End asv; nothing where it has ended. Interrupted, it ends what it runs, which is in process groups of its own."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(timeout=GRACE)
            except subprocess.TimeoutExpired:
                continue


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def main() -> int:
    """Measure a night's commits; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=20, help="look at so many commits that change the library")
    parser.add_argument("--seconds", type=float, default=5400, help="begin no commit that would end later")
    parser.add_argument("--summary", type=Path, help="append what was measured here, as Markdown")
    parser.add_argument("--environment", type=Path, help="append SINCE=COMMIT here: what came after is new")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # asv is ended then, too
    results = RESULTS / machine_name()
    try:
        subprocess.run(["asv", "machine", "--yes", "--machine", machine_name()], cwd=ROOT, check=True)
        newest_first = _git(
            "rev-list", "--first-parent", f"--max-count={given.commits}", "HEAD", "--", *MEASURED
        ).split()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"nothing can be measured: {error}", file=sys.stderr)
        return 2
    if given.environment and newest_first:
        _append(given.environment, f"SINCE={newest_first[: NEW + 1][-1]}\n")
    missing = missing_commits(newest_first, results)
    night = measure(missing, lambda commit, seconds: run_asv(commit, seconds, results), given.seconds)
    text = night.summary(lambda commit: _git("show", "--no-patch", "--format=%h %s", commit).strip())
    print(text)
    if given.summary:
        _append(given.summary, text)
    return 1 if night.failed else 0


if __name__ == "__main__":
    sys.exit(main())
