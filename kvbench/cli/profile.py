"""``kvbench profile``: where the time of a replay goes, in files that other tools open."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch
from msgspec import convert
from rich import box
from rich.table import Table

from kvbench.cli.capacity import DTYPES, Capacity, CapacityType
from kvbench.cli.console import STDERR, STDOUT
from kvbench.files import folder_whole_or_absent
from kvbench.measure.machine import Machine
from kvbench.profile.profiler import BackendProfile, Profiling
from kvbench.profile.ranges import KINDS
from kvbench.replay.summary import describe_trace
from kvbench.results.decode import write_json
from kvbench.results.profile import FORMAT, INDEX, SCHEMA_VERSION, ProfileIndex
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceError
from kvbench.trace.steps import Step, read_steps
from kvcache import BACKENDS, CacheConfig, EvictionStrategy

__all__ = ["profile"]


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(list(BACKENDS)),
    default=("legacy", "new"),
    show_default=True,
    help="Profile this cache; give it several times.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write to this folder, which must not exist.  [default: profiles/TRACE-TIME]",
)
@click.option(
    "--searches",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Replay this many searches; a profiler records every call of them.",
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Run on this device."
)
@click.option(
    "--capacity",
    type=CapacityType(),
    default=Capacity("default"),
    show_default="default",
    help="Give the pools these slots or bytes, as in 'kvbench replay'; with 'recur=50' the recording misses.",
)
@click.option(
    "--eviction",
    type=click.Choice([each.value for each in EvictionStrategy]),
    default="fifo",
    show_default=True,
    help="Evict by this strategy.",
)
@click.option(
    "--dtype",
    type=click.Choice(list(DTYPES)),
    default="float32",
    show_default=True,
    help="Store contexts in this type.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Let torch use this many threads."
)
@click.option("--top", type=click.IntRange(min=1), default=12, show_default=True, help="Print this many operations.")
def profile(
    trace: Path,
    backends: tuple[str, ...],
    output: Path | None,
    searches: int,
    device: str,
    capacity: Capacity,
    eviction: str,
    dtype: str,
    threads: int,
    top: int,
) -> None:
    """Profile a replay of TRACE on each cache, and write files that other tools open.

    For each cache there are operations.csv; trace.json.gz for Perfetto, with ranges named after the operation kinds
    (hash, lookup, supply, assemble, store, clear); flame.svg for a browser, and its data in stacks.txt. On CUDA there
    are also NVTX ranges of the same names, and memory.pickle. profile.json lists all files.

    Profiling slows operations down, and not equally. Compare shares, not times.
    """
    if len(set(backends)) != len(backends):
        raise click.UsageError(f"a --backend is given twice: {', '.join(backends)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("no CUDA device: nothing was profiled")
    reader = TraceReader(trace)
    steps = list(read_steps(reader.events(), searches))
    if not steps:
        raise TraceError(trace, "it has no events: there is nothing to profile")
    sized = capacity.of(reader.header)
    config = sized.config(reader, eviction, device, dtype)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    settings = {
        "device": device,
        "dtype": dtype,
        "eviction": eviction,
        "capacity": asdict(sized),
        "searches": searches,
        "threads": threads,
    }
    now = datetime.now(UTC).replace(microsecond=0)
    folder = output or Path("profiles") / f"{trace.stem}-{now:%Y%m%dT%H%M%SZ}"
    index: dict[str, Any] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "created": now.isoformat(),
        "command": sys.argv[1:],
        "trace": describe_trace(reader, steps),
        "settings": settings,
        "machine": Machine.describe(device).to_dict(),
    }
    profiles = _write(folder, index, backends, steps, config)
    _print(folder, profiles, top, device)


def _write(
    folder: Path, index: dict[str, Any], backends: Sequence[str], steps: Sequence[Step], config: CacheConfig
) -> list[BackendProfile]:
    """Profile all backends into ``folder``, and add them to its index."""
    try:
        with folder_whole_or_absent(folder) as beside:
            profiles = _profile_all(backends, steps, config, beside)
            content = index | {"profiles": [each.to_dict() for each in profiles]}
            write_json(beside / INDEX, convert(content, ProfileIndex))
    except OSError as error:  # our own errors name the folder; the system's name a temporary one beside it
        system = error.strerror
        raise click.ClickException(f"{folder}: cannot be written: {system}" if system else str(error)) from None
    return profiles


def _print(folder: Path, profiles: Sequence[BackendProfile], top: int, device: str) -> None:
    for each in profiles:
        STDOUT.print(_table(each, top, device), highlight=False, soft_wrap=True)
    STDOUT.print(str(Machine.describe(device)), highlight=False, soft_wrap=True)
    for each in profiles:
        for file in each.files:
            STDOUT.print(f"{folder / file.path}: {file.opens_with}", highlight=False, soft_wrap=True, markup=False)
    STDOUT.print(f"{folder / INDEX}: all of these", highlight=False, soft_wrap=True, markup=False)


def _profile_all(
    backends: Sequence[str], steps: Sequence[Step], config: CacheConfig, folder: Path
) -> list[BackendProfile]:
    profiles = []
    with STDERR.status("") as status:  # on a terminal only
        for name in backends:

            def say(what: str, name: str = name) -> None:
                status.update(f"{name}: {what}")

            profiles.append(Profiling(name, steps, config, folder).run(say))
    return profiles


def _table(profile: BackendProfile, top: int, device: str) -> Table:
    """The operation kinds, then the most expensive operations in them."""
    table = Table(title=profile.backend, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for heading in ("calls", "self, us", "total, us", "us a call"):
        table.add_column(heading, justify="right")
    of_device = ["self device, us", "total device, us"] if device == "cuda" else []
    for heading in of_device:
        table.add_column(heading, justify="right")
    frame = profile.operations
    kinds = frame[frame["name"].isin(KINDS)]
    for part in (kinds, frame[frame["kind"] != "range"].head(top)):
        for _, row in part.iterrows():
            table.add_row(*_cells(row, bool(of_device)))
        table.add_section()
    return table


def _cells(row: pd.Series, with_device: bool) -> list[str]:
    times = [row["self_cpu_us"], row["total_cpu_us"], row["total_cpu_us"] / row["calls"]]
    if with_device:
        times += [row["self_device_us"], row["total_device_us"]]
    # Names of operations hold brackets, which rich would take for markup.
    return [str(row["name"]).replace("[", r"\["), f"{row['calls']:,}", *(f"{time:,.0f}" for time in times)]
