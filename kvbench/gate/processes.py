"""One side of a comparison measured in one process: pytest-benchmark run on the gates, around one commit's library."""

from __future__ import annotations

import compileall
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kvbench.errors import KvbenchError
from kvbench.results.decode import read_json
from kvbench.results.pytest_benchmark import MADE_BY, PytestBenchmarks

__all__ = ["GATES", "GateError", "GateFixture", "Measured"]

GATES = Path("benchmarks") / "gates"
LIBRARY = "kvcache"
BUILD = "setup.py"  # what the library compiles
LONGEST_PROCESS = 600  # seconds: beyond that it hangs
_BINARY = EXTENSION_SUFFIXES[-1]  # ".so"
_PYTEST_RAN = (0, 1, 5)  # all passed; some failed; nothing was selected
_MICROSECONDS = 1e6


class GateError(KvbenchError):
    """What could not be measured, why, and what to do."""


@dataclass
class Measured:
    """What one process found out, by the benchmarks' names.

    ``times`` are microseconds a round: the fastest of the process, since noise only ever adds. ``metrics`` are
    deterministic numbers, ``failures`` and ``skips`` have reasons, ``places`` are pytest's node identifiers.
    """

    times: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    skips: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


class GateFixture:
    """The libraries of both sides, each in a folder of its own, and the checkout whose gates measure them.

    The head is the working tree of ``checkout``, the root of a repository, and the base a revision of it. The libraries
    are put in ``folder``. ``keyword`` is pytest's ``-k``: which benchmarks.

    Raises GateError: no such revision, or one without the library.
    """

    def __init__(self, checkout: Path, base: str, folder: Path, keyword: str = "") -> None:
        if not (checkout / GATES).is_dir():
            raise GateError(f"{checkout} has no {GATES}: run the gate in a checkout of kvcache")
        self.checkout = checkout
        done = _run_git(checkout, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
        if done.returncode:
            raise GateError(
                f"git knows no revision {base!r} in {checkout}: fetch it first (a shallow clone has no history)"
            )
        self.commit = done.stdout.decode().strip()
        self.keyword = keyword
        # Names of one length: a path's length shifts what lies behind it in memory.
        self.sides = {"base": folder / "base", "head": folder / "head"}
        self._extract(self.commit, self.sides["base"])
        # What was compiled in the checkout may be older than its source.
        ignored = shutil.ignore_patterns("__pycache__", f"*{_BINARY}")
        shutil.copytree(checkout / LIBRARY, self.sides["head"] / LIBRARY, ignore=ignored)
        if (checkout / BUILD).exists():
            shutil.copy(checkout / BUILD, self.sides["head"])
        lacking = {name: _build(side) for name, side in self.sides.items()}
        if None not in lacking.values() and bool(lacking["base"]) != bool(lacking["head"]):
            name = "base" if lacking["base"] else "head"
            raise GateError(f"only the {name} could not be compiled, so times would mean nothing:\n{lacking[name]}")
        for side in self.sides.values():
            compileall.compile_dir(side, quiet=2)

    def file_of_base(self, path: Path) -> str | None:
        """The text of a file as the base has it; None where it has none."""
        done = _run_git(self.checkout, "show", f"{self.commit}:{path.as_posix()}")
        return done.stdout.decode(errors="replace") if done.returncode == 0 else None

    def measure(self, side: str, seed: int, what: str, places: Iterable[str] = ()) -> Measured:
        """Measure ``both``, ``metrics`` or ``times`` of one side in a new process, with a hash seed.

        ``places`` are of the benchmarks to measure: all of them where there are none.
        Raises GateError: the process measured nothing, or another library.
        """
        with tempfile.TemporaryDirectory() as folder:
            numbers, outcomes = Path(folder) / "numbers.json", Path(folder) / "outcomes.xml"
            chosen = [str(self.checkout / place) for place in places] or [str(self.checkout / GATES)]
            options = [f"--benchmark-json={numbers}", f"--junitxml={outcomes}", f"--gate-pass={what}"]
            if self.keyword:
                options += ["-k", self.keyword]
            self._run(side, seed, [*options, *chosen], outcomes)
            measured = _read_outcomes(outcomes)
            if numbers.exists() and numbers.stat().st_size:
                self._read_numbers(numbers, side, measured)
            return measured

    def _run(self, side: str, seed: int, options: list[str], outcomes: Path) -> None:
        command = [
            sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "pytest_benchmark.plugin",
            "-p", "no:cacheprovider", "--benchmark-disable-gc", *options,
        ]  # fmt: skip
        try:
            environment = _environment(self.sides[side], seed)
            done = _run_merged(command, self.sides[side], env=environment, timeout=LONGEST_PROCESS)
        except subprocess.TimeoutExpired:
            raise GateError(f"a process of the {side} did not end within {LONGEST_PROCESS} s") from None
        if done.returncode not in _PYTEST_RAN or not outcomes.exists():
            raise GateError(
                f"pytest could not measure the {side} (exit code {done.returncode}):\n{done.stdout[-2000:]}"
            )

    def _read_numbers(self, path: Path, side: str, measured: Measured) -> None:
        content = read_json(path, PytestBenchmarks, MADE_BY)
        library = Path(content.commit_info.library)
        if not library.is_relative_to(self.sides[side]):
            raise GateError(f"the {side} should have been measured, but {library} was: is PYTHONPATH taken over?")
        for each in content.benchmarks:
            name = each.name
            if measured.places.setdefault(name, each.fullname) != each.fullname:
                raise GateError(f"two benchmarks are called {name!r}, in {measured.places[name]} and {each.fullname}")
            if name in measured.failures:
                continue
            if each.extra_info.timed:
                measured.times[name] = each.stats.min * _MICROSECONDS
            if each.extra_info.metrics is not None:
                measured.metrics[name] = each.extra_info.metrics

    def _extract(self, commit: str, folder: Path) -> None:
        build = [] if self.file_of_base(Path(BUILD)) is None else [BUILD]
        done = _run_git(self.checkout, "archive", "--format=tar", commit, LIBRARY, *build)
        if done.returncode:
            raise GateError(f"{commit[:8]} has no {LIBRARY}/: there is nothing to compare with")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")


def _build(side: Path) -> str | None:
    """Compile what the library has to compile, in place; what cannot be is left out, as in an installation.

    Returns what the compiler said if something was left out; None where nothing is to be compiled.
    """
    sources = list(side.rglob("*.c")) if (side / BUILD).exists() else []
    if not sources:
        return None
    done = _run_merged([sys.executable, BUILD, "--quiet", "build_ext", "--inplace"], side)
    if done.returncode:
        raise GateError(f"the {side.name}'s {BUILD} failed (exit code {done.returncode}):\n{done.stdout[-2000:]}")
    is_whole = all(any(each.parent.glob(f"{each.stem}.*{_BINARY}")) for each in sources)
    return "" if is_whole else done.stdout[-2000:]


def _run_merged(command: list[str], folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; its ``stdout`` has what it wrote to either stream."""
    return subprocess.run(
        command,
        cwd=folder,
        check=False,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )


def _environment(side: Path, seed: int) -> dict[str, str]:
    """Of a process that finds the side's library first, with one thread and nothing of the caller's pytest."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return kept | {
        "PYTHONPATH": str(side),
        "PYTHONHASHSEED": str(seed),
        "OMP_NUM_THREADS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


def _read_outcomes(path: Path) -> Measured:
    measured = Measured()
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except ElementTree.ParseError as error:
        raise GateError(f"pytest's report of what it measured cannot be read ({error}): run the gate again") from None
    for case in cases:
        name = str(case.get("name"))
        for outcome in case:
            message = str(outcome.get("message", "")).strip()
            if outcome.tag in ("failure", "error"):
                measured.failures[name] = message or "failed"
            elif outcome.tag == "skipped":
                measured.skips[name] = message
    return measured


def _run_git(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[Any]:
    try:
        return subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise GateError("the gate needs git, which is not installed") from None
