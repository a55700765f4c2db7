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
    """The trace, and how much of it was asked for; imported requests have no searches and no geometry."""

    file: str
    sha256: str
    events: int
    searches: int | None
    geometry: Geometry | None
    source: dict[str, Any]
    synthetic: bool


class Sampled(Struct, frozen=True, kw_only=True):
    """How much was followed: ``searches`` (periods between two clears of the recurrent pool) or ``requests``."""

    followed: int
    total: int
    unit: Literal["searches", "requests"]


class CapacityPoint(Struct, frozen=True, kw_only=True):
    """Lookup outcomes of one policy at one size.

    Attributes:
        policy: a strategy, ``legacy``, or a bound: ``belady`` or ``unbounded``.
        unit: ``entries`` or ``pages``: what the pool's memory is divided into.
        size: of one pool, in that unit.
        bytes: of all pools of the kind; None where entries have no size.
        lookups: of the whole trace.
        hit, context_mismatch, stale_hit, miss: how many came out so; estimates in a sample. None is not known.
        rates: of each outcome, a share of the lookups; None without any, and where it is not known.
        errors: half the width of each rate's 95 % confidence interval; 0 where all was followed.
    """

    policy: str
    unit: Literal["entries", "pages"]
    size: int
    bytes: int | None
    lookups: int
    hit: int
    context_mismatch: int | None
    stale_hit: int
    miss: int
    rates: dict[str, float | None]
    errors: dict[str, float]


class SmallestPool(Struct, frozen=True, kw_only=True):
    """The smallest pool of a policy with nearly the hits of an unlimited one."""

    policy: str
    unit: Literal["entries", "pages"]
    size: int
    bytes: int | None
    hit_rate: float | None


class CapacityResults(Struct, frozen=True, kw_only=True):
    """The whole file: ``created`` is ISO 8601, ``command`` the arguments of kvbench.

    Attributes:
        pool: the kind whose size varies, ``recur`` or ``init``; None of imported requests, which have one pool.
        itemsize: bytes of one element, where there are any.
        sampled: None where all was followed.
        unlimited: a pool that never evicts, at the fewest entries.
        enough: the share of its hits that ``smallest`` have.
    """

    format: Literal["kvcache-capacity"]
    schema_version: Literal[1]
    created: str
    command: list[str]
    trace: CapacityTrace
    pool: Literal["recur", "init"] | None
    itemsize: int | None
    sampled: Sampled | None
    unlimited: CapacityPoint
    enough: float
    points: list[CapacityPoint]
    smallest: list[SmallestPool]
