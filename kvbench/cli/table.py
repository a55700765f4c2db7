"""A replay as a table: one row a number, one column a cache."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.metrics import COUNTERS, OUTCOMES
from kvbench.replay.drive import OPERATIONS

__all__ = ["replay_table"]

_UNKNOWN = "-"
LABEL_WIDTH = 40
Backend = dict[str, Any]
Row = tuple[str, list[str]]  # a label, and a cell for each backend


def replay_table(replay: dict[str, Any]) -> Table:
    """The table of one entry of ``replays`` in the JSON file."""
    backends = replay["backends"]
    table = Table(title=Text(_title(replay)), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("", min_width=LABEL_WIDTH)
    for backend in backends:
        table.add_column(backend["name"], justify="right", no_wrap=True)
    sections = {
        "latency, us: p50 / p95 / p99": _latency(replay, "latency_us"),
        "latency on the device, us: p50 / p95 / p99": _latency(replay, "device_latency_us"),
        f"recurrent step, times faster than {replay['baseline']}": _ratios(replay),
        "lookup outcomes": _outcomes(replay),
        "bytes reserved": _memory(backends),
        "in a recurrent step, median": _counts(backends),
    }
    for heading, rows in sections.items():
        if rows:
            table.add_row(Text(heading, style="bold"))
        for label, cells in rows:
            table.add_row(f"  {label}", *cells)
    return table


def _title(replay: dict[str, Any]) -> str:
    trace, capacity = replay["trace"], replay["capacity"]
    source, geometry = trace["source"], trace["geometry"]
    sizes = ", ".join(f"{pool} {capacity[pool] or 'default'}" for pool in ("init", "recur"))
    kind = "synthetic" if trace["synthetic"] else f"{source.get('environment', '?')}, {source.get('library', '?')}"
    return (
        f"{trace['file']} ({kind} {source.get('version', '')}, geometry {geometry['name']}) on {replay['device']}\n"
        f"{trace['searches']} searches, {trace['recurrent_steps']} recurrent steps of {geometry['env_num']} "
        f"environments; slots: {sizes}"
    )


def _latency(replay: dict[str, Any], clock: str) -> list[Row]:
    latencies = [backend[clock] for backend in replay["backends"]]
    if not any(latencies):
        return []
    return [
        (operation.replace("_", " "), [_percentiles(each, operation) for each in latencies])
        for operation in (*OPERATIONS, "recurrent_step")
    ]


def _ratios(replay: dict[str, Any]) -> list[Row]:
    ratios = [replay["baseline_over_backend"][backend["name"]] for backend in replay["backends"]]
    return [("median (quartiles)", [_ratio(each) for each in ratios])] if any(ratios) else []


def _outcomes(replay: dict[str, Any]) -> list[Row]:
    backends = replay["backends"]
    outcomes = [backend["outcomes"] for backend in backends]
    rows = [("lookups", [f"{each['total']['lookups']:,}" for each in outcomes])]
    for outcome in OUTCOMES:
        rates = [each["total"][f"{outcome.name}_rate"] for each in outcomes]
        rows.append((f"{outcome.label}, %", [_percent(rate) for rate in rates]))
    # At other sizes than the recorded run's it would only say that they are other sizes.
    if replay["capacity"]["label"] in ("default", "recorded") and any(each["recorded_lookups"] for each in outcomes):
        differing = [f"{each['disagreements_with_recorded_run']:,}" for each in outcomes]
        rows.append(("found or not, unlike the recorded run", differing))
    evictions = [" / ".join(f"{each:,}" for each in backend["evictions"].values()) for backend in backends]
    return [*rows, ("evictions: init / recur", evictions)]


def _memory(backends: list[Backend]) -> list[Row]:
    reserved = [backend["bytes_reserved"] for backend in backends]
    rows = [(pool, [f"{each[pool]:,}" for each in reserved]) for pool in ("init", "recur", "wm", "batch")]
    rows.append(("together", [f"{sum(each.values()):,}" for each in reserved]))
    peaks = [backend["peak_bytes"] for backend in backends]
    if any(peak is not None for peak in peaks):
        rows.append(("peak memory, batches included", [f"{peak:,}" for peak in peaks]))
    return rows


def _counts(backends: list[Backend]) -> list[Row]:
    counts = [backend["counts_per_recurrent_step_median"] for backend in backends]
    return [
        (counter.label, [_count(each, counter.name) for each in counts]) for counter in COUNTERS if counter.published
    ]


def _percentiles(latency: dict[str, Any] | None, operation: str) -> str:
    if latency is None or operation not in latency:
        return _UNKNOWN
    return " / ".join(f"{latency[operation][each]:.1f}" for each in ("p50", "p95", "p99"))


def _ratio(value: dict[str, float] | None) -> str:
    return _UNKNOWN if value is None else f"{value['median']:.2f} ({value['p25']:.2f} to {value['p75']:.2f})"


def _percent(rate: float | None) -> str:
    return _UNKNOWN if rate is None else f"{100 * rate:.2f}"


def _count(counts: dict[str, float] | None, name: str) -> str:
    return _UNKNOWN if counts is None else f"{counts[name]:,.0f}"
