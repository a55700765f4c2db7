"""The errors that the command line prints as one line."""

from __future__ import annotations

from pathlib import Path

from kvbench.text import clean

__all__ = ["FileError", "KvbenchError"]


class KvbenchError(ValueError):
    """Something that the person at the keyboard can mend: it says what was wrong, where, and what to do."""


class FileError(KvbenchError):
    """A file or folder that cannot be used: which one, and what is wrong with it."""

    def __init__(self, path: str | Path, fault: str) -> None:
        super().__init__(clean(f"{path}: {fault}"))
