"""A sweep from its plan to its last cell: what is there already, what runs, and what is computed twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from kvbench.errors import KvbenchError
from kvbench.gate.build import GateError
from kvbench.gate.processes import find_checkout, find_commit
from kvbench.replay.settings import CapacityError
from kvbench.results.sweep import COLUMNS, DONE, FAILED
from kvbench.sweep.cells import COMMIT, Cell, TraceFile, cells_of, trace_files
from kvbench.sweep.cluster import connected
from kvbench.sweep.folder import SweepFolder
from kvbench.sweep.handed import Handed
from kvbench.sweep.libraries import library_in_use, wheels_of
from kvbench.sweep.measure import Row, failed_row
from kvbench.sweep.plan import INSTALLED, Plan, PlanError, read_plan
from kvbench.sweep.spread import Spread

__all__ = ["Session", "open_session"]

Say = Callable[[str], None]
Progress = Callable[[int, int], None]  # cells done and failed
# A cell is computed again to be counted only.
_COMPARED = [each.name for each in COLUMNS if each.exact and each.name not in ("cell", "repetitions")]


@dataclass
class Session:
    """A plan, its cells and their folder; ``statuses`` is how those that are there ended, by their names."""

    plan: Plan
    traces: list[TraceFile]
    cells: list[Cell]
    folder: SweepFolder
    statuses: dict[str, str]
    reasons: dict[str, str] = field(default_factory=dict)
    workers: dict[Cell, str] = field(default_factory=dict)  # that computed the cells of this run
    compared: int = 0
    not_compared: int = 0

    def waiting(self, retry_failed: bool) -> list[Cell]:
        """What is to run: cells that are not there, and those that failed if they are to be tried again."""
        kept = {DONE} if retry_failed else {DONE, FAILED}
        return [each for each in self.cells if self.statuses.get(each.id) not in kept]

    @property
    def counts(self) -> Counter[str]:
        """How many cells are done, and how many failed."""
        return Counter(self.statuses.values())

    @property
    def failed(self) -> list[tuple[Cell, str]]:
        """Cells that failed, now or before, and why."""
        found = [each for each in self.cells if self.statuses.get(each.id) == FAILED]
        return [
            (each, self.reasons.get(each.id) or (self.folder.row(each) or {}).get("reason") or "") for each in found
        ]

    def run(
        self, cells: Sequence[Cell], scheduler: str | None, workers: int, say: Say,
        progress: Progress = lambda done, failed: None,
    ) -> None:  # fmt: skip
        """Run cells, then a share of them again on other workers. Their statuses follow.

        Raises SweepError, GateError: it cannot begin, or not go on. What is done stays.
        """
        revisions = [each for each in self.plan.commit if each != INSTALLED]
        self.folder.claim()
        wheels = wheels_of(revisions, find_checkout(Path.cwd()), self.folder.wheels, say) if revisions else []
        handed = Handed(self.folder, self.traces, wheels)

        def store(cell: Cell, row: Row, is_written: bool) -> None:
            self._keep(cell, row, is_written)
            progress(self.counts[DONE], self.counts[FAILED])

        for each in cells:
            self.statuses.pop(each.id, None)
        progress(self.counts[DONE], self.counts[FAILED])
        try:
            with connected(scheduler, workers) as (client, keep_running):
                spread = Spread(client, handed, say, keep_running)
                spread.compute(cells, store)
                self._compare(spread)
        finally:
            self.folder.remove_unfinished()

    def _keep(self, cell: Cell, row: Row, is_written: bool) -> None:
        if not is_written:
            self.folder.write(cell, row)
        self.statuses[cell.id] = row["status"]
        if row["status"] == FAILED:
            self.reasons[cell.id] = row["reason"]
        elif row.get("worker"):
            self.workers[cell] = row["worker"]

    def _compare(self, spread: Spread) -> None:
        """Compute a share of this run's cells again, each on another worker: one that differs has failed."""
        done = sorted(self.workers, key=lambda cell: cell.id)
        sample = done[: -(-len(done) * int(self.plan.repeated * 1000) // 1000)] if self.plan.repeated else []
        again = {replace(each, repetitions=0): each for each in sample}

        def store(cell: Cell, row: Row, is_written: bool) -> None:
            original = again[cell]
            first = self.folder.row(original) or {}
            self.compared += 1
            differs = [
                f"{each} is {first.get(each)} and {row.get(each)}" for each in _COMPARED if _differ(first, row, each)
            ]
            if differs:
                where = f"on {first.get('worker')} and {row.get('worker')}"
                self._keep(original, failed_row(original, f"computed twice, {where}: {', '.join(differs)}"), False)

        places = {cell: self.workers[original] for cell, original in again.items()}
        self.not_compared = spread.compute_again(places, store) if places else 0


def _differ(first: Row, second: Row, column: str) -> bool:
    return first.get(column) != second.get(column)


def open_session(plan_file: Path, output: Path) -> Session:
    """Read a plan, its traces' headers, and what is in the folder; nothing is written.

    Raises KvbenchError: a plan, a trace, a revision or a folder that cannot be used.
    """
    plan = read_plan(plan_file)
    traces = trace_files(plan)
    with _fault_of(plan_file, "commit", GateError):
        libraries = [_library(each) for each in plan.commit]
    with _fault_of(plan_file, "capacity", CapacityError):
        cells = cells_of(plan, traces, libraries)
    folder = SweepFolder(output)
    return Session(plan, list(traces), cells, folder, folder.statuses(cells))


def _library(revision: str) -> str:
    if revision == INSTALLED:
        return library_in_use()
    return f"{COMMIT}{find_commit(find_checkout(Path.cwd()), revision)}"


@contextmanager
def _fault_of(plan: Path, key: str, kind: type[KvbenchError]) -> Iterator[None]:
    """Name the plan and its key in an error that comes of a value."""
    try:
        yield
    except kind as error:
        raise PlanError(plan, f"{key}: {error}") from None
