"""Times ``import kvcache`` in forks of a process that has torch and not the library: torch takes a second by itself."""

from __future__ import annotations

import importlib
import os
import struct
import sys
import time

__all__ = ["IMPORT_TIMES", "ImportTimes"]

LIBRARY = "kvcache"
_LAP = struct.Struct("q")  # nanoseconds
_FAILED = -1


class ImportTimes:
    """A clock, in seconds, that runs while the library is imported: ``import_once`` does that in a new process.

    ``start`` it before anything imports the library; what it forks ends with this process.
    """

    def __init__(self) -> None:
        self._nanoseconds = 0
        self._ask = self._told = -1

    def start(self) -> None:
        """Raises RuntimeError: the library is imported already."""
        import torch  # noqa: F401 (shared by all forks)

        if LIBRARY in sys.modules:
            raise RuntimeError(f"{LIBRARY} is imported already: its import can be timed no more")
        asked, self._ask = os.pipe()
        self._told, tell = os.pipe()
        if not os.fork():
            os.close(self._ask)
            os.close(self._told)
            _serve(asked, tell)
        os.close(asked)
        os.close(tell)

    @property
    def is_started(self) -> bool:
        return self._ask >= 0

    def __call__(self) -> float:
        return self._nanoseconds / 1e9

    def import_once(self) -> None:
        """Raises ImportError: the library cannot be imported."""
        os.write(self._ask, b"?")
        told = os.read(self._told, _LAP.size)
        lap = _LAP.unpack(told)[0] if told else _FAILED
        if lap == _FAILED:
            raise ImportError(f"{LIBRARY} cannot be imported")
        self._nanoseconds += lap


def _serve(asked: int, tell: int) -> None:
    """Import in a fork each time that somebody asks; end when nobody can ask any more."""
    while os.read(asked, 1):
        process = os.fork()
        if not process:
            lap = _FAILED
            try:
                start = time.perf_counter_ns()
                importlib.import_module(LIBRARY)
                lap = time.perf_counter_ns() - start
            finally:
                os.write(tell, _LAP.pack(lap))
                os._exit(0)
        os.waitpid(process, 0)
    os._exit(0)


IMPORT_TIMES = ImportTimes()
