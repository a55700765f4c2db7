"""Files and folders that are whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_writable", "folder_whole_or_absent", "whole_or_absent"]


@contextmanager
def whole_or_absent(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``; renamed to it when the block ends well, removed when it does not.

    Raises:
        OSError: the folder cannot be written to.
    """
    beside = _beside(Path(path))
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Raise the OSError that writing ``path`` would raise; leaves nothing behind but the folder."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    beside = _beside(path)
    try:
        beside.touch()
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def folder_whole_or_absent(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path``; renamed to it when the block ends well, removed when it does not.

    Raises:
        FileExistsError: there is something at ``path`` already, before the block or after it: it is left as it is.
        OSError: the folder cannot be made.
    """
    path = Path(path)
    _refuse_existing(path)
    beside = _beside(path)
    beside.mkdir()
    try:
        yield beside
        _refuse_existing(path)
        os.rename(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name in the same folder, which is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists already, and is not overwritten: remove it or name another")
