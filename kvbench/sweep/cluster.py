"""A client of Dask's workers: those of this machine, made for a sweep, or those of a scheduler that is there."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kvbench.files import temporary_folder
from kvbench.sweep.local_workers import LocalWorkers, SweepError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["CUDA", "TIMING", "KeepRunning", "SweepError", "connected", "cores", "require_dask"]

TIMING, CUDA = "timing", "cuda"  # Dask's resources: one timed cell at a time on a machine; a card
_OF_ONE = {TIMING: 1, CUDA: 1}  # of a machine's first worker; without a card its cells fail, and say so
_ANSWER = 10  # seconds that a scheduler has to answer
KeepRunning = Callable[[int], None]  # see LocalWorkers.keep_running


def require_dask() -> None:
    """Raise SweepError where Dask's scheduler is not installed."""
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError as error:
        raise SweepError(f"kvbench sweep needs {error.name!r}: pip install 'kvcache[sweep]'") from None


@contextmanager
def connected(scheduler: str | None, workers: int) -> Iterator[tuple[Client, KeepRunning]]:
    """A client of a scheduler, or of one with ``workers`` on this machine, which end with the block.

    Also what keeps these running, to be called now and then. Raises SweepError: no scheduler answers there.
    """
    require_dask()
    for name in [each for each in logging.root.manager.loggerDict if each.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is in rows, and said by the sweep
    warnings.filterwarnings("ignore", "Sending large graph")
    with _of(scheduler) if scheduler is not None else _local(workers) as found:
        yield found


@contextmanager
def _of(scheduler: str) -> Iterator[tuple[Client, KeepRunning]]:
    from distributed import Client

    try:
        client = Client(scheduler, timeout=_ANSWER, set_as_default=False)
    except OSError:  # of time, and of the network
        raise SweepError(f"no scheduler answers at {scheduler}: start one with 'dask scheduler'") from None
    try:
        yield client, lambda met: None
    finally:
        client.close()


@contextmanager
def _local(workers: int) -> Iterator[tuple[Client, KeepRunning]]:
    import dask
    from distributed import Client, LocalCluster

    with temporary_folder("kvcache-sweep") as folder, dask.config.set({"temporary-directory": str(folder)}):
        here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
        cluster = LocalCluster(n_workers=0, silence_logs=logging.CRITICAL, set_as_default=False, **here)
        local = LocalWorkers(cluster.scheduler_address, workers, _OF_ONE, folder)
        try:
            with Client(cluster, set_as_default=False) as client:
                yield client, local.keep_running
        finally:
            local.close()
            cluster.close()


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
