"""``kvbench replay``: recorded requests against several caches, side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Unpack

import click
import torch
from msgspec import convert

from kvbench.cli.console import progress_bar, say, show
from kvbench.cli.options import STEPS, STEPS_OR_NONE, capacities_as_usage, option
from kvbench.cli.replay_table import replay_table
from kvbench.measure.machine import Machine
from kvbench.replay.forward import forwards
from kvbench.replay.needs import Needs, require_for_replay
from kvbench.replay.passes import Replay
from kvbench.replay.result import result_of
from kvbench.replay.settings import CacheSettings, cache_config, capacity_of_trace, read_replayed
from kvbench.replay.summary import describe_trace
from kvbench.report.answers import answers
from kvbench.results.decode import write_json
from kvbench.results.replay import FORMAT, SCHEMA_VERSION, Capacity, NotMeasured, ReplayResult, ReplayResults
from kvbench.text import clean
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import TraceSteps
from kvcache import CacheConfig

__all__ = ["replay"]

_TICKS = 64  # steps between two updates of the progress bar: drawing it more often would be felt in the timings
_NO_CUDA = "skipped: no CUDA device"


class _Settings(CacheSettings):
    repetitions: int
    counted_searches: int | None
    forward: bool


_IN_THE_FILE = (*CacheSettings.__annotations__, "repetitions")  # the others are with each replay


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
@option("--picture")
def replay(
    traces: tuple[Path, ...],
    backends: tuple[str, ...],
    devices: tuple[str, ...],
    capacities: tuple[Capacity, ...],
    json_file: Path | None,
    picture: Path | None,
    **settings: Unpack[_Settings],
) -> None:
    """Replay TRACES on several caches: what does each cost and return?

    Every context that a cache returns is checked, token by token, in a pass of its own; then all caches are timed side
    by side. A replay is open-loop: it asks each cache the same recorded requests, and does not show how the search
    would have gone with other answers. Counting takes most of the time of a long replay: --counted-searches cuts it.

    --capacity gives the slots of the pools. Small pools are where evictions and stale hits live. It is 'default' (each
    backend's own), 'recorded' (the recorded run's), N for all pools, 'init=N', 'recur=N' or 'init=N,recur=M'. N with a
    unit is bytes, as in 'recur=50MB'; an init pool's are each environment's. 'recur=1/8' is a share of the slots that
    the pool has by default, 'recur=1/8B' of the bytes of as many full entries.

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
    replays = list(_replay_all(traces, available, capacities, backends, settings))
    if json_file is not None:
        content = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "created": created,
            "command": sys.argv[1:],
            "settings": {name: given for name, given in settings.items() if name in _IN_THE_FILE},
            "machines": {device: Machine.describe(device).to_dict() for device in available},
            "replays": replays,
            "not_measured": not_measured,
        }
        write_json(json_file, convert(content, ReplayResults))
        say(f"all numbers: {json_file}")
    if picture is not None and replays:
        _draw(picture, replays)
    _refuse_faults(replays)


def _draw(file: Path, replays: Sequence[ReplayResult]) -> None:
    from kvbench.report.pictures import write_picture  # a third of a second

    write_picture(file, replays, {each.device: str(Machine.describe(each.device)) for each in replays})
    say(f"picture: {file}")


def _refuse_faults(replays: Sequence[ReplayResult]) -> None:
    damaged = [each for one in replays for each in one.backends if each.outcomes.faults]
    if damaged:
        faults = "\n".join(f"  {each.name}: {each.outcomes.faults[0]}" for each in damaged)
        raise click.ClickException(f"wrong content, the first of each backend:\n{faults}")


@dataclass(frozen=True)
class _Part:
    """One trace on one device at one capacity."""

    reader: TraceReader
    steps: TraceSteps
    device: str
    capacity: Capacity
    config: CacheConfig

    def replay(self, backends: Sequence[str], settings: _Settings, place: str) -> ReplayResult:
        """Measure it. ``place`` says which of all parts it is."""
        passes = len(backends) + (len(backends) + settings["repetitions"] if settings["repetitions"] else 0)
        with _progress_bar(f"{place}, {clean(self.capacity.label)}", passes) as progress:
            reports = Replay(self.steps, self.config, backends, progress=progress).run(
                settings["repetitions"], settings["counted_searches"]
            )
        trace = describe_trace(self.reader, self.steps)
        over_first = forwards(self.steps, self.config, backends) if settings["forward"] else None
        return result_of(reports, trace, self.device, self.capacity, over_first, settings["counted_searches"])


def _replay_all(
    traces: Sequence[Path],
    devices: Sequence[str],
    capacities: Sequence[Capacity],
    backends: Sequence[str],
    settings: _Settings,
) -> Iterator[ReplayResult]:
    """Every trace on every device at every capacity, each printed when it is done."""
    # All of them are read before any is replayed: the last one's fault must not cost the others' measurements.
    readers = [TraceReader(path) for path in traces]
    chosen = [
        (reader, device, capacity_of_trace(capacity, reader.header, settings["dtype"]))
        for reader, device, capacity in product(readers, devices, capacities)
    ]
    with capacities_as_usage():
        configs = [cache_config(reader, sized, device, settings) for reader, device, sized in chosen]
    steps_of = {reader: read_replayed(reader, settings) for reader in readers}
    parts = [_Part(each[0], steps_of[each[0]], *each[1:], config) for each, config in zip(chosen, configs, strict=True)]
    for part in parts:
        at_once = settings["repetitions"] > 0 or settings["forward"]
        name = clean(f"a replay of {part.reader.path.name}")
        require_for_replay(name, part.config, backends, Needs.of(part.steps), at_once)
    for number, part in enumerate(parts, 1):
        result = part.replay(backends, settings, f"replay {number} of {len(parts)}")
        said = "\n".join([f"{Machine.describe(part.device)}\n", *answers(result)])
        show(replay_table(result), f"{said}\n")
        yield result


@contextmanager
def _progress_bar(name: str, passes: int) -> Iterator[Any]:
    """One bar over all passes, which says what is done in each."""
    # Drawn by hand between steps: a thread that draws on its own would be in somebody's timing.
    with progress_bar(auto_refresh=False) as progress:
        task = progress.add_task(name)
        finished = 0

        def update(what: str, done: int, total: int) -> None:
            nonlocal finished
            if done % _TICKS == 0 or done == total:
                completed, whole = finished * total + done, passes * total
                progress.update(task, description=f"{name}: {what}", completed=completed, total=whole)
                progress.refresh()
            finished += done == total

        yield update
