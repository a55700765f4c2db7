"""A replay as a table: one row a number, one column a cache."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from kvbench.cli.console import cells_of, make_table
from kvbench.metrics import COUNTERS, METRICS, OUTCOMES
from kvbench.replay.drive import OPERATIONS
from kvbench.results.replay import DEFAULT_CAPACITIES, POOLS, STEP, BackendResult, Latency, ReplayResult
from kvbench.text import clean

__all__ = ["replay_table"]

LABEL_WIDTH = 40
STRIDED = METRICS["strided_bytes"]
Rows = dict[str, list[str]]  # by label, a cell for each backend


def replay_table(replay: ReplayResult) -> Table:
    """The table of one entry of ``replays`` in the JSON file."""
    backends = replay.backends
    table = make_table(_title(replay), [""], [each.name for each in backends], LABEL_WIDTH)
    counted = _counted(replay)
    sections = {
        "latency, us: p50 / p95 / p99": _latencies([each.latency_us for each in backends]),
        "time of a search": _clears(backends),
        "latency on the device, us: p50 / p95 / p99": _latencies([each.device_latency_us for each in backends]),
        f"recurrent step, times faster than {replay.baseline}": _ratios(replay),
        f"forward over the batch, times that over {replay.baseline}'s": _forwards(replay),
        "lookup outcomes": _outcomes(replay),
        "bytes reserved": _memory(backends, counted),
        f"in a recurrent step{counted}, median": {
            each.label: cells_of([backend.counts_per_step.get(each.name) for backend in backends], "{:,.0f}")
            for each in COUNTERS
            if each.published
        },
    }
    for heading, rows in sections.items():
        if rows:
            table.add_row(Text(heading, style="bold"))
        for label, cells in rows.items():
            table.add_row(f"  {label}", *cells)
    return table


def _title(replay: ReplayResult) -> str:
    trace, capacity = replay.trace, replay.capacity
    source, geometry = trace.source, trace.geometry
    recorded = f"{source.get('environment', '?')}, {source.get('library', '?')} {source.get('version', '')}".rstrip()
    traced = f"{trace.file} ({'synthetic' if trace.synthetic else recorded}, geometry {geometry.name})"
    return (
        f"{clean(traced)} on {replay.device}\n"
        f"{trace.searches} searches, {trace.recurrent_steps} recurrent steps of {geometry.env_num} environments; "
        f"slots: init {capacity.init or 'default'}, recur {capacity.recur or 'default'}"
    )


def _counted(replay: ReplayResult) -> str:
    """Where operations and memory were counted, if not in all searches."""
    searches = replay.counted_searches
    if searches in (None, replay.trace.searches):
        return ""
    return ", in the first search" if searches == 1 else f", in the first {searches} searches"


def _latencies(by_backend: Sequence[dict[str, Latency] | None]) -> Rows:
    if not any(by_backend):
        return {}
    return {
        operation.replace("_", " "): cells_of(
            [(each or {}).get(operation) for each in by_backend], "{0.p50:.1f} / {0.p95:.1f} / {0.p99:.1f}"
        )
        for operation in (*OPERATIONS, STEP)
    }


def _clears(backends: Sequence[BackendResult]) -> Rows:
    shares = [each.clear_share for each in backends]
    if all(share is None for share in shares):
        return {}
    return {"clearing, %": cells_of([None if share is None else 100 * share for share in shares], "{:.2f}")}


def _ratios(replay: ReplayResult) -> Rows:
    ratios = [replay.baseline_over_backend[each.name] for each in replay.backends]
    shown = cells_of(ratios, "{0.median:.2f} ({0.p25:.2f} to {0.p75:.2f})")
    return {"median (quartiles)": shown} if any(ratios) else {}


def _forwards(replay: ReplayResult) -> Rows:
    if not replay.forward_over_baseline:
        return {}
    found = [replay.forward_over_baseline.get(each.name) for each in replay.backends]
    return {
        "median (quartiles)": cells_of(found, "{0.median:.2f} ({0.p25:.2f} to {0.p75:.2f})"),
        STRIDED.label: cells_of([None if each is None else each.strided_bytes for each in found], "{:,}"),
    }


def _outcomes(replay: ReplayResult) -> Rows:
    backends = replay.backends
    rows = {"lookups": cells_of([each.count("lookups") for each in backends], "{:,}")}
    for outcome in OUTCOMES:
        rows[f"{outcome.label}, %"] = cells_of([each.rate(outcome.name) for each in backends], "{:.2f}")
    # At other sizes than the recorded run's it would only say that they are other sizes.
    outcomes = [each.outcomes for each in backends]
    if replay.capacity.label in DEFAULT_CAPACITIES and any(each.recorded_lookups for each in outcomes):
        differing = [each.disagreements_with_recorded_run for each in outcomes]
        rows["found or not, unlike the recorded run"] = cells_of(differing, "{:,}")
    rows["evictions: init / recur"] = [" / ".join(cells_of(each.evictions.values(), "{:,}")) for each in backends]
    return rows


def _memory(backends: Sequence[BackendResult], counted: str) -> Rows:
    reserved = [each.bytes_reserved for each in backends]
    rows = {pool: cells_of([each[pool] for each in reserved], "{:,}") for pool in POOLS}
    rows["together"] = cells_of([sum(each.values()) for each in reserved], "{:,}")
    peaks = [each.peak_bytes for each in backends]
    if any(peak is not None for peak in peaks):
        rows[f"peak memory, batches included{counted}"] = cells_of(peaks, "{:,}")
    return rows
