"""One side of a comparison measured in one process: pytest-benchmark run on the gates, around one commit's library."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kvbench.gate.build import GateError, build_sides, copy_head, extract_base, run_at_once, run_git
from kvbench.gate.environment import environment
from kvbench.results.decode import read_json
from kvbench.results.pytest_benchmark import MADE_BY, PytestBenchmarks

__all__ = ["GATES", "GateError", "GateFixture", "Measured", "find_checkout", "find_commit"]

GATES = Path("benchmarks") / "gates"
LONGEST_PROCESS = 600  # seconds: beyond that it hangs
_PYTEST_RAN = (0, 1, 5)  # all passed; some failed; nothing was selected
_MICROSECONDS = 1e6


def find_checkout(folder: Path) -> Path:
    """The checkout that a folder is in: the nearest one above it, or itself, that has gates."""
    return next((each for each in (folder, *folder.parents) if (each / GATES).is_dir()), folder)


def find_commit(checkout: Path, revision: str) -> str:
    """The full hash of a revision. Raises GateError: there is none."""
    done = run_git(checkout, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise GateError(
            f"git knows no revision {revision!r} in {checkout}: fetch it first (a shallow clone has no history)"
            + "".join(f"; git says: {line}" for line in said[:1])
        )
    return str(done.stdout.decode().strip())


@dataclass
class Measured:
    """What one process found out, by the benchmarks' names.

    ``times`` are microseconds a round: the fastest of the process, since noise only ever adds. ``metrics`` are
    deterministic numbers, ``failures`` and ``skips`` have reasons, ``places`` are pytest's node identifiers.
    ``compiled`` is what the process used of the library's compiled modules, where metrics were measured.
    """

    times: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    skips: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    compiled: dict[str, set[str]] = field(default_factory=dict)


class GateFixture:
    """The libraries of both sides, each in a folder of its own, and the checkout whose gates measure them.

    The head is the working tree of ``checkout``, a folder of a repository or its root, or with ``head``, a full hash,
    that commit; the base is the same folder in a revision. The libraries are put in ``folder``. ``keyword`` is pytest's
    ``-k``: which benchmarks. ``pass_env`` are names of environment variables that the processes get besides
    ``HANDED_OVER``. ``compiled`` has the compiled modules of each side, ``versions`` what the libraries that were
    measured say of themselves. ``commit`` is the base's, and ``head`` the other one's, with ``-dirty`` where files of a
    working tree differ.

    Raises GateError: no such revision, one without the library, or only one side can be compiled.
    """

    def __init__(
        self, checkout: Path, base: str, folder: Path, keyword: str = "", pass_env: Iterable[str] = (), head: str = ""
    ) -> None:
        if not (checkout / GATES).is_dir():
            raise GateError(f"{checkout} has no {GATES}: run the gate in a checkout of kvcache")
        self.checkout = checkout
        self.commit = find_commit(checkout, base)
        self.keyword = keyword
        self.environment = environment(pass_env)
        # Names of one length: a path's length shifts what lies behind it in memory.
        self.sides = {"base": folder / "base", "head": folder / "head"}
        extract_base(checkout, self.commit, self.sides["base"])
        if head:
            extract_base(checkout, head, self.sides["head"])
        else:
            copy_head(checkout, self.sides["head"])
            described = run_git(checkout, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
            head = described.stdout.decode(errors="replace").strip()
        self.head = head or None
        self.compiled = build_sides(self.sides, self.environment)
        self.versions: dict[str, str] = {}

    def file_of_base(self, path: Path) -> str | None:
        """The text of a file as the base has it; None where it has none."""
        done = run_git(self.checkout, "show", f"{self.commit}:./{path.as_posix()}")
        return done.stdout.decode(errors="replace") if done.returncode == 0 else None

    def measure(self, side: str, seed: int, what: str, places: Iterable[str] = ()) -> Measured:
        """``measure_sides`` of one side."""
        return self.measure_sides([side], seed, what, places)[side]

    def measure_sides(
        self, sides: Sequence[str], seed: int, what: str, places: Iterable[str] = ()
    ) -> dict[str, Measured]:
        """Measure ``both``, ``metrics`` or ``times`` of sides, in their order, each in a new process with a hash seed.

        Metrics alone are measured at once: a neighbour changes none. ``places`` are of the benchmarks to measure: all
        of them where there are none.
        Raises GateError: a process measured nothing, or another library.
        """
        # Relative to the checkout: pytest reads a bracket in a path as the beginning of parameters.
        chosen = [f"--gate-pass={what}", *(["-k", self.keyword] if self.keyword else []), *(places or [str(GATES)])]
        found: dict[str, Measured] = {}
        for together in [sides] if what == "metrics" else [[side] for side in sides]:
            with tempfile.TemporaryDirectory(dir=self.sides[sides[0]].parent) as folder:
                found |= self._measure_at_once(together, seed, chosen, Path(folder))
        return found

    def _measure_at_once(
        self, sides: Sequence[str], seed: int, chosen: Sequence[str], folder: Path
    ) -> dict[str, Measured]:
        options = {
            side: [
                f"--benchmark-storage=file://{folder}", f"--benchmark-json={folder / side}.json",
                f"--junitxml={folder / side}.xml", *chosen,
            ]
            for side in sides
        }  # fmt: skip
        found = {}
        for side, done in zip(sides, self._run_pytest(options, seed), strict=True):
            numbers, outcomes = folder / f"{side}.json", folder / f"{side}.xml"
            if done.returncode not in _PYTEST_RAN or not outcomes.exists():
                raise self.not_measured(side, done)
            found[side] = _read_outcomes(outcomes)
            if numbers.exists() and numbers.stat().st_size:
                self._read_numbers(numbers, side, found[side])
        return found

    def run_pytest(self, side: str, seed: int, options: Iterable[str]) -> subprocess.CompletedProcess[str]:
        """Run pytest around the library of one side. Raises GateError: it did not end."""
        return self._run_pytest({side: options}, seed)[0]

    def _run_pytest(self, options: Mapping[str, Iterable[str]], seed: int) -> list[subprocess.CompletedProcess[str]]:
        commands = {side: self._pytest_command(side, seed, each) for side, each in options.items()}
        try:
            return run_at_once(commands.values(), self.checkout, LONGEST_PROCESS)
        except subprocess.TimeoutExpired as error:
            side = next(side for side, (command, _) in commands.items() if command == error.cmd)
            raise GateError(f"a process of the {side} did not end within {LONGEST_PROCESS} s") from None

    def _pytest_command(self, side: str, seed: int, options: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
        """A process that finds the side's library first, with one thread and nothing of the caller's pytest."""
        own = {
            "PYTHONPATH": str(self.sides[side]),
            "PYTHONHASHSEED": str(seed),
            "OMP_NUM_THREADS": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        command = [
            sys.executable, "-P", "-m", "pytest", "-q", "--tb=short", "--rootdir=.", "-p", "pytest_benchmark.plugin",
            "-p", "no:cacheprovider", "--benchmark-disable-gc", *options,
        ]  # fmt: skip
        return command, {"env": self.environment | own}

    @staticmethod
    def not_measured(side: str, done: subprocess.CompletedProcess[str]) -> GateError:
        """What to raise after a process that measured nothing."""
        return GateError(f"pytest could not measure the {side} (exit code {done.returncode}):\n{done.stdout[-2000:]}")

    def _read_numbers(self, path: Path, side: str, measured: Measured) -> None:
        content = read_json(path, PytestBenchmarks, MADE_BY)
        library = Path(content.commit_info.library)
        if not library.is_relative_to(self.sides[side]):
            raise GateError(f"the {side} should have been measured, but {library} was: is PYTHONPATH taken over?")
        self.versions[side] = content.commit_info.version
        measured.compiled = {name: set(uses) for name, uses in content.commit_info.compiled.items()}
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
