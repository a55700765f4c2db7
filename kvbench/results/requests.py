"""The file that ``kvbench trace replay --json`` writes. Sizes are in the trace's unit; None was not measured."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvbench.results.decode import Scalars

__all__ = ["MADE_BY", "PoolResult", "PoolTimes", "RequestResults", "RequestTrace"]

MADE_BY = "'kvbench trace replay --json'"


class RequestTrace(Struct, frozen=True, kw_only=True):
    """The trace that was replayed, and how many of its requests; ``source`` is what its header says of that."""

    file: str
    sha256: str
    requests: int
    replayed: int
    size_unit: Literal["tokens", "bytes", "entries"]
    source: Scalars


class PoolTimes(Struct, frozen=True, kw_only=True):
    """Bookkeeping of one request, us: a lookup, and a store after a miss. A sample is the mean of so many requests."""

    p25: float
    p50: float
    p75: float
    p99: float
    samples: int
    requests_of_a_sample: int


class PoolResult(Struct, frozen=True, kw_only=True):
    """One pool. All but ``bookkeeping_us`` is the same on any machine.

    ``hit`` is right content, ``stale_hit`` another key's. ``context_mismatch`` is always None: a trace without a tree
    does not say which context was meant. ``too_large`` are misses that the pool cannot hold.
    """

    eviction: str
    storage: str
    capacity: str
    slots: int | None
    size_limit: int | None
    requests: int
    hit: int
    stale_hit: int
    context_mismatch: None
    miss: int
    too_large: int
    evictions: int
    requested_size: int
    hit_size: int
    most_held_size: int
    entries: int
    bytes_reserved: int
    bookkeeping_us: PoolTimes | None


class RequestResults(Struct, frozen=True, kw_only=True):
    """The whole file: ``created`` is ISO 8601, ``command`` the arguments of kvbench."""

    format: Literal["kvcache-request-replay"] = "kvcache-request-replay"
    schema_version: Literal[1] = 1
    created: str
    command: list[str]
    machine: Scalars
    trace: RequestTrace
    pools: list[PoolResult]
