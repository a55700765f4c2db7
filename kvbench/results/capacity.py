"""The file that ``kvbench capacity --json`` writes. Fields are named as in JSON, with units."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from kvcache import Geometry

__all__ = [
    "FORMAT", "SCHEMA_VERSION", "CapacityPoint", "CapacityResults", "CapacityTrace", "Sampled", "SmallestPool",
]  # fmt: skip

FORMAT = "kvcache-capacity"
SCHEMA_VERSION = 1


class CapacityTrace(Struct, frozen=True, kw_only=True):
    """The trace, and how much of it was asked for."""

    file: str
    sha256: str
    events: int
    searches: int
    geometry: Geometry
    source: dict[str, Any]
    synthetic: bool


class Sampled(Struct, frozen=True, kw_only=True):
    """The periods between two clears of the recurrent pool that were followed, out of how many."""

    followed_periods: int
    periods: int


class CapacityPoint(Struct, frozen=True, kw_only=True):
    """Lookup outcomes of one policy at one size.

    Attributes:
        policy: a strategy, ``legacy``, or a bound: ``belady`` or ``unbounded``.
        unit: ``entries`` or ``pages``: what the pool's memory is divided into.
        size: of one pool, in that unit.
        bytes: of all pools of the kind.
        lookups: of the whole trace.
        hit, context_mismatch, stale_hit, miss: how many came out so; estimates in a sample.
        rates: of each outcome, a share of the lookups; None without any.
        errors: half the width of each rate's 95 % confidence interval; 0 where all was followed.
    """

    policy: str
    unit: Literal["entries", "pages"]
    size: int
    bytes: int
    lookups: int
    hit: int
    context_mismatch: int
    stale_hit: int
    miss: int
    rates: dict[str, float | None]
    errors: dict[str, float]


class SmallestPool(Struct, frozen=True, kw_only=True):
    """The smallest pool of a policy with nearly the hits of an unlimited one."""

    policy: str
    unit: Literal["entries", "pages"]
    size: int
    bytes: int
    hit_rate: float | None


class CapacityResults(Struct, frozen=True, kw_only=True):
    """The whole file: ``created`` is ISO 8601, ``command`` the arguments of kvbench.

    Attributes:
        pool: the kind whose size varies, ``recur`` or ``init``.
        itemsize: bytes of one element.
        sampled: None where all was followed.
        unlimited: a pool that never evicts, at the fewest entries.
        enough: the share of its hits that ``smallest`` have.
    """

    format: Literal["kvcache-capacity"]
    schema_version: Literal[1]
    created: str
    command: list[str]
    trace: CapacityTrace
    pool: Literal["recur", "init"]
    itemsize: int
    sampled: Sampled | None
    unlimited: CapacityPoint
    enough: float
    points: list[CapacityPoint]
    smallest: list[SmallestPool]
