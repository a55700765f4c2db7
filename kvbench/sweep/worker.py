"""What a worker does: it says what it has, and computes cells, each into its file."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from msgspec import Struct

from kvbench.errors import KvbenchError
from kvbench.gate.build import LIBRARY, run_merged
from kvbench.gate.environment import environment
from kvbench.results.sweep import write_cell
from kvbench.sweep.cells import Cell, TraceFile, digest_of_file
from kvbench.sweep.libraries import digest_of, folder_of, library_in_use, source_digest, unpack_wheel
from kvbench.sweep.measure import Row, failed_row, measured_row
from kvcache import build_info

__all__ = ["Introduction", "Software", "Task", "introduce", "run_task"]

CELL, ROW = "cell.json", "row.json"  # of a cell that has a process of its own


class Software(Struct, frozen=True):
    """What decides a cell's numbers: workers with something else are not used."""

    kvcache: str
    compiled: bool
    kvbench: str
    torch: str
    python: str

    @classmethod
    def here(cls) -> Software:
        """Of this process."""
        compiled = build_info().compiled
        return cls(
            library_in_use(), compiled, source_digest("kvbench"), str(torch.__version__),
            f"{platform.python_version()} on {platform.machine()}",
        )  # fmt: skip

    def difference(self, other: Software) -> str:
        """What ``other`` has that this one has not; empty where they are alike."""
        mine, its = msgspec.to_builtins(self), msgspec.to_builtins(other)
        return ", ".join(f"{name} is {its[name]} and not {mine[name]}" for name in mine if mine[name] != its[name])


class Introduction(Struct, frozen=True):
    """What a worker has: its software, traces that it sees by their paths, and whether it sees the sweep's folder."""

    software: Software
    traces: frozenset[str]
    sees_folder: bool


class Task(Struct, frozen=True):
    """A cell for a worker.

    Attributes:
        attempt: which one this is, from 1.
        folder: of the sweep, where its file goes; None where the worker does not see it.
        trace: the trace's content; None where the worker has it, by its path or from an earlier task.
        wheel: the library's, the same way; ``wheel_sha256`` None is the library in use.
    """

    cell: Cell
    attempt: int
    folder: str | None
    trace: bytes | None = None
    wheel: bytes | None = None
    wheel_sha256: str | None = None


def introduce(traces: Sequence[TraceFile], mark: str, token: str) -> Introduction:
    """Say what this worker has. ``mark`` is a file in the sweep's folder that has ``token``."""
    seen = frozenset(each.sha256 for each in traces if _sees(each))
    path = Path(mark)
    return Introduction(Software.here(), seen, path.is_file() and token in path.read_text())


def _sees(trace: TraceFile) -> bool:
    try:
        return digest_of_file(Path(trace.path)) == trace.sha256
    except OSError:
        return False


def run_task(task: Task, scratch: str | None = None, worker: str = "") -> Row:
    """Compute a cell and write its file; the row, for a client whose folder this worker does not see.

    ``scratch`` is a folder of this worker, None Dask's own.
    """
    if scratch is None:
        from distributed import get_worker

        scratch, worker = get_worker().local_directory, get_worker().address
    row = _row(task, Path(scratch)) | {"attempts": task.attempt, "worker": worker}
    if task.folder is not None:
        write_cell(Path(task.folder) / f"{task.cell.id}.parquet", row)
    return row


def _row(task: Task, scratch: Path) -> Row:
    try:
        trace = _trace(task, scratch)
        library = _library(task, scratch)
    except (KvbenchError, OSError) as error:
        return failed_row(task.cell, str(error))
    if library is None and not task.cell.is_timed:
        return measured_row(task.cell, trace)
    return measured_row(task.cell, trace, lambda cell, path: _in_own_process(cell, path, library, scratch))


def _trace(task: Task, scratch: Path) -> Path:
    """The trace's file on this machine."""
    trace = task.cell.trace
    handed = scratch / f"{trace.sha256}.parquet"
    if task.trace is not None and not handed.exists():
        handed.write_bytes(task.trace)
    return handed if handed.exists() else Path(trace.path)


def _library(task: Task, scratch: Path) -> Path | None:
    """The folder of the cell's library; None is the one in use. Raises KvbenchError: it is another one."""
    if task.wheel_sha256 is None:
        if task.cell.library != library_in_use():
            raise KvbenchError(f"this worker has the library {library_in_use()}, and not {task.cell.library}")
        return None
    if task.wheel is not None:
        if digest_of(task.wheel) != task.wheel_sha256:
            raise KvbenchError("the wheel that was handed over is damaged: run this again")
        return unpack_wheel(task.wheel, scratch)
    return scratch / task.wheel_sha256


def _in_own_process(cell: Cell, trace: Path, library: Path | None, scratch: Path) -> Row:
    """For another library, or times that nothing of Dask disturbs. Raises KvbenchError: it ended without a row."""
    roots = [library or folder_of(LIBRARY).parent, folder_of("kvbench").parent]
    own = {"PYTHONPATH": ":".join(map(str, roots)), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        folder = Path(place)
        content = {"cell": cell, "trace": str(trace), "library": str(roots[0])}
        (folder / CELL).write_bytes(msgspec.json.encode(content))
        command = [sys.executable, "-P", "-m", "kvbench.sweep.child", str(folder)]
        done = run_merged(command, folder, env=environment() | own)
        if not (folder / ROW).exists():
            raise KvbenchError(f"its process ended with {_ending(done)}")
        row: Row = msgspec.json.decode((folder / ROW).read_bytes())
    if "cell" not in row:
        raise KvbenchError(row["reason"])
    return row


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    said = next((line.strip() for line in reversed(done.stdout.splitlines()) if line.strip()), "")
    code = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return f"{code}: {said}" if said else code
