"""The output of a LightZero run: kept in a log file, from which evaluations are read."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

__all__ = ["quietly", "tail"]


class LogFile(logging.FileHandler):
    """LightZero's log, and the evaluations in it."""

    _EVALUATION = re.compile(r"Training iteration (\d+): Evaluation completed.*'eval_episode_return_mean': (-?[\d.]+)")

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        super().__init__(path)
        self.evaluations: dict[int, float] = {}  # train iteration -> mean return
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        found = self._EVALUATION.search(record.getMessage())
        if found:
            self.evaluations[int(found[1])] = round(float(found[2]), 1)
            self._say(f"train iteration {found[1]}: mean evaluation return {float(found[2]):.1f}")


@contextmanager
def quietly(log: Path, progress: Callable[[str], None]) -> Iterator[tuple[Callable[[str], None], dict[int, float]]]:
    """Send all that is printed and logged to ``log``.

    Yields:
        ``progress``, which still prints to the terminal, and the evaluations so far.
    """
    stdout, stderr = sys.stdout, sys.stderr

    def say(line: str) -> None:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            progress(line)

    root = logging.getLogger()
    level, before = root.level, {logger: logger.handlers[:] for logger in _loggers()}
    log_file = LogFile(log, say)
    root.handlers = [log_file]
    root.setLevel(logging.INFO)
    try:
        with open(log, "a", buffering=1) as printed, redirect_stdout(printed), redirect_stderr(printed):
            yield say, log_file.evaluations
    finally:
        for logger in _loggers():
            known = before.get(logger, [])
            for handler in logger.handlers:
                if handler not in known:
                    handler.close()
            logger.handlers = known
        root.setLevel(level)


def _loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.values()
    return [logging.root, *(each for each in named if isinstance(each, logging.Logger))]


def tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"
