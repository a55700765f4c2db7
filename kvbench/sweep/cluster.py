"""Dask's workers: those of this machine, made for a sweep, or those of a scheduler that is there already."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from kvbench.errors import KvbenchError
from kvbench.files import temporary_folder

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["CUDA", "TIMING", "SweepError", "connected", "cores", "require_dask"]

TIMING, CUDA = "timing", "cuda"  # Dask's resources: one timed cell at a time on a machine; a card
_ANSWER = 10  # seconds that a scheduler has to answer


class SweepError(KvbenchError):
    """A sweep that cannot begin or go on: what was wrong, and what to do."""


def require_dask() -> None:
    """Raise SweepError where Dask's scheduler is not installed."""
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError as error:
        raise SweepError(f"kvbench sweep needs {error.name!r}: pip install 'kvcache[sweep]'") from None


@contextmanager
def connected(scheduler: str | None, workers: int) -> Iterator[Client]:
    """A client of a scheduler, or of one with ``workers`` on this machine, which end with the block.

    Raises SweepError: no scheduler answers there.
    """
    require_dask()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is in rows, and said by the sweep
    warnings.filterwarnings("ignore", "Sending large graph")
    with _of(scheduler) if scheduler is not None else _local(workers) as client:
        yield client


@contextmanager
def _of(scheduler: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(scheduler, timeout=_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:  # of time, of the network, and of the address
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise SweepError(f"no scheduler answers at {scheduler}: start one with 'dask scheduler' ({said})") from None
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _local(workers: int) -> Iterator[Client]:
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    common = {"nthreads": 1, "memory_limit": None, "dashboard": False, "silence_logs": logging.CRITICAL}
    specs = {
        number: {"cls": Nanny, "options": common | {"resources": _resources() if number == 0 else {}}}
        for number in range(workers)
    }
    here = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with temporary_folder("kvcache-sweep") as folder, _own_main_only():
        own = {"distributed.worker.profile.enabled": False, "temporary-directory": str(folder)}
        with dask.config.set(own):
            with _deaf_to_ctrl_c():
                scheduler = {"cls": Scheduler, "options": here}
                cluster = SpecCluster(specs, scheduler, silence_logs=logging.CRITICAL)
            try:
                with Client(cluster, set_as_default=False) as client:
                    yield client
            finally:
                cluster.close()


def _resources() -> dict[str, int]:
    """Of the one worker of this machine that times."""
    return {TIMING: 1} | ({CUDA: 1} if torch.cuda.is_available() else {})


@contextmanager
def _own_main_only() -> Iterator[None]:
    """Processes that start here import nothing of the running script, which may begin a sweep when it is imported."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Threads that begin here, and their processes, leave Ctrl-C to this one: a terminal sends it to all."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
