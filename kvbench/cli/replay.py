"""``kvbench replay``: recorded requests against several caches, side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Unpack

import click
import torch
from msgspec import convert

from kvbench.cli.caches import CacheSettings, cache_config, read_replayed, recorded_or_given
from kvbench.cli.console import progress_bar, say, show
from kvbench.cli.options import STEPS, STEPS_OR_NONE, option
from kvbench.cli.replay_table import replay_table
from kvbench.measure.machine import Machine
from kvbench.replay.forward import forwards
from kvbench.replay.needs import Needs, require_for_replay
from kvbench.replay.passes import Replay
from kvbench.replay.summary import describe_trace, ratio, summarise
from kvbench.results.decode import write_json
from kvbench.results.replay import FORMAT, SCHEMA_VERSION, Capacity, NotMeasured, ReplayResult, ReplayResults
from kvbench.text import clean
from kvbench.trace.reader import TraceReader

__all__ = ["replay"]

_TICKS = 64  # steps between two updates of the progress bar: drawing it more often would be felt in the timings
_NO_CUDA = "skipped: no CUDA device"


class _Settings(CacheSettings):
    repetitions: int
    counted_searches: int | None


@click.command()
@click.argument("traces", type=click.Path(path_type=Path), nargs=-1, required=True)
@option("--backend", "backends", help="Replay on this cache; several times. Ratios are to the first.")
@option("--device", "devices", multiple=True, default=("cpu",))
@option(
    "--capacity",
    "capacities",
    multiple=True,
    default=("default",),
)
@option("--eviction")
@option("--dtype")
@option("--repetitions", type=STEPS_OR_NONE, default=3, help="Time the replay N times; 0 checks and counts only.")
@option("--forward", is_flag=True, help="Time the attention over each cache's batches too, in a pass of its own.")
@option("--searches", default=None, show_default="all", help="Replay the first N searches of each trace.")
@option("--counted-searches", type=STEPS, show_default="all", help="Count operations and memory in the first N only.")
@option("--threads")
@option("--json", "json_file")
def replay(
    traces: tuple[Path, ...],
    backends: tuple[str, ...],
    devices: tuple[str, ...],
    capacities: tuple[Capacity, ...],
    json_file: Path | None,
    forward: bool,
    **settings: Unpack[_Settings],
) -> None:
    """Replay TRACES against several caches, and show what each costs and returns.

    Every context that a cache returns is checked, token by token, in a pass of its own; then all caches are timed side
    by side. A replay is open-loop: it asks each cache the same recorded requests, and does not show how the search
    would have gone with other answers. Counting takes most of the time of a long replay: --counted-searches cuts it.

    --capacity gives the slots of the pools. Small pools are where evictions and stale hits live. It is 'default' (each
    backend's own), 'recorded' (the recorded run's), N for all pools, 'init=N', 'recur=N' or 'init=N,recur=M'. N with a
    unit is bytes, as in 'recur=50MB'; an init pool's are each environment's.

    Exits with 1 when a cache returned content that was never stored, or lost what it never evicted. So it does when any
    cache but the legacy one had a stale hit.
    """
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    available = [each for each in devices if each != "cuda" or torch.cuda.is_available()]
    not_measured = [NotMeasured(each, _NO_CUDA) for each in devices if each not in available]
    for each in not_measured:
        say(f"{each.device}: {each.reason}")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    replays = list(_replay_all(traces, available, capacities, backends, settings, forward))
    if json_file is not None:
        content = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "created": created,
            "command": sys.argv[1:],
            "settings": {name: given for name, given in settings.items() if name not in ReplayResult.__struct_fields__},
            "machines": {device: Machine.describe(device).to_dict() for device in available},
            "replays": replays,
            "not_measured": not_measured,
        }
        write_json(json_file, convert(content, ReplayResults))
        say(f"all numbers: {json_file}")
    damaged = [each for one in replays for each in one.backends if each.outcomes.faults]
    if damaged:
        faults = "\n".join(f"  {each.name}: {each.outcomes.faults[0]}" for each in damaged)
        raise click.ClickException(f"wrong content, the first of each backend:\n{faults}")


def _replay_all(
    traces: Sequence[Path],
    devices: Sequence[str],
    capacities: Sequence[Capacity],
    backends: Sequence[str],
    settings: _Settings,
    forward: bool,
) -> Iterator[ReplayResult]:
    """Every trace on every device at every capacity, each printed when it is done."""
    # All of them are read before any is replayed: the last one's fault must not cost the others' measurements.
    readers = [TraceReader(path) for path in traces]
    parts = []
    for reader, device, capacity in product(readers, devices, capacities):
        sized = recorded_or_given(capacity, reader.header)
        parts.append((reader, device, sized, cache_config(reader, sized, device, settings)))
    steps_of = {reader: read_replayed(reader, settings) for reader in readers}
    for reader, _, _, config in parts:
        needs = Needs.of(steps_of[reader])
        at_once = settings["repetitions"] > 0 or forward
        require_for_replay(clean(f"a replay of {reader.path.name}"), config, backends, needs, at_once)
    for reader, device, sized, config in parts:
        steps = steps_of[reader]
        with _progress_bar(clean(reader.path.name)) as progress:
            replay = Replay(steps, config, backends, progress=progress)
            reports = replay.run(settings["repetitions"], settings["counted_searches"])
        baseline = reports[backends[0]]
        described = describe_trace(reader, steps)
        content = {
            "trace": described,
            "device": device,
            "capacity": sized,
            "baseline": backends[0],
            "backends": [summarise(report) for report in reports.values()],
            "baseline_over_backend": {name: ratio(baseline, report) for name, report in reports.items()},
            "forward_over_baseline": forwards(steps, config, backends) if forward else None,
            "counted_searches": min(settings["counted_searches"] or described["searches"], described["searches"]),
        }
        result = convert(content, ReplayResult)
        show(replay_table(result), f"{Machine.describe(device)}\n")
        yield result


@contextmanager
def _progress_bar(name: str) -> Iterator[Any]:
    # Drawn by hand between steps: a thread that draws on its own would be in somebody's timing.
    with progress_bar(auto_refresh=False) as progress:
        task = progress.add_task(name)

        def update(what: str, done: int, total: int) -> None:
            if done % _TICKS == 0 or done == total:
                progress.update(task, description=f"{name}: {what}", completed=done, total=total)
                progress.refresh()

        yield update
