"""``kvbench trace replay``: an imported trace against pools of several sizes and policies."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import click
from msgspec import to_builtins
from rich.table import Table

from kvbench.cli.console import cells_of, make_table, progress_bar, say, show
from kvbench.cli.options import STEPS, STEPS_OR_NONE, option
from kvbench.measure.machine import Machine
from kvbench.measure.stopwatch import no_collection
from kvbench.replay.settings import BYTES
from kvbench.requests.contents import OBJECTS
from kvbench.requests.opened import open_trace
from kvbench.requests.pools import PoolSize, RequestPool, TimedPool, replay_requests
from kvbench.requests.reader import RequestReader
from kvbench.results.decode import write_json
from kvbench.results.requests import PoolResult, RequestResults, RequestTrace
from kvcache import STORAGES, EvictionStrategy

__all__ = ["replay_trace"]

_POLICIES = [each.value for each in EvictionStrategy if each is not EvictionStrategy.PRIORITY]  # nothing gives one
_LABEL_WIDTH = 12
_TOKENS = "tokens"
_SIZE = re.compile(rf"0*([1-9]\d{{0,17}})({'|'.join((_TOKENS, *BYTES))})?", re.ASCII)


def _parse_size(text: str) -> PoolSize:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r}: give a number of entries, or a size as '50MB' or '100000tokens'")
    number, unit = found.groups()
    if unit is None:
        return PoolSize(text, slots=int(number))
    return PoolSize(text, limit=int(number) * BYTES.get(unit, 1))


@click.command("replay")
@click.argument("file", metavar="TRACE", type=click.Path(path_type=Path))
@option(
    "--capacity",
    "sizes",
    type=_parse_size,
    multiple=True,
    required=True,
    default=None,
    metavar="SIZE",
    help="Give the pool so many entries, or bytes or tokens with a unit; several times.",
)
@option(
    "--eviction",
    "evictions",
    type=click.Choice([each.value for each in EvictionStrategy]),  # a pool of requests knows no 'auto'
    multiple=True,
    default=_POLICIES,
    metavar="STRATEGY",
    help="Evict by this strategy.",
)
@option("--storage", type=click.Choice(list(STORAGES)), metavar="STORAGE", default=OBJECTS, help="Store so; see above.")
@option("--requests", "rows", type=STEPS, show_default="all", help="Replay the first N requests.")
@option("--repetitions", type=STEPS_OR_NONE, default=1, help="Time the bookkeeping N times; 0 checks and counts only.")
@option("--json", "json_file")
def replay_trace(
    file: Path,
    sizes: tuple[PoolSize, ...],
    evictions: tuple[str, ...],
    storage: str,
    rows: int | None,
    repetitions: int,
    json_file: Path | None,
) -> None:
    """Replay TRACE, imported requests, on pools of several sizes: what do they find, evict and hold?

    A pool is asked for each key, and stores what it misses. Whatever it returns is checked. An imported trace has no
    tree: whether a right key has the context that was meant is not known.

    --storage reference keeps a number for each key; the others copy a context of one token, which takes longer. Times
    are always those of a pool with nothing to copy.

    Exits with 1 when a pool returned content of another key.
    """
    reader = open_trace(file)
    if not isinstance(reader, RequestReader):
        raise click.UsageError(f"{file.name} is a recorded search: 'kvbench replay' replays it")
    if not reader.rows:
        reader.check()
    _check_units(reader, sizes)
    chosen = [(size, size.slots_for(reader), each) for size, each in product(sizes, evictions)]
    results = _run(reader, chosen, storage, rows, repetitions)
    show(_table(reader, results), "Context mismatches are unknown: the trace has no tree.\n")
    if json_file is not None:
        write_json(json_file, _content(reader, results))
        say(f"all numbers: {json_file}")
    stale = [each for each in results if each.stale_hit]
    if stale:
        raise click.ClickException(f"{stale[0].stale_hit} hits of {stale[0].eviction} had another key's content")


def _run(
    reader: RequestReader, chosen: Sequence[tuple[PoolSize, int, str]], storage: str, rows: int | None, repetitions: int
) -> list[PoolResult]:
    """What pools of the chosen sizes, slots and policies count, and their times."""
    pools = [RequestPool(*each, storage) for each in chosen]
    timed = [[TimedPool(*each) for _ in range(repetitions)] for each in chosen]
    with progress_bar(auto_refresh=False) as bar, no_collection():
        task = bar.add_task(reader.path.name, total=min(rows or reader.rows, reader.rows))

        def update(done: int) -> None:
            bar.update(task, completed=done)
            bar.refresh()

        replay_requests(reader, [*pools, *(pool for each in timed for pool in each)], rows, update)
    return [pool.result(TimedPool.together(each)) for pool, each in zip(pools, timed, strict=True)]


def _check_units(reader: RequestReader, sizes: Sequence[PoolSize]) -> None:
    unit = reader.header.size_unit
    for size in sizes:
        asked = _TOKENS if size.label.endswith(_TOKENS) else "bytes"
        if size.limit is not None and asked != unit:
            raise click.BadParameter(f"{size.label}: the sizes of {reader.path.name} are in {unit}")


def _table(reader: RequestReader, results: Sequence[PoolResult]) -> Table:
    header, unit = reader.header, reader.header.size_unit
    title = f"{reader.path.name} ({header.source_format}, {header.file}): {results[0].requests:,} requests"
    numbers = ["hits", "hit, %", f"{unit} hit, %", "stale", "misses", "evictions", f"most {unit}", "us each"]
    table = make_table(title, ["capacity", "eviction"], numbers, _LABEL_WIDTH)
    for each in results:
        counts = cells_of((each.stale_hit, each.miss, each.evictions, each.most_held_size), "{:,}")
        shares = (100 * each.hit / each.requests, 100 * each.hit_size / each.requested_size)
        times = None if each.bookkeeping_us is None else each.bookkeeping_us.p50
        cells = [f"{each.hit:,}", *cells_of(shares, "{:.2f}"), *counts, *cells_of([times], "{:.2f}")]
        table.add_row(each.capacity, each.eviction, *cells)
    return table


def _content(reader: RequestReader, results: list[PoolResult]) -> RequestResults:
    header = to_builtins(reader.header)
    with open(reader.path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return RequestResults(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=sys.argv[1:],
        machine=Machine.describe("cpu").to_dict(),
        trace=RequestTrace(
            file=reader.path.name,
            sha256=digest,
            requests=reader.rows,
            replayed=results[0].requests,
            size_unit=reader.header.size_unit,
            source={name: value for name, value in header.items() if not isinstance(value, dict)},
        ),
        pools=results,
    )
