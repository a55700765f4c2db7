"""What is wrong with a file that a report was to be made of."""

from __future__ import annotations

from pathlib import Path

from kvbench.errors import KvbenchError

__all__ = ["ReportError"]


class ReportError(KvbenchError):
    """An input that cannot be used: which file, and what is wrong with it."""

    def __init__(self, path: str | Path, fault: str) -> None:
        super().__init__(f"{path}: {fault}")
