"""Cells: what a plan comes to. Each is one replay of one cache, with a name that its parameters decide."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from msgspec import Struct, to_builtins

from kvbench.replay.settings import CacheSettings, cache_config, capacity_of_trace, parse_capacity
from kvbench.results.replay import Capacity
from kvbench.results.sweep import SCHEMA_VERSION
from kvbench.sweep.plan import Plan
from kvbench.trace.reader import TraceReader

__all__ = ["COMMIT", "LEGACY", "Cell", "TraceFile", "cells_of", "digest_of_file", "trace_files"]

LEGACY = "legacy"
COMMIT = "commit "  # what the name of a commit's library begins with
_ID = 32  # hexadecimal digits of a cell's name
_BLOCK = 2**20
_SHORT = 8  # digits of a commit, for people


class TraceFile(Struct, frozen=True):
    """A trace, by its path and by its content."""

    path: str
    sha256: str


class Cell(Struct, frozen=True):
    """One replay of one cache on one trace."""

    trace: TraceFile
    backend: str
    storage: str | None
    capacity: Capacity
    eviction: str | None
    dtype: str
    device: str
    library: str
    searches: int | None
    repetitions: int
    counted_searches: int | None

    @property
    def id(self) -> str:
        """Its name: a hash of the trace's content, the parameters, the library and the schema."""
        content = to_builtins(self) | {"trace": self.trace.sha256, "schema": SCHEMA_VERSION}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_ID]

    @property
    def cache(self) -> str:
        """The cache as ``kvbench replay`` calls it."""
        return f"{self.backend}:{self.storage}" if self.storage else self.backend

    @property
    def is_timed(self) -> bool:
        """Whether its times are measured: those of legacy are, beside every other cache's."""
        return self.repetitions > 0 and self.cache != LEGACY

    @property
    def settings(self) -> CacheSettings:
        """As a replay has them."""
        eviction = self.eviction or "fifo"
        return {"searches": self.searches, "eviction": eviction, "dtype": self.dtype, "threads": 1}

    def __str__(self) -> str:
        """For people: what it replays."""
        trace, commit = Path(self.trace.path).name, ""
        if self.library.startswith(COMMIT):
            commit = self.library[: len(COMMIT) + _SHORT]
        parts = (self.cache, trace, self.capacity.label, self.eviction, self.dtype, self.device, commit)
        return ", ".join(each for each in parts if each)


def trace_files(plan: Plan) -> dict[TraceFile, TraceReader]:
    """The plan's traces, each opened once. Raises TraceError."""
    readers = [TraceReader(path) for path in plan.trace]
    return {TraceFile(str(each.path), digest_of_file(each.path)): each for each in readers}


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def cells_of(plan: Plan, traces: dict[TraceFile, TraceReader], libraries: Sequence[str]) -> list[Cell]:
    """All cells of a plan, each once, those of a trace together. A legacy cache has no storage and no eviction.

    Raises CapacityError: a trace's caches cannot have that size.
    """
    found: dict[str, Cell] = {}
    crossed = product(traces, libraries, plan.device, plan.dtype, plan.capacity, _caches(plan))
    for trace, library, device, dtype, label, (backend, storage, eviction) in crossed:
        header = traces[trace].header
        capacity = capacity_of_trace(parse_capacity(str(label)), header, dtype)
        cell = Cell(
            trace, backend, storage, capacity, eviction, dtype, device, library, plan.searches, plan.repetitions,
            plan.counted_searches,
        )  # fmt: skip
        cache_config(traces[trace], capacity, "cpu", cell.settings)
        found.setdefault(cell.id, cell)
    return list(found.values())


def _caches(plan: Plan) -> Iterator[tuple[str, str | None, str | None]]:
    """Backend, storage and eviction."""
    for name in plan.backend:
        backend, _, own = name.partition(":")
        is_new = backend == "new"
        storages: list[str | None] = [own] if own else [*plan.storage] if is_new else []
        evictions: list[str | None] = [*plan.eviction] if is_new else [None]
        for storage, eviction in product(storages or [None], evictions):
            yield backend, storage, eviction
