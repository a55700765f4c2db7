"""``python -m kvbench``, and the command ``kvbench``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType

__all__ = ["main"]

_OURS = ("kvbench", "kvcache")
_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopError(KeyboardInterrupt):
    """Ctrl-C, or another signal that asks to end: what is unfinished is removed first."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise StopError(number)
        signal.signal(number, signal.SIG_DFL)  # a forked process has nothing to remove
        os.kill(os.getpid(), number)

    # What is ignored stays so: a command under nohup, or in a script's background.
    before = {each: signal.getsignal(each) for each in _ENDING}
    mine = [each for each in _ENDING if before[each] in (signal.SIG_DFL, signal.default_int_handler)]
    for each in mine:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each in mine:
            signal.signal(each, before[each])


def main() -> None:
    """Run the command line. Ends with one line where a package is missing that ``kvcache`` alone does not need."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no text is lost where a console lacks its letters
    try:
        with _stopped_by_signals():
            from kvbench.cli import main as command

            command(prog_name="kvbench")
    except KeyboardInterrupt as error:  # before the command began
        print("Interrupted", file=sys.stderr)
        sys.exit(128 + getattr(error, "signal", signal.SIGINT))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing in _OURS:
            raise
        sys.exit(f"Error: kvbench needs {missing!r}, which is not installed: pip install 'kvcache[bench]'")


if __name__ == "__main__":
    main()
