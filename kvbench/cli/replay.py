"""``kvbench replay``: recorded requests against several caches, side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kvbench.cli.capacity import DTYPES, Capacity, CapacityType
from kvbench.cli.console import STDERR, STDOUT
from kvbench.cli.table import replay_table
from kvbench.files import check_writable, whole_or_absent
from kvbench.measure.machine import Machine
from kvbench.replay.passes import Replay
from kvbench.replay.summary import describe_trace, ratio, summarise
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceError
from kvbench.trace.steps import Step, read_steps
from kvcache import BACKENDS, EvictionStrategy

__all__ = ["replay"]

RESULT_FORMAT = "kvcache-replay"
RESULT_SCHEMA_VERSION = 2  # 2: percentiles of each operation, and a timeline (kvbench.replay.summary)
_TICKS = 64  # steps between two updates of the progress bar: drawing it more often would be felt in the timings


@click.command()
@click.argument("traces", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(list(BACKENDS)),
    default=("legacy", "new"),
    show_default=True,
    help="What to replay against; give it several times. The first is the baseline of ratios.",
)
@click.option(
    "--device", "devices", multiple=True, type=click.Choice(["cpu", "cuda"]), default=("cpu",), show_default=True
)
@click.option(
    "--capacity",
    "capacities",
    multiple=True,
    type=CapacityType(),
    default=(Capacity("default"),),
    show_default="default",
    help="Slots of the pools: 'default' (each backend's own), 'recorded' (the recorded run's), N for all pools, "
    "'init=N', 'recur=N' or 'init=N,recur=M'; bytes with a unit, 'recur=50MB' (an init pool's are each environment's). "
    "Small pools are where evictions and stale hits live.",
)
@click.option(
    "--eviction",
    type=click.Choice([each.value for each in EvictionStrategy]),
    default="fifo",
    show_default=True,
    help="Of the new backends; legacy always writes in a circle.",
)
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="float32", show_default=True)
@click.option(
    "--repetitions",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Timed repetitions, backends interleaved step by step; 0 checks and counts only.",
)
@click.option("--searches", type=click.IntRange(min=1), help="Replay only the first so many searches of each trace.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="torch's threads.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all numbers here.")
def replay(
    traces: tuple[Path, ...],
    backends: tuple[str, ...],
    devices: tuple[str, ...],
    capacities: tuple[Capacity, ...],
    eviction: str,
    dtype: str,
    repetitions: int,
    searches: int | None,
    threads: int,
    json_file: Path | None,
) -> None:
    """Replay TRACES against several caches, and show what each costs and returns.

    Every context that a cache returns is checked, token by token, in a pass of its own; then all caches are timed side
    by side. A replay is open-loop: it asks each cache the same recorded requests, and does not show how the search
    would have gone with other answers.

    Exits with 1 when a cache returned content that was never stored, or lost what it never evicted.
    """
    given = {"backend": backends, "device": devices, "capacity": [each.label for each in capacities]}
    for option, values in given.items():
        if len(set(values)) != len(values):
            raise click.UsageError(f"a --{option} is named twice: {', '.join(values)}")
    if json_file is not None:
        check_writable(json_file)  # now, and not after minutes of measuring
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    result: dict[str, Any] = {
        "format": RESULT_FORMAT,
        "schema_version": RESULT_SCHEMA_VERSION,
        "created": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "command": sys.argv[1:],
        "settings": {
            "repetitions": repetitions,
            "searches": searches,
            "threads": threads,
            "dtype": dtype,
            "eviction": eviction,
        },
        "machines": {},
        "replays": [],
        "not_measured": [],
    }
    available = [device for device in devices if _is_available(device, result["not_measured"])]
    damaged = []
    # All of them are read before any is replayed: the last one's fault must not cost the others' measurements.
    readers = [TraceReader(path) for path in traces]
    for reader, steps in [(reader, _read(reader, searches)) for reader in readers]:
        for device in available:
            result["machines"][device] = Machine.describe(device).to_dict()
            for capacity in capacities:
                one = _replay_one(
                    reader, steps, backends, device, capacity.of(reader.header), eviction, dtype, repetitions
                )
                STDOUT.print(replay_table(one), f"{Machine.describe(device)}\n", highlight=False, soft_wrap=True)
                result["replays"].append(one)
                damaged += [each for each in one["backends"] if each["outcomes"]["faults"]]
    if json_file is not None:
        with whole_or_absent(json_file) as beside:
            beside.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        STDERR.print(f"all numbers: {json_file}", highlight=False)
    if damaged:
        faults = "\n".join(f"  {each['name']}: {each['outcomes']['faults'][0]}" for each in damaged)
        raise click.ClickException(f"wrong content, the first of each backend:\n{faults}")


def _is_available(device: str, not_measured: list[dict[str, str]]) -> bool:
    if device == "cuda" and not torch.cuda.is_available():
        reason = "skipped: no CUDA device"
        STDERR.print(f"cuda: {reason}", highlight=False)
        not_measured.append({"device": device, "reason": reason})
        return False
    return True


def _read(reader: TraceReader, searches: int | None) -> list[Step]:
    steps = [step for step in read_steps(reader.events()) if searches is None or step.search < searches]
    if not steps:
        raise TraceError(reader.path, "it has no events: there is nothing to replay")
    return steps


def _replay_one(
    reader: TraceReader,
    steps: Sequence[Step],
    backends: Sequence[str],
    device: str,
    capacity: Capacity,
    eviction: str,
    dtype: str,
    repetitions: int,
) -> dict[str, Any]:
    """One trace on one device at one capacity, as the JSON file has it."""
    config = capacity.config(reader, eviction, device, dtype)
    with _progress_bar(reader.path.name) as progress:
        reports = Replay(steps, config, backends, progress=progress).run(repetitions)
    baseline = reports[backends[0]]
    return {
        "trace": describe_trace(reader, steps),
        "device": device,
        "capacity": asdict(capacity),
        "baseline": backends[0],
        "backends": [summarise(report) for report in reports.values()],
        "baseline_over_backend": {name: ratio(baseline, report) for name, report in reports.items()},
    }


@contextmanager
def _progress_bar(name: str) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Drawn by hand between steps: a thread that draws on its own would be in somebody's timing.
    with Progress(*columns, console=STDERR, transient=True, auto_refresh=False) as progress:
        task = progress.add_task(name)

        def update(what: str, done: int, total: int) -> None:
            if done % _TICKS == 0 or done == total:
                progress.update(task, description=f"{name}: {what}", completed=done, total=total)
                progress.refresh()

        yield update
