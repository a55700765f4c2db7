"""Which benchmarks the base has, by its own files: a change that drops one would not show by the change's own list."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Set
from copy import copy
from pathlib import Path

import msgspec

from kvbench.gate.build import LIBRARY, GateError, extract_files, run_git, run_merged
from kvbench.gate.environment import environment
from kvbench.gate.processes import GATES, GateFixture
from kvbench.gate.thresholds import TIME
from kvbench.metrics import COMPILED

__all__ = ["Listed", "OwnBenchmarks"]

# What decides which benchmarks there are, and what they measure: where none of it differs, the lists are alike.
HARNESS = ("benchmarks", "kvbench")
_DECIDING = (
    *HARNESS, f"{LIBRARY}/storage/__init__.py", "conftest.py", "pyproject.toml", "pytest.ini", ".pytest.ini", "tox.ini",
    "setup.cfg",
)  # fmt: skip
# In a process of its own, as all code of a base. The file imports nothing of its package.
_PRINT_DIRECTIONS = """
import sys, json
sys.path.insert(0, "kvbench")
from metrics import METRICS
print(json.dumps({name: each.direction for name, each in METRICS.items()}))
"""

# A benchmark's name: its metrics, and "time" where it is timed. A compiled module's: "compiled".
Listed = Mapping[str, Set[str]]


class OwnBenchmarks:
    """The base's benchmarks and harness, in a folder of their own around the base's library.

    Where they do not differ from the checkout's there is nothing to ask of them: nothing is extracted.
    """

    def __init__(self, fixture: GateFixture, folder: Path) -> None:
        self._fixture, self._folder = fixture, folder
        if _differ(fixture):
            shutil.copytree(fixture.sides["base"], folder)
            extract_files(fixture.checkout, fixture.commit, [*HARNESS, "pyproject.toml"], folder)

    @property
    def directions(self) -> dict[str, str] | None:
        """Which way each metric is better, as the base has it, in so far as it says; None: its files do not differ."""
        if not self._folder.exists():
            return None
        done = run_merged([sys.executable, "-I", "-c", _PRINT_DIRECTIONS], self._folder, env=environment())
        try:
            return msgspec.json.decode(done.stdout, type=dict[str, str])
        except msgspec.MsgspecError:  # an old base's file has no such table
            return {}

    def listed(self, with_times: bool, warn: Callable[[str], None]) -> Listed:
        """What they measure of the base. Where they cannot be run, ``warn`` is called with the reason."""
        if not (self._folder / GATES).is_dir():
            return {}
        own = copy(self._fixture)
        own.checkout, own.sides = self._folder, {"base": self._folder}
        try:
            found = own.measure("base", 1, "both" if with_times else "metrics")
        except GateError as error:
            warn(f"the base's own benchmarks cannot be run, so none that is gone will be missed: {error}")
            return {}
        timed = {name: {TIME} for name in found.times}
        compiled = {module: {COMPILED.name} for module in found.compiled}
        return compiled | timed | {name: {*metrics, *timed.get(name, ())} for name, metrics in found.metrics.items()}


def _differ(fixture: GateFixture) -> bool:
    changed = run_git(fixture.checkout, "diff", "--quiet", fixture.commit, "--", *_DECIDING)
    untracked = run_git(fixture.checkout, "ls-files", "--others", "--exclude-standard", "--", *_DECIDING)
    return bool(changed.returncode or untracked.stdout)
