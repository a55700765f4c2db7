"""From the results of a replay to the numbers that people and machines read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kvbench.measure.counters import Counts
from kvbench.replay.outcomes import Outcome, by_name
from kvbench.replay.passes import BackendReport, Verification
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step

__all__ = ["describe_trace", "median_step", "ratio", "summarise"]

PERCENTILES = (50, 95, 99)
_MICROSECOND = 1000.0


def describe_trace(reader: TraceReader, steps: Iterable[Step]) -> dict[str, Any]:
    """The trace that a result is about, and how much of it (``steps``) was replayed, as JSON has it."""
    header, searches, recurrent = reader.header, set(), 0
    for step in steps:
        searches.add(step.search)
        recurrent += step.is_recurrent
    return {
        "file": reader.path.name,
        "sha256": reader.sha256(),
        "events": reader.rows,
        "searches": len(searches),
        "recurrent_steps": recurrent,
        "geometry": header.geometry.to_dict(),
        "source": header.source,
        "synthetic": header.synthetic,
        "backend": header.backend,
    }


def summarise(report: BackendReport) -> dict[str, Any]:
    """All numbers of one backend, as JSON has them; what was not measured is None. Units are in the names.

    ``latency_us`` holds for each operation ``p50``, ``p95``, ``p99``, ``samples`` and ``percentiles``: 101 numbers,
    from the fastest call to the slowest. ``clear_share`` is a part of all calls' time,
    0 to 1. ``timeline`` is what ``Timeline.to_dict`` says.
    """
    times = report.times
    return {
        "name": report.name,
        "clear_share": None if times is None else _share(times.host, "clear"),
        "latency_us": None if times is None else _latency(times.host, times.step),
        "device_latency_us": None if times is None or not times.device else _latency(times.device, times.step_device),
        "peak_bytes": report.peak_bytes,
        **(dict.fromkeys(_CHECKED) if report.verification is None else _checked(report.verification)),
    }


_CHECKED = ("outcomes", "evictions", "bytes_reserved", "counts", "counts_per_recurrent_step_median", "timeline")


def _checked(verification: Verification) -> dict[str, Any]:
    """What the checked pass found, by the names of ``_CHECKED``."""
    outcomes, timeline = verification.outcomes, verification.timeline
    return {
        "outcomes": {
            **{scope: _rates(getattr(outcomes, scope)) for scope in ("root", "node", "total")},
            "recorded_lookups": outcomes.recorded,
            "disagreements_with_recorded_run": outcomes.disagreements,
            "faults": verification.faults,
        },
        "evictions": verification.evictions,
        "bytes_reserved": verification.bytes_reserved,
        "counts": {operation: asdict(counts) for operation, counts in verification.counts.items()},
        "counts_per_recurrent_step_median": median_step(verification.step_counts),
        "timeline": None if timeline is None else timeline.to_dict(),
    }


def ratio(baseline: BackendReport, other: BackendReport) -> dict[str, float] | None:
    """How many times faster ``other`` is than ``baseline`` on a recurrent step, from pairs timed one after the other.

    ``median``, ``p25`` and ``p75`` are of the paired ratios baseline / other over all recurrent steps of all
    repetitions; ``lowest_repetition`` and ``highest_repetition`` are medians of single ones. None without times.
    """
    if baseline.times is None or other.times is None or not baseline.times.step or not baseline.times.step[0]:
        return None
    paired = np.asarray(baseline.times.step, dtype=float) / np.asarray(other.times.step, dtype=float)
    medians = np.median(paired, axis=1)
    return {
        "median": float(np.median(paired)),
        "p25": float(np.percentile(paired, 25)),
        "p75": float(np.percentile(paired, 75)),
        "lowest_repetition": float(medians.min()),
        "highest_repetition": float(medians.max()),
    }


def median_step(counts: Sequence[Counts]) -> dict[str, float] | None:
    """Median of each counter over recurrent steps; None without any."""
    if not counts:
        return None
    return {name: float(np.median([getattr(each, name) for each in counts])) for name in Counts.__dataclass_fields__}


def _latency(
    by_operation: Mapping[str, Sequence[float]], steps: Sequence[Sequence[float]]
) -> dict[str, dict[str, Any]]:
    samples = {**by_operation, "recurrent_step": np.concatenate(steps) if steps else []}
    latency: dict[str, dict[str, Any]] = {}
    for operation, laps in samples.items():
        if len(laps):
            percentiles = (np.percentile(laps, range(101)) / _MICROSECOND).tolist()
            named = {f"p{percentile}": percentiles[percentile] for percentile in PERCENTILES}
            latency[operation] = {**named, "samples": len(laps), "percentiles": percentiles}
    return latency


def _share(by_operation: Mapping[str, Sequence[float]], operation: str) -> float | None:
    """The part of all calls' time that is of one operation."""
    whole = sum(map(sum, by_operation.values()))
    return sum(by_operation[operation]) / whole if whole else None


def _rates(outcomes: Counter[Outcome]) -> dict[str, float | None]:
    """Counts, and rates over all lookups. A stale hit or a mismatch is never part of the hit rate."""
    lookups = outcomes.total()
    named = by_name(outcomes)
    rates = {f"{name}_rate": count / lookups if lookups else None for name, count in named.items()}
    return {"lookups": lookups, **named, **rates}
