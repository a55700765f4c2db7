"""Each metric once: its name in JSON, its unit, which way is better, and how tables, pages and asv call it.

A new metric touches two files: this one, and the one that measures it (``kvbench/measure/counters.py`` for a counter,
``kvbench/replay/forward.py`` for the forward, ``endurance.py`` there for long runs, ``summary.py`` there for the rest).
The replay's table, the gate's directions and asv's benchmarks follow.

This module imports nothing of ours and nothing heavy: asv's benchmarks read it by its path.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "COMPILED", "COUNTERS", "FORWARD", "LATENCIES", "LONG_RUNS", "METRICS", "OUTCOMES", "POOLS", "SMALL_POOL",
    "Metric", "direction_of",
]  # fmt: skip

SMALL_POOL = "_in_small_pool"  # what the name of a metric ends with that was measured with a small recurrent pool


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: in JSON, and in the gate's rows.
        label: in tables and on pages; with underscores, asv's ``track_`` name.
        better: ``lower`` or ``higher``.
        exact: whether it is the same on any machine, and compared exactly; if not, it is a time.
        any_change_fails: whether the gate calls a change worse that way, too: a drift must be meant.
        published: whether asv tracks it.
    """

    name: str
    label: str
    unit: str
    better: str = "lower"
    exact: bool = True
    any_change_fails: bool = False
    published: bool = True

    @property
    def slug(self) -> str:
        """The label as part of a Python name."""
        return self.label.replace(" ", "_")

    @property
    def direction(self) -> str:
        """For the gate: ``lower``, ``higher`` or ``none``."""
        return "none" if self.any_change_fails else self.better


# What an operation asks of torch: the fields of ``kvbench.measure.counters.Counts``.
COUNTERS = (
    Metric("tensor_ops", "tensor operations", "operations"),
    Metric("bytes_copied", "bytes copied", "bytes"),
    Metric("allocations", "allocations", "allocations"),
    Metric("bytes_allocated", "bytes allocated", "bytes", published=False),
    Metric("synchronisations", "synchronisations", "synchronisations"),
)
# What a call executes, of the library and beneath it: ``kvbench.measure.instructions``. Counted by the gate alone.
INSTRUCTIONS = Metric("instructions", "instructions", "instructions", published=False)
# Lookup outcomes; as rates of all lookups, in %. asv only alarms when a value rises: the hit rate is not published.
OUTCOMES = (
    Metric("hit", "hit", "lookups", "higher", any_change_fails=True, published=False),
    Metric("stale_hit", "stale hit", "lookups", any_change_fails=True),
    Metric("context_mismatch", "context mismatch", "lookups", any_change_fails=True),
    Metric("miss", "miss", "lookups", any_change_fails=True),
    Metric("wrong_content", "wrong content", "lookups", any_change_fails=True, published=False),
)
POOLS = (
    Metric("evictions", "evictions", "evictions", any_change_fails=True),
    Metric("bytes_reserved", "bytes reserved", "bytes"),
    Metric("peak_bytes", "peak memory", "bytes"),
)
LATENCIES = tuple(
    Metric(operation, f"{operation.removeprefix('recurrent_')} time", "us", exact=False)
    for operation in ("recurrent_step", "hash", "lookup", "assemble", "store", "clear")
)
# What a batch's layout costs the model: ``kvbench.replay.forward``.
FORWARD = (
    Metric("forward_over_legacy", "forward over legacy", "ratio", exact=False),
    Metric("strided_bytes", "strided bytes", "bytes"),
)
# Of each compiled module: whether it was built and imported, and by how many functions and workloads it is used.
COMPILED = Metric("compiled", "compiled parts", "uses", "higher", published=False)
# What a backend in long use costs and holds: ``kvbench.replay.endurance``.
LONG_RUNS = (
    Metric("bytecodes", "bytecodes", "bytecodes"),
    Metric("bytecodes_grown", "bytecodes grown", "bytecodes a lookup"),
    Metric("unreserved_bytes", "unreserved bytes", "bytes"),
    Metric("tensor_bytes_grown", "tensor bytes grown", "bytes a lookup"),
    Metric("array_bytes", "array bytes", "bytes"),
    Metric("host_bytes_grown", "host bytes grown", "bytes a lookup"),
    Metric("heap_bytes_grown", "heap bytes grown", "bytes a lookup"),
    Metric("host_scratch_bytes", "host scratch", "bytes"),
)
METRICS = {
    metric.name: metric
    for metric in (*COUNTERS, INSTRUCTIONS, *OUTCOMES, *POOLS, *LATENCIES, *FORWARD, COMPILED, *LONG_RUNS)
}


def direction_of(name: str) -> str | None:
    """The gate's direction of a metric, measured with a small pool or not; None where there is no such metric."""
    metric = METRICS.get(name.removesuffix(SMALL_POOL))
    return None if metric is None or not metric.exact else metric.direction
