"""``kvbench profile``: where the time of a replay goes, in files that other tools open."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import click
import torch
from msgspec import convert
from rich.table import Table

from kvbench.cli.console import STDERR, cells_of, make_table, plain, show
from kvbench.cli.options import COUNT, FOLDER, capacities_as_usage, option
from kvbench.errors import told
from kvbench.files import folder_whole_or_absent
from kvbench.measure.machine import Machine
from kvbench.profile.profiler import BackendProfile, Profiling
from kvbench.profile.ranges import KINDS
from kvbench.replay.needs import Needs, require_for_replay
from kvbench.replay.settings import CacheSettings, cache_config, capacity_of_trace, read_replayed
from kvbench.replay.summary import describe_trace
from kvbench.results.decode import write_json
from kvbench.results.profile import FORMAT, INDEX, SCHEMA_VERSION, ProfileIndex
from kvbench.results.replay import Capacity
from kvbench.text import clean
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import TraceSteps
from kvcache import CacheConfig

__all__ = ["profile"]


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@option("--backend", "backends", help="Profile this cache; several times.")
@option(
    "--output",
    type=FOLDER,
    show_default="profiles/TRACE-TIME",
    help="Write to this folder, which must not exist.",
)
@option("--searches", default=2, help="Replay this many searches: every call of them is recorded.")
@option("--device")
@option("--capacity")
@option("--eviction")
@option("--dtype")
@option("--threads")
@option("--top", type=COUNT, default=12, help="Print this many operations.")
def profile(
    trace: Path,
    backends: tuple[str, ...],
    output: Path | None,
    top: int,
    device: str,
    capacity: Capacity,
    **settings: Unpack[CacheSettings],
) -> None:
    """Profile a replay of TRACE on each cache, for other tools to open.

    For each cache there are operations.csv; trace.json.gz for Perfetto, with ranges named after the operation kinds
    (hash, lookup, supply, assemble, store, clear); flame.svg for a browser, and its data in stacks.txt. On CUDA there
    are also NVTX ranges of the same names, and memory.pickle. profile.json lists all files.

    --capacity is as in 'kvbench replay'; with 'recur=50' a recording misses. Profiling slows operations down, and not
    equally. Compare shares, not times.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("no CUDA device: nothing was profiled")
    reader = TraceReader(trace)
    steps = read_replayed(reader, settings)
    sized = capacity_of_trace(capacity, reader.header, settings["dtype"])
    with capacities_as_usage():
        config = cache_config(reader, sized, device, settings)
    require_for_replay(f"a replay of {trace.name}", config, backends, Needs.of(steps), at_once=False)
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    now = datetime.now(UTC).replace(microsecond=0)
    folder = output or Path("profiles") / f"{trace.stem}-{now:%Y%m%dT%H%M%SZ}"
    machine = Machine.describe(device)
    index = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "created": now.isoformat(),
        "command": sys.argv[1:],
        "trace": describe_trace(reader, steps),
        "settings": {**settings, "device": device, "capacity": sized},
        "machine": machine.to_dict(),
    }
    profiles = _write(folder, index, backends, steps, config)
    for each in profiles:
        show(_table(each, top, with_device=device == "cuda"))
    show(str(machine))
    for file in (file for each in profiles for file in each.files):
        show(plain(f"{folder / file.path}: {file.opens_with}"))
    show(plain(f"{folder / INDEX}: all of these"))


def _write(
    folder: Path, index: dict[str, Any], backends: Sequence[str], steps: TraceSteps, config: CacheConfig
) -> list[BackendProfile]:
    """Profile all backends into ``folder``, and add them to its index."""
    profiles = []
    try:
        with folder_whole_or_absent(folder) as beside, STDERR.status("") as status:  # on a terminal only
            for name in backends:

                def say(what: str, name: str = name) -> None:
                    status.update(plain(f"{name}: {what}"))

                profiles.append(Profiling(name, steps, config, beside).run(say))
            content = index | {"profiles": [each.to_dict() for each in profiles]}
            write_json(beside / INDEX, convert(content, ProfileIndex))
    except OSError as error:  # our own errors name the folder; the system's name a temporary one beside it
        system = error.strerror
        raise click.ClickException(clean(f"{folder}: cannot be written: {system}" if system else told(error))) from None
    return profiles


def _table(profile: BackendProfile, top: int, with_device: bool) -> Table:
    """The operation kinds, then the most expensive operations in them."""
    columns = {"self, us": "self_cpu_us", "total, us": "total_cpu_us", "us a call": "per_call"}
    if with_device:
        columns |= {"self device, us": "self_device_us", "total device, us": "total_device_us"}
    table = make_table(profile.backend, [""], ["calls", *columns])
    frame = profile.operations.assign(per_call=lambda rows: rows["total_cpu_us"] / rows["calls"])
    for part in (frame[frame["name"].isin(KINDS)], frame[frame["kind"] != "range"].head(top)):
        for row in part.to_dict("records"):
            times = (row[column] for column in columns.values())
            table.add_row(row["name"], f"{row['calls']:,}", *cells_of(times, "{:,.0f}"))
        table.add_section()
    return table
