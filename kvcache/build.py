"""Which build of the library is in use: its version, the commit that it was built from, and whether it is compiled."""

from __future__ import annotations

import importlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kvcache._version import __version__

__all__ = ["BuildInfo", "build_info"]

_NOTE = "kvcache._built_from"  # setup.py writes it into a wheel
_DESCRIBE = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
_COMPILED = (
    "kvcache._slots",
    "kvcache.eviction._tree",
    "kvcache.kernels._cpu_kernels",
    "kvcache.storage._page_arrays",
    "kvcache.world_model._tree_arrays",
)


@dataclass(frozen=True)
class BuildInfo:
    """A build of the library.

    Attributes:
        version: of the package.
        commit: that it was built from, with ``-dirty`` where files differed from it; None if unknown, as for a source
            archive.
        compiled: whether all compiled parts are there. Without them the new cache is slower.
    """

    version: str
    commit: str | None
    compiled: bool


def build_info() -> BuildInfo:
    """The build in use."""
    return BuildInfo(__version__, _commit(), all(map(_is_there, _COMPILED)))


def _commit() -> str | None:
    """The commit of the wheel, or of the checkout that the library is imported from."""
    if _is_there(_NOTE):
        return str(importlib.import_module(_NOTE).COMMIT)
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed, maybe inside of another checkout
        return None
    try:
        command = ["git", "-C", str(root), *_DESCRIBE]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or git does not trust the folder's owner
        return None


def _is_there(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
