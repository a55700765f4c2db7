"""What workers are handed with a cell: its trace and its library, by digest, and only once to each worker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kvbench.files import read_regular
from kvbench.sweep.cells import Cell, TraceFile
from kvbench.sweep.folder import SweepFolder
from kvbench.sweep.libraries import Wheel
from kvbench.sweep.worker import Introduction, Task

__all__ = ["Handed"]


class Handed:
    """The traces and wheels of a sweep, and who has them."""

    def __init__(self, folder: SweepFolder, traces: Sequence[TraceFile], wheels: Sequence[Wheel]) -> None:
        self._folder, self._token = folder, folder.claim()
        self._traces = list(traces)
        self._wheels = {each.library: each for each in wheels}
        self._sent: set[tuple[str, str]] = set()  # addresses and digests

    @property
    def asked(self) -> tuple[list[TraceFile], str, str]:
        """What ``introduce`` is asked with."""
        return self._traces, str(self._folder.mark), self._token

    def task(self, cell: Cell, address: str, about: Introduction, attempt: int, written: bool) -> Task:
        """A cell for a worker; ``written``: it writes the cell's file, where it sees the folder."""
        folder = str(self._folder.path) if written and about.sees_folder else None
        trace, wheel = cell.trace, self._wheels.get(cell.library)
        content = None if trace.sha256 in about.traces else self._once(address, trace.sha256, Path(trace.path))
        library = None if wheel is None else self._once(address, wheel.sha256, wheel.path)
        return Task(cell, attempt, folder, content, library, None if wheel is None else wheel.sha256)

    def is_written(self, about: Introduction | None) -> bool:
        """Whether that worker writes the files of its cells."""
        return about is not None and about.sees_folder

    def _once(self, address: str, digest: str, path: Path) -> bytes | None:
        if (address, digest) in self._sent:
            return None
        self._sent.add((address, digest))
        return read_regular(path)
