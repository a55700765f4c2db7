"""One cell, measured in this process: the functions that ``kvbench replay`` calls, and a row of their numbers."""

from __future__ import annotations

import functools
import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins

from kvbench import metrics
from kvbench.errors import KvbenchError
from kvbench.measure.machine import Machine
from kvbench.replay.needs import Needs, require_for_replay
from kvbench.replay.passes import Replay
from kvbench.replay.settings import CacheSettings, cache_config, read_replayed
from kvbench.replay.summary import ratio, summarise
from kvbench.results.replay import STEP
from kvbench.results.sweep import DONE, FAILED
from kvbench.sweep.cells import COMMIT, LEGACY, Cell, digest_of_file
from kvbench.text import clean
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import TraceSteps

__all__ = ["Row", "failed_row", "measure", "measured_row"]

Row = dict[str, Any]  # of the columns in kvbench.results.sweep; what is absent is null

_KEPT = 2  # traces that a worker keeps: cells of one come after each other


def measured_row(cell: Cell, trace: Path, measure_cell: Callable[[Cell, Path], Row] | None = None) -> Row:
    """The cell's row, whatever happens: one that fails has its reason. ``trace`` is the file on this machine."""
    start = time.monotonic()
    try:
        row = (measure_cell or measure)(cell, trace)
    except Exception as error:  # a row says so: other cells go on
        row = failed_row(cell, _told(error))
    return row | {"seconds": time.monotonic() - start}


def failed_row(cell: Cell, reason: str) -> Row:
    """The row of a cell that has no numbers."""
    return _identity(cell) | {"status": FAILED, "reason": clean(reason), "finished": _now(), "host": platform.node()}


def _told(error: Exception) -> str:
    said = next(iter(str(error).splitlines()), "")
    return said if isinstance(error, KvbenchError) else f"{type(error).__name__}: {said}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _identity(cell: Cell) -> Row:
    """The columns that the plan decides."""
    plain = to_builtins(cell)
    capacity = plain.pop("capacity")
    trace = plain.pop("trace")
    sizes = {f"{pool}_{'bytes' if kind else 'slots'}": capacity[f"{pool}{kind}"]
             for pool in ("init", "recur") for kind in ("", "_bytes")}  # fmt: skip
    row: Row = plain | sizes
    return row | {
        "cell": cell.id, "capacity": capacity["label"], "trace": clean(Path(trace["path"]).name),
        "trace_sha256": trace["sha256"],
    }  # fmt: skip


def measure(cell: Cell, trace: Path) -> Row:
    """Replay the cell: checked and counted, and timed in turns with legacy where the plan wants times.

    Raises what a replay raises, and KvbenchError for a cache that returned wrong content.
    """
    if cell.device == "cuda" and not torch.cuda.is_available():
        raise KvbenchError("no CUDA device")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    reader, steps = _steps(str(trace), cell.trace.sha256, cell.searches)
    config = cache_config(reader, cell.capacity, cell.device, cell.settings)
    names = [LEGACY, cell.cache] if cell.is_timed else [cell.cache]
    require_for_replay(f"a replay of {trace.name}", config, names, Needs.of(steps), cell.is_timed)
    replay = Replay(steps, config, names)
    report = replay.reports[cell.cache]
    report.verification = replay.verify(cell.cache, counted_searches=cell.counted_searches)
    if cell.is_timed:
        replay.time(cell.repetitions, cell.counted_searches)
    numbers = summarise(report)
    if numbers["outcomes"]["faults"]:
        raise KvbenchError(f"wrong content: {numbers['outcomes']['faults'][0]}")
    times = _times(replay) if cell.is_timed else {}
    return {**_identity(cell), **_replayed(reader, steps), **_counted(numbers), **times, **_where(cell)}


@functools.lru_cache(_KEPT)
def _steps(path: str, sha256: str, searches: int | None) -> tuple[TraceReader, TraceSteps]:
    """A trace and its steps, kept for the next cell. Raises KvbenchError: the file is another one now."""
    if digest_of_file(Path(path)) != sha256:
        raise KvbenchError(f"{path} is not the trace that the sweep began with: run it again")
    reader = TraceReader(path)
    settings: CacheSettings = {"searches": searches, "eviction": "fifo", "dtype": "float32", "threads": 1}
    return reader, read_replayed(reader, settings)


def _replayed(reader: TraceReader, steps: TraceSteps) -> Row:
    searches = len({step.search for step in steps})
    recurrent = sum(step.is_recurrent for step in steps)
    return {"geometry": clean(reader.header.geometry.name), "replayed_searches": searches, "recurrent_steps": recurrent}


def _counted(numbers: Mapping[str, Any]) -> Row:
    """The deterministic numbers."""
    row: Row = {"status": DONE}
    for scope, prefix in (("total", ""), ("root", "root_"), ("node", "node_")):
        counts = numbers["outcomes"][scope]
        row |= {f"{prefix}{name}": counts[name] for name in ("lookups", *(each.name for each in metrics.OUTCOMES))}
    row |= {f"{pool}_evictions": count for pool, count in numbers["evictions"].items()}
    row |= {f"{pool}_bytes_reserved": count for pool, count in numbers["bytes_reserved"].items()}
    median = numbers["counts_per_recurrent_step_median"] or {}
    return row | {f"step_{each.name}": median.get(each.name) for each in metrics.COUNTERS}


def _times(replay: Replay) -> Row:
    """What was timed: the ratio to legacy, and both medians."""
    legacy, own = replay.reports.values()
    found = ratio(legacy, own)
    if found is None:
        return {}
    medians = [summarise(each)["latency_us"][STEP]["p50"] for each in (own, legacy)]
    return {
        "legacy_over_backend": found["median"], "legacy_over_backend_p25": found["p25"],
        "legacy_over_backend_p75": found["p75"], "step_us_p50": medians[0], "legacy_step_us_p50": medians[1],
    }  # fmt: skip


def _where(cell: Cell) -> Row:
    """What the numbers were computed on."""
    machine = _machine(cell.device)
    commit = cell.library.removeprefix(COMMIT) if cell.library.startswith(COMMIT) else machine.kvcache_commit
    return {
        "commit": commit, "compiled": machine.kvcache_compiled, "machine": str(machine), "host": platform.node(),
        "finished": _now(),
    }  # fmt: skip


@functools.cache
def _machine(device: str) -> Machine:
    """Asked once: it asks git."""
    return Machine.describe(device)
