"""The file that ``kvbench replay --json`` writes. Fields are named as in JSON, with units; None was not measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from kvbench import metrics
from kvbench.results.decode import Scalars
from kvcache import Geometry

__all__ = [
    "COMMIT", "DEFAULT_CAPACITIES", "FORMAT", "MADE_BY", "OUTCOMES", "SCHEMA_VERSION", "STEP", "BackendResult",
    "Forward", "Latency", "ReplayResult", "ReplayResults", "Timeline", "Trace",
]  # fmt: skip

FORMAT = "kvcache-replay"
SCHEMA_VERSION = 2  # 2: percentiles of each operation, and a timeline
MADE_BY = "'kvbench replay --json'"
DEFAULT_CAPACITIES = ("default", "recorded")
STEP = "recurrent_step"
COMMIT = "kvcache_commit"  # of a machine's description
POOLS = ("init", "recur", "wm", "batch")
OUTCOMES = tuple(metric.name for metric in metrics.OUTCOMES)

Count = int | float  # a count, or a median of counts


class Trace(Struct, frozen=True, kw_only=True):
    """The trace that a result is about, and how much of it was replayed."""

    file: str
    sha256: str
    events: int
    searches: int
    recurrent_steps: int
    geometry: Geometry
    source: dict[str, Any]
    synthetic: bool
    backend: str | None


class Capacity(Struct, frozen=True):
    """Sizes of the pools; None leaves one to the backend."""

    label: str
    init: int | None = None
    recur: int | None = None
    init_bytes: int | None = None
    recur_bytes: int | None = None


class Latency(Struct, frozen=True, kw_only=True):
    """Times of one operation, us; ``percentiles``: 101, from the fastest call to the slowest, since version 2."""

    p50: float
    p95: float
    p99: float
    samples: int
    percentiles: Annotated[list[float], Meta(min_length=101, max_length=101)] | None = None


class Outcomes(Struct, frozen=True, kw_only=True):
    """Outcomes of lookups, counted, with ``lookups`` and the ``_rate`` of each."""

    root: dict[str, Count | None]
    node: dict[str, Count | None]
    total: dict[str, Count | None]
    recorded_lookups: int
    disagreements_with_recorded_run: int
    faults: list[str]

    def __post_init__(self) -> None:
        for name in ("lookups", *OUTCOMES):
            if self.total.get(name) is None:
                raise ValueError(f"total.{name} is missing")


class Timeline(Struct, frozen=True, kw_only=True):
    """What pools held after ``steps``, and outcomes by place in a search (``kvbench.replay.timeline``)."""

    steps: list[int]
    entries: dict[str, list[int]]
    bytes_reserved: dict[str, list[int]]
    by_simulation: list[dict[str, int]]
    by_depth: list[dict[str, int]]

    def __post_init__(self) -> None:
        for name, needed in (("entries", POOLS[:2]), ("bytes_reserved", POOLS)):
            pools = getattr(self, name)
            for pool in dict.fromkeys((*needed, *pools)):
                found = len(pools.get(pool, ()))
                if found != len(self.steps):
                    raise ValueError(f"{name}.{pool} has {found} samples, not {len(self.steps)} as the steps have")

    def counts(self, axis: str) -> dict[int, dict[str, int]]:
        """Outcomes, counted, by ``simulation`` (-1 is the root's) or by ``depth``."""
        rows = self.by_simulation if axis == "simulation" else self.by_depth
        return {row.get(axis, 0): {outcome: row.get(outcome, 0) for outcome in OUTCOMES} for row in rows}


class BackendResult(Struct, frozen=True, kw_only=True):
    """One backend of one replay: times by operation, numbers by pool, counters by operation and of a median step.

    ``clear_share``: the part of all calls' time in which pools are cleared, 0 to 1. Files that have it count it in the
    recurrent steps.
    """

    name: str
    latency_us: dict[str, Latency] | None
    device_latency_us: dict[str, Latency] | None = None
    clear_share: float | None = None
    outcomes: Outcomes
    evictions: dict[str, int]
    bytes_reserved: dict[str, int]
    peak_bytes: int | None = None
    counts: dict[str, dict[str, Count]] | None = None
    counts_per_recurrent_step_median: dict[str, Count] | None
    timeline: Timeline | None = None

    def __post_init__(self) -> None:
        if self.latency_us and STEP not in self.latency_us:
            raise ValueError(f"the latencies of {self.name!r} have no {STEP}")

    @property
    def distributions(self) -> dict[str, list[float]]:
        """The percentiles of each operation, us; empty in files of schema version 1."""
        return {name: each.percentiles for name, each in (self.latency_us or {}).items() if each.percentiles}

    @property
    def counts_per_step(self) -> dict[str, Count]:
        """Counted work of a median recurrent step; empty where there was none."""
        return self.counts_per_recurrent_step_median or {}

    def count(self, outcome: str) -> Count:
        """Lookups of that outcome, or all of them (``lookups``)."""
        return self.outcomes.total[outcome] or 0

    def rate(self, outcome: str) -> float | None:
        """Share of all lookups, %; None without any."""
        lookups = self.count("lookups")
        return 100 * self.count(outcome) / lookups if lookups else None


class Ratio(Struct, frozen=True, kw_only=True):
    """How many times faster than the baseline a recurrent step is."""

    median: float
    p25: float
    p75: float
    lowest_repetition: float
    highest_repetition: float


class Forward(Struct, frozen=True, kw_only=True):
    """The attention over a backend's batches, over that of the baseline's; bytes that do not lie head by head."""

    median: float
    p25: float
    p75: float
    strided_bytes: int


class ReplayResult(Struct, frozen=True, kw_only=True):
    """One trace on one device at one capacity. Backends are in the order of the command.

    Operations and peak memory are of the first ``counted_searches``; None, in older files, is all.
    """

    trace: Trace
    device: str
    capacity: Capacity
    baseline: str
    backends: list[BackendResult]
    baseline_over_backend: dict[str, Ratio | None]
    forward_over_baseline: dict[str, Forward] | None = None
    counted_searches: int | None = None

    def __post_init__(self) -> None:
        if self.baseline not in [each.name for each in self.backends]:
            raise ValueError(f"its baseline {self.baseline!r} is none of its backends")
        # Pages have the backends side by side.
        if any(set(each.evictions) != set(self.backends[0].evictions) for each in self.backends):
            raise ValueError("its backends have evictions of other pools than the first")
        timelines = [each.timeline for each in self.backends if each.timeline is not None]
        if len({(*each.steps, *sorted(each.entries), *sorted(each.bytes_reserved)) for each in timelines}) > 1:
            raise ValueError("its backends have timelines of other steps or pools than the first")

    @property
    def first(self) -> BackendResult:
        """The baseline's result."""
        return next(each for each in self.backends if each.name == self.baseline)


class NotMeasured(Struct, frozen=True):
    """A device that was left out, and why."""

    device: str
    reason: str


class ReplayResults(Struct, frozen=True, kw_only=True):
    """The whole file: ``created`` is ISO 8601, ``command`` the arguments of kvbench, ``machines`` go by device."""

    format: Literal["kvcache-replay"]
    schema_version: Literal[1, 2]
    created: str
    command: list[str]
    settings: Scalars
    machines: dict[str, Scalars]
    replays: list[ReplayResult]
    not_measured: list[NotMeasured]
