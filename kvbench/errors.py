"""The errors that the command line prints as one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from kvbench.files import ADVICE, UNFINISHED
from kvbench.text import clean

__all__ = ["FileError", "KvbenchError", "told"]

_OTHER = "name another file or folder"


class KvbenchError(ValueError):
    """Something that the person at the keyboard can mend: it says what was wrong, where, and what to do."""


class FileError(KvbenchError):
    """A file or folder that cannot be used: which one, and what is wrong with it."""

    def __init__(self, path: str | Path, fault: str) -> None:
        super().__init__(clean(f"{path}: {fault}"))


def told(error: Exception) -> str:
    """What an error says: of the system's, without its number, and with the file that was named for a temporary one."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    parts = Path(os.fsdecode(error.filename)).parts if isinstance(error.filename, str | bytes) else ()
    named = [found["name"] if (found := UNFINISHED.fullmatch(part)) else part for part in parts]
    where = [str(Path(*named))] if named else []
    is_absent = error.errno in (None, errno.ENOENT)
    advice = _OTHER if is_absent else ADVICE.get(error.errno or 0, _OTHER)
    return ": ".join([*where, error.strerror, advice])
