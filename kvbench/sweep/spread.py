"""Cells on workers: one at a time on each, again elsewhere where a worker dies, and set aside after three deaths.

Dask would decide by itself where tasks run. Here each is sent to one worker, so that a worker's death is counted for
the one cell that ran there, times are taken on a quiet machine, and a second computation is on another worker.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from kvbench.sweep.cells import Cell
from kvbench.sweep.cluster import CUDA, TIMING, KeepRunning, SweepError
from kvbench.sweep.handed import Handed
from kvbench.sweep.measure import Row, failed_row
from kvbench.sweep.worker import Introduction, Software, introduce, run_task

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["MOST_DEATHS", "Spread"]

MOST_DEATHS = 3  # of workers under one cell
_TICK = 0.3  # seconds between two looks at which workers are there
_ALONE = 15  # seconds without any worker before that is said
_PATIENCE = 60  # seconds without a worker that could run what waits


@dataclass
class _Worker:
    """A worker: what it runs, and what it said of itself."""

    address: str
    host: str
    resources: Mapping[str, float]
    future: Future | None = None
    cell: Cell | None = None
    about: Introduction | None = None
    refused: str = ""

    @property
    def is_free(self) -> bool:
        return self.future is None and self.about is not None and not self.refused


@dataclass
class Spread:
    """Runs cells on the workers of ``client``; ``say`` prints a remark, ``run`` computes a task on a worker."""

    client: Client
    handed: Handed
    say: Callable[[str], None]
    keep_running: KeepRunning = lambda met: None
    run: Callable[..., Row] = run_task
    _met: int = 0  # workers that have said what they have
    _alone_since: float = field(default_factory=time.monotonic)
    _workers: dict[str, _Worker] = field(default_factory=dict)
    _deaths: Counter[str] = field(default_factory=Counter)
    _ended: SimpleQueue[Future] = field(default_factory=SimpleQueue)
    _said: set[str] = field(default_factory=set)

    def compute(self, cells: Iterable[Cell], store: Callable[[Cell, Row, bool], None]) -> None:
        """Compute the cells; ``store`` gets each with its row, and whether its worker wrote the file.

        Raises SweepError: the scheduler is gone, or there is no worker that could run what is left.
        """
        waiting = deque(cells)
        self._loop(waiting, store, written=True, others={})
        if waiting:
            raise SweepError(self._nobody(waiting))

    def compute_again(self, cells: Mapping[Cell, str], store: Callable[[Cell, Row, bool], None]) -> int:
        """The same without files, each on another worker than the named one; how many had none."""
        waiting = deque(cells)
        others = {cell.id: address for cell, address in cells.items()}
        self._loop(waiting, store, written=False, others=others)
        return len(waiting)

    def _loop(
        self, waiting: deque[Cell], store: Callable[[Cell, Row, bool], None], written: bool, others: Mapping[str, str]
    ) -> None:
        idle_since = time.monotonic()
        while waiting or any(each.cell for each in self._workers.values()):
            self._look(waiting, store)
            for worker in self._workers.values():
                if worker.is_free and (cell := self._next(worker, waiting, others)):
                    waiting.remove(cell)
                    self._send(worker, cell, written)
            if any(each.future for each in self._workers.values()) or not self._workers:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > (_TICK if others else _PATIENCE):
                return
            self._take(waiting, store)

    def _look(self, waiting: deque[Cell], store: Callable[[Cell, Row, bool], None]) -> None:
        """Which workers are there: new ones are asked what they have, and the cells of dead ones wait again."""
        self.keep_running(self._met)
        found = self._there()
        for address in self._workers.keys() - found.keys():
            worker = self._workers.pop(address)
            if worker.future is not None:
                worker.future.release()  # to cancel it would wait for an answer
            if worker.cell is not None:
                self._after_death(worker.cell, waiting, store)
        for address in found.keys() - self._workers.keys():
            about = found[address]
            self._workers[address] = worker = _Worker(address, about["host"], about.get("resources") or {})
            worker.future = self._submit(introduce, worker, *self.handed.asked)
        if self._workers:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > _ALONE:
            self._say_once("no worker is there: waiting for one")

    def _there(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
        except OSError:
            found = {}
        if self.client.status != "running":
            raise SweepError("the scheduler is gone: start it again, and run the same command, which goes on")
        return found

    def _after_death(self, cell: Cell, waiting: deque[Cell], store: Callable[[Cell, Row, bool], None]) -> None:
        self._deaths[cell.id] += 1
        if self._deaths[cell.id] < MOST_DEATHS:
            self.say(f"a worker died: {cell} runs again")
            waiting.appendleft(cell)
        else:
            reason = f"set aside: {MOST_DEATHS} workers died while they ran it"
            store(cell, failed_row(cell, reason) | {"attempts": MOST_DEATHS}, False)

    def _next(self, worker: _Worker, waiting: deque[Cell], others: Mapping[str, str]) -> Cell | None:
        """What the worker may run now. Times are taken last, on a machine on which nothing else of the sweep runs."""
        beside = [each.cell for each in self._workers.values() if each.cell and each.host == worker.host]
        if any(each.is_timed for each in beside):
            return None
        fit = (each for each in waiting if not others or others.get(each.id) != worker.address)
        fit = (each for each in fit if _needs(each).keys() <= worker.resources.keys())
        timed: Cell | None = None
        for cell in fit:
            if not cell.is_timed:
                return cell
            timed = timed or cell
        return None if beside else timed

    def _send(self, worker: _Worker, cell: Cell, written: bool) -> None:
        assert worker.about is not None
        task = self.handed.task(cell, worker.address, worker.about, self._deaths[cell.id] + 1, written)
        worker.cell = cell
        worker.future = self._submit(self.run, worker, task, resources=_needs(cell))

    def _submit(self, function: Callable[..., Any], worker: _Worker, *arguments: Any, **options: Any) -> Future:
        future: Future = self.client.submit(
            function, *arguments, workers=[worker.address], allow_other_workers=False, pure=False, **options
        )
        future.add_done_callback(self._ended.put)
        return future

    def _take(self, waiting: deque[Cell], store: Callable[[Cell, Row, bool], None]) -> None:
        """Take what has ended, or wait a moment."""
        with suppress(Empty):
            self._ended.get(timeout=_TICK)
        for worker in list(self._workers.values()):
            future, cell = worker.future, worker.cell
            if future is None or future.status == "pending":
                continue
            if future.status not in ("finished", "error"):  # Dask has lost it: the worker is met again
                del self._workers[worker.address]
                waiting.extendleft([cell] if cell else [])
                continue
            worker.future = worker.cell = None
            if cell is None:
                self._meet(worker, future)
            elif future.status == "finished":
                store(cell, future.result(), self.handed.is_written(worker.about))
            else:
                store(cell, failed_row(cell, _told(future)), False)

    def _meet(self, worker: _Worker, future: Future) -> None:
        """What a worker said of itself decides whether it is used."""
        if future.status != "finished":
            worker.refused = _told(future)
        else:
            worker.about = future.result()
            self._met += 1
            worker.refused = Software.here().difference(worker.about.software)
        if worker.refused:
            self._say_once(f"the worker at {worker.address} is not used: {worker.refused}")

    def _nobody(self, waiting: deque[Cell]) -> str:
        refused = [each for each in self._workers.values() if each.refused]
        if len(refused) == len(self._workers):
            return f"no worker can be used: that at {refused[0].address}: {refused[0].refused}"
        needed = sorted({name for each in waiting for name in _needs(each)})
        options = " ".join(f"{each}=1" for each in needed)
        return f"no worker for {len(waiting)} cells: start one with --resources '{options}', and run this again"

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.say(text)


def _needs(cell: Cell) -> dict[str, int]:
    """Dask's resources that a cell takes."""
    return ({TIMING: 1} if cell.is_timed else {}) | ({CUDA: 1} if cell.device == "cuda" else {})


def _told(future: Future) -> str:
    error = future.exception()
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
