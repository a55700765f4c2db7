"""Results of ``kvbench replay --json`` as a report shows them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from kvbench.report.text import clean
from kvbench.results.decode import Scalars, read_json
from kvbench.results.replay import COMMIT, MADE_BY, ReplayResult, ReplayResults

__all__ = ["ReplayFile", "read_replays"]


@dataclass(frozen=True)
class ReplayFile:
    """One result file.

    Attributes:
        path: of the file.
        content: of the file, its texts fit to be shown.
        name: what it is called, fit to be shown.
    """

    path: Path
    content: ReplayResults
    name: str

    @property
    def replays(self) -> list[ReplayResult]:
        """In the order of the file."""
        return self.content.replays

    @property
    def command(self) -> str:
        """The command that made it."""
        return shlex.join(["kvbench", *self.content.command])

    @property
    def machines(self) -> dict[str, dict[str, str]]:
        """Descriptions by device."""
        return {device: _as_texts(machine) for device, machine in self.content.machines.items()}

    @property
    def settings(self) -> dict[str, str]:
        """Of the run."""
        return _as_texts(self.content.settings)

    @property
    def commit(self) -> str:
        """Of the library that was measured, ``-dirty`` where files differed from it; empty where it is not known."""
        return next((each[COMMIT] for each in self.machines.values() if COMMIT in each), "")


def read_replays(path: Path, name: str = "") -> ReplayFile:
    """Read one result file, called by its own name unless one is given. Raises ResultsError, as ``read_json`` does."""
    return ReplayFile(path, read_json(path, ReplayResults, MADE_BY, prepare=clean), name or clean(path.name))


def _as_texts(values: Scalars) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}
