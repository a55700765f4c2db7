"""Results of ``kvbench replay --json`` as plain objects."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from kvbench.report.errors import ReportError
from kvbench.report.fields import Fields, read_json
from kvbench.report.text import clean
from kvcache import Geometry

__all__ = [
    "COMMIT",
    "DEFAULT_CAPACITIES",
    "OUTCOMES",
    "STEP",
    "BackendResult",
    "ReplayFile",
    "ReplayResult",
    "Timeline",
    "read_replays",
]

FORMAT = "kvcache-replay"
SCHEMA_VERSIONS = (1, 2)
_LATENCIES = ("p50", "p95", "p99", "samples")
_PERCENTILES = 101  # from the fastest call to the slowest
_RATIOS = ("median", "p25", "p75")
DEFAULT_CAPACITIES = ("default", "recorded")
STEP = "recurrent_step"
COMMIT = "kvcache_commit"  # of a machine's description
POOLS = ("init", "recur", "wm", "batch")
OUTCOMES = ("hit", "context_mismatch", "stale_hit", "miss", "wrong_content")


@dataclass(frozen=True)
class Timeline:
    """What pools held at samples of a replay, and outcomes by their place in a search.

    Attributes:
        steps: done at each sample.
        entries, bytes_reserved: by pool, one a sample.
        by_simulation, by_depth: counts by outcome; -1 is the root's simulation.
    """

    steps: list[float]
    entries: dict[str, list[float]]
    bytes_reserved: dict[str, list[float]]
    by_simulation: dict[int, dict[str, float]]
    by_depth: dict[int, dict[str, float]]


@dataclass(frozen=True)
class BackendResult:
    """One backend of one replay; None is what was not measured.

    Attributes:
        name: of the backend.
        latency_us: by operation, ``p50``, ``p95``, ``p99`` and ``samples``.
        distributions: by operation 101 percentiles, us; empty in files of schema version 1.
        outcomes: counts and rates of all lookups.
        evictions, bytes_reserved: by pool.
        peak_bytes: most held at once.
        counts_per_step: counted work of a recurrent step, median.
        over_baseline: how many times faster than the baseline: ``median``, ``p25``, ``p75``.
        timeline: None in files of schema version 1.
    """

    name: str
    latency_us: dict[str, dict[str, float]] | None
    distributions: dict[str, list[float]]
    outcomes: dict[str, float]
    evictions: dict[str, float]
    bytes_reserved: dict[str, float]
    peak_bytes: float | None
    counts_per_step: dict[str, float]
    over_baseline: dict[str, float] | None
    timeline: Timeline | None

    def rate(self, outcome: str) -> float | None:
        """Share of all lookups, %; None without any."""
        lookups = self.outcomes["lookups"]
        return 100 * self.outcomes[outcome] / lookups if lookups else None


@dataclass(frozen=True)
class ReplayResult:
    """One trace on one device at one capacity.

    Attributes:
        trace: the file's name.
        sha256: of the file.
        searches, recurrent_steps: replayed.
        geometry: of the trace.
        source: what made it, in words.
        synthetic: whether no real search stands behind it.
        device: ``cpu`` or ``cuda``.
        capacity: label of the pools' sizes.
        slots, slot_bytes: of the recurrent pool, where they were given.
        baseline: name of the backend that ratios are over.
        backends: in the order of the command.
    """

    trace: str
    sha256: str
    searches: int
    recurrent_steps: int
    geometry: Geometry
    source: str
    synthetic: bool
    device: str
    capacity: str
    slots: int | None
    slot_bytes: int | None
    baseline: str
    backends: tuple[BackendResult, ...]

    @property
    def first(self) -> BackendResult:
        """The baseline's result."""
        return next(each for each in self.backends if each.name == self.baseline)


@dataclass(frozen=True)
class ReplayFile:
    """One result file.

    Attributes:
        path: of the file.
        command: that made it.
        created: when, ISO 8601.
        machines: description by device.
        settings: of the run, as text by name.
        replays: in the order of the file.
        not_measured: pairs of what, and why.
        label: what it is called where its name is not enough.
    """

    path: Path
    command: str
    created: str
    machines: dict[str, dict[str, str]]
    settings: dict[str, str] = field(default_factory=dict)
    replays: tuple[ReplayResult, ...] = ()
    not_measured: tuple[tuple[str, str], ...] = ()
    label: str = ""

    @property
    def name(self) -> str:
        """What the file is called, fit to be shown."""
        return self.label or str(clean(self.path.name))

    @property
    def commit(self) -> str:
        """Of the library that was measured, ``-dirty`` where files differed from it; empty where it is not known."""
        return next((each[COMMIT] for each in self.machines.values() if COMMIT in each), "")


def read_replays(path: str | Path) -> ReplayFile:
    """Read one result file.

    Raises:
        ReportError: it cannot be read, or is not what ``kvbench replay --json`` writes.
    """
    fields = read_json(path)
    if fields.anything("format") != FORMAT:
        raise ReportError(fields.path, f"not a result of 'kvbench replay --json' (its format is no {FORMAT})")
    version = fields.anything("schema_version")
    if version not in SCHEMA_VERSIONS:
        raise ReportError(fields.path, f"schema version {version!r}: this kvcache reads {SCHEMA_VERSIONS}")
    machines = fields.object("machines")
    settings = fields.object("settings")
    return ReplayFile(
        fields.path,
        shlex.join(["kvbench", *fields.texts("command")]),
        fields.text("created"),
        {device: _as_texts(machines.object(device)) for device in machines},
        _as_texts(settings),
        tuple(_replay(each) for each in fields.objects("replays")),
        tuple((each.text("device"), each.text("reason")) for each in fields.objects("not_measured")),
    )


def _as_texts(fields: Fields) -> dict[str, str]:
    return {name: str(fields.anything(name)) for name in fields if fields.anything(name) is not None}


def _replay(fields: Fields) -> ReplayResult:
    trace, capacity, ratios = fields.object("trace"), fields.object("capacity"), fields.object("baseline_over_backend")
    source = trace.object("source")
    named = [str(source.anything(name)) for name in ("environment", "library", "version") if name in source]
    try:
        geometry = Geometry.from_dict(trace.anything("geometry") or {})
    except (TypeError, ValueError) as error:
        raise ReportError(fields.path, f"a trace's geometry: {error}") from None
    if not isinstance(geometry.name, str):
        raise ReportError(fields.path, "a trace's geometry: its name is not a text")
    slots, slot_bytes = capacity.number_or_none("recur"), capacity.number_or_none("recur_bytes")
    result = ReplayResult(
        trace.text("file"),
        trace.text("sha256"),
        int(trace.number("searches")),
        int(trace.number("recurrent_steps")),
        geometry,
        " ".join(named),
        bool(trace.anything("synthetic")),
        fields.text("device"),
        capacity.text("label"),
        None if slots is None else int(slots),
        None if slot_bytes is None else int(slot_bytes),
        fields.text("baseline"),
        tuple(_backend(each, ratios) for each in fields.objects("backends")),
    )
    _check_samples(fields, result)
    if result.baseline not in [each.name for each in result.backends]:
        raise ReportError(fields.path, f"its baseline {result.baseline!r} is none of its backends")
    return result


def _check_samples(fields: Fields, result: ReplayResult) -> None:
    """Backends take their samples after the same steps: pages have them side by side."""
    sampled: list[float] | None = None
    for each, backend in zip(fields.objects("backends"), result.backends, strict=True):
        if backend.timeline is not None:
            sampled = backend.timeline.steps if sampled is None else sampled
            if backend.timeline.steps != sampled:
                raise each.object("timeline").fault("steps", "are other steps than those of the backends before it")
        if set(backend.evictions) != set(result.backends[0].evictions):
            raise each.fault("evictions", "has other pools than those of the first backend")


def _backend(fields: Fields, ratios: Fields) -> BackendResult:
    name = fields.text("name")
    latency = fields.object("latency_us") if "latency_us" in fields else None
    operations = [] if latency is None else [(each, latency.object(each)) for each in latency]
    if operations and STEP not in dict(operations):
        raise ReportError(fields.path, f"the latencies of {name} have no {STEP}")
    total = fields.object("outcomes").object("total")
    return BackendResult(
        name,
        None
        if latency is None
        else {each: {key: values.number(key) for key in _LATENCIES} for each, values in operations},
        {each: _percentiles(values) for each, values in operations if "percentiles" in values},
        {each: total.number(each) for each in ("lookups", *OUTCOMES)},
        fields.numbers("evictions"),
        fields.numbers("bytes_reserved"),
        fields.number_or_none("peak_bytes"),
        fields.numbers("counts_per_recurrent_step_median") if "counts_per_recurrent_step_median" in fields else {},
        {each: ratios.object(name).number(each) for each in _RATIOS} if name in ratios else None,
        _timeline(fields.object("timeline")) if "timeline" in fields else None,
    )


def _percentiles(fields: Fields) -> list[float]:
    found = fields.number_list("percentiles")
    if len(found) != _PERCENTILES:
        raise fields.fault("percentiles", f"has {len(found)} numbers, not {_PERCENTILES}")
    return found


def _timeline(fields: Fields) -> Timeline:
    entries, reserved = fields.object("entries"), fields.object("bytes_reserved")
    steps = fields.number_list("steps")
    found = Timeline(
        steps,
        {pool: entries.number_list(pool) for pool in (POOLS[:2] if steps else ())},
        {pool: reserved.number_list(pool) for pool in (POOLS if steps else ())},
        _counts(fields, "simulation"),
        _counts(fields, "depth"),
    )
    for name, pools in (("entries", found.entries), ("bytes_reserved", found.bytes_reserved)):
        for pool, values in pools.items():
            if len(values) != len(steps):
                raise fields.object(name).fault(pool, f"has {len(values)} samples, not {len(steps)} as the steps have")
    return found


def _counts(fields: Fields, name: str) -> dict[int, dict[str, float]]:
    rows = [each.numbers() for each in fields.objects(f"by_{name}")]
    return {int(row.get(name, 0)): {outcome: row.get(outcome, 0) for outcome in OUTCOMES} for row in rows}
