"""The file that ``tox -e gpu`` writes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvbench.results.decode import Scalars

__all__ = ["MADE_BY", "GpuPart", "GpuResults", "GpuRow"]

MADE_BY = "'tox -e gpu'"


class GpuRow(Struct, frozen=True, kw_only=True):
    """One number, or the reason why there is none."""

    part: str
    name: str
    value: float | None = None
    unit: str = ""
    wanted: str = ""  # in words; empty where nothing is promised
    holds: bool | None = None  # whether it is as wanted; None where nothing is promised, or nothing was measured
    reason: str = ""


class GpuPart(Struct, frozen=True, kw_only=True):
    """One part of the run; rows of a part that did not end are kept."""

    name: str
    status: Literal["done", "failed", "timed out"]
    seconds: float
    reason: str = ""


class GpuResults(Struct, frozen=True, kw_only=True):
    """The whole file."""

    format: Literal["kvcache-gpu"] = "kvcache-gpu"
    schema_version: Literal[1] = 1
    date: str
    device: Literal["cuda", "cpu"]  # "cpu": a trial of the parts, of no card
    quick: bool
    card: Scalars  # name, driver, memory; empty without one
    machine: Scalars
    parts: list[GpuPart]
    rows: list[GpuRow]
