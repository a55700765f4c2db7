"""The file that ``kvbench gate --json`` writes."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from kvbench.results.decode import Scalars

__all__ = ["GateResults"]


class GateResults(Struct, frozen=True, kw_only=True):
    """The whole file. Files without a format and a schema version are of version 1."""

    format: Literal["kvcache-gate"] = "kvcache-gate"
    schema_version: Literal[1] = 1
    base: str
    machine: Scalars
    compiled: dict[str, list[str]] | UnsetType = UNSET  # modules of ``base`` and ``head``; not in old files
    pairs: int
    seconds: float
    notes: list[str] | UnsetType = UNSET  # what could not be measured, and why; not in old files
    rows: list[Scalars]  # each a ``kvbench.judge.row.Row``
