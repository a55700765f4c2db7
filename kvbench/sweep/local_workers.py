"""Dask's workers on this machine: processes that Ctrl-C in a terminal does not reach, started anew where one dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from kvbench.errors import KvbenchError
from kvbench.files import uninterrupted
from kvbench.gate.build import END_WITH_PARENT

__all__ = ["LocalWorkers", "SweepError"]

_MOST_STARTS = 3  # of a worker that never answers


class SweepError(KvbenchError):
    """A sweep that cannot begin or go on: what was wrong, and what to do."""


class LocalWorkers:
    """Worker processes of a scheduler, ``number`` of them; the first has ``resources``. ``close`` ends them.

    A Dask nanny would start them anew as well, but in this process group, and from the script that runs.
    """

    def __init__(self, scheduler: str, number: int, resources: Mapping[str, int], folder: Path) -> None:
        self._scheduler = scheduler
        self._folder = folder
        named = " ".join(f"{name}={count}" for name, count in resources.items())
        self._options = [["--resources", named] if place == 0 else [] for place in range(number)]
        self._running: list[subprocess.Popen[bytes] | None] = [None] * number
        self._met, self._starts = 0, [0] * number

    def keep_running(self, met: int) -> None:
        """Start those that are not running; ``met`` counts the workers that have answered so far.

        Raises SweepError: they end again and again, and none has answered in between.
        """
        if met > self._met:
            self._met, self._starts = met, [0] * len(self._running)
        for place, process in enumerate(self._running):
            if process is None or process.poll() is not None:
                self._starts[place] += 1
                if self._starts[place] > _MOST_STARTS:
                    raise SweepError(f"workers end as soon as they begin: {self._last_line(place)}")
                self._start(place)

    def _start(self, place: int) -> None:
        command = [
            sys.executable, "-P", "-m", "distributed.cli.dask_worker", self._scheduler, "--no-nanny", "--nthreads", "1",
            "--host", "127.0.0.1", "--no-dashboard", "--memory-limit", "0", "--name", str(place),
            "--local-directory", str(self._folder), *self._options[place],
        ]  # fmt: skip
        own = {
            "PYTHONPATH": os.pathsep.join(each for each in sys.path if each), "OMP_NUM_THREADS": "1",
            "DASK_TEMPORARY_DIRECTORY": str(self._folder), "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
        }  # fmt: skip
        with open(self._log(place), "wb") as log, uninterrupted():
            self._running[place] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | own,
                start_new_session=True, preexec_fn=END_WITH_PARENT,  # noqa: PLW1509 (one call of C)
            )  # fmt: skip

    def _log(self, place: int) -> Path:
        return self._folder / f"worker-{place}.log"

    def _last_line(self, place: int) -> str:
        lines = self._log(place).read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "they say nothing")

    def close(self) -> None:
        """End them at once: what is whole is in files."""
        for process in self._running:
            if process is not None:
                process.kill()
                process.wait()
