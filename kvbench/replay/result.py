"""A replay as its file has it. Apart from the numbers' own module, since asv's suite has no msgspec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import convert

from kvbench.replay.passes import BackendReport
from kvbench.replay.summary import ratio, summarise
from kvbench.results.replay import Capacity, ReplayResult

__all__ = ["result_of"]


def result_of(
    reports: Mapping[str, BackendReport], trace: Mapping[str, Any], device: str, capacity: Capacity,
    forward: Mapping[str, Any] | None = None, counted_searches: int | None = None,
) -> ReplayResult:  # fmt: skip
    """What a replay's file has of it. Ratios are to the first backend; ``trace`` is from ``describe_trace``.

    Operations and memory were counted in the first ``counted_searches``; None is all.
    """
    first = next(iter(reports.values()))
    content = {
        "trace": trace,
        "device": device,
        "capacity": capacity,
        "baseline": first.name,
        "backends": [summarise(report) for report in reports.values()],
        "baseline_over_backend": {name: ratio(first, report) for name, report in reports.items()},
        "forward_over_baseline": forward,
        "counted_searches": min(counted_searches or trace["searches"], trace["searches"]),
    }
    return convert(content, ReplayResult)
