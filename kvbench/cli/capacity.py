"""``kvbench capacity``: how large should a pool be?"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch
from msgspec import convert

from kvbench.capacity.answer import Smallest
from kvbench.capacity.curves import OUTCOMES, POLICIES, POOLS, capacities_to_try
from kvbench.capacity.measure import ENOUGH, Measured, Sizes, measure
from kvbench.capacity.requests import Requests
from kvbench.cli.capacity_table import answers, capacity_tables
from kvbench.cli.console import progress_bar, say, show
from kvbench.cli.options import COUNT, STEPS_OR_NONE, capacities_as_usage, option
from kvbench.replay.settings import DTYPES, capacity_of_trace
from kvbench.results.capacity import FORMAT, SCHEMA_VERSION, CapacityResults
from kvbench.results.decode import write_json
from kvbench.results.replay import Capacity
from kvbench.trace.reader import TraceReader
from kvcache import CacheConfig

__all__ = ["capacity"]


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@option("--pool", type=click.Choice(POOLS), default="recur", help="Vary the pools of this kind.")
@option(
    "--policy",
    "policies",
    type=click.Choice(POLICIES),
    metavar="POLICY",
    multiple=True,
    show_default="all",
    help="Draw the line of this policy or bound; several times.",
)
@option("--capacity", "capacities", multiple=True, default=(), show_default="chosen", help="Try this size; see above.")
@option("--sizes", type=COUNT, default=8, help="Choose N sizes, if none is given.")
@option("--sample", type=STEPS_OR_NONE, default=100_000, help="Follow N events or so of a larger trace; 0 all.")
@option("--searches", default=None, show_default="all", help="Follow the first N searches of the trace.")
@option("--dtype")
@option("--threads")
@option("--json", "json_file")
@option("--picture", help="Draw hits over memory into this file: .png, .svg or .pdf.")
def capacity(
    trace: Path,
    pool: str,
    policies: tuple[str, ...],
    capacities: tuple[Capacity, ...],
    json_file: Path | None,
    picture: Path | None,
    **settings: Any,
) -> None:
    """Try pools of many sizes on TRACE: which is the smallest that is large enough?

    Each size is tried as slots of full entries, and as pages of one token in the same memory. Shares are of all
    lookups, root and node; the counts are those of 'kvbench replay --capacity'. Two bounds stand beside the policies:
    belady knows the future, unbounded never evicts. They do not compare histories.

    --capacity is a size as 'kvbench replay' has it: 50 or 'recur=50' slots, or '50MB'. Without it sizes are chosen,
    from one entry to as many as are ever held at once. A size is large enough where it has 99 % of the hits of a pool
    that never evicts.

    Of a large trace some searches are followed, chosen by a hash of their number, and the largest error is printed.
    """
    torch.set_num_threads(settings["threads"])
    reader = TraceReader(trace)
    with progress_bar() as progress:
        progress.add_task("reading", total=None)
        requests = Requests(reader, settings["searches"], settings["sample"] or None)
        if requests.cannot_sample:
            say(f"all of it is followed, and not a sample: {requests.cannot_sample}")
        sizes = Sizes(requests, pool, DTYPES[settings["dtype"]].itemsize)
        with capacities_as_usage():
            sized = [capacity_of_trace(each, reader.header, settings["dtype"]) for each in capacities]
        entries = _entries(sizes, sized) or capacities_to_try(sizes.most["entries"], settings["sizes"])
        progress.add_task("replaying", total=None)
        measured = measure(sizes, policies or POLICIES, entries)
    results = _results(reader, sizes, measured)
    show(*capacity_tables(results), "\n".join(answers(results)))
    if json_file is not None:
        write_json(json_file, results)
        say(f"all numbers: {json_file}")
    if picture is not None:
        from kvbench.report.capacity_picture import write_capacity_picture  # a third of a second

        write_capacity_picture(picture, results)
        say(f"picture: {picture}")


def _entries(sizes: Sizes, capacities: Sequence[Capacity]) -> list[int]:
    """The sizes that are asked for, in full entries. Raises click.UsageError for one that is none of this pool."""
    found = set()
    for each in capacities:
        slots, budget = getattr(each, sizes.pool), getattr(each, f"{sizes.pool}_bytes")
        entry = sizes.requests.geometry.entry_bytes(sizes.itemsize)
        if slots is None and budget is None and each.label == "default":
            slots = getattr(CacheConfig(sizes.requests.geometry), f"default_{sizes.pool}_pool_size")
        if slots is None and budget is None:
            raise click.UsageError(f"--capacity {each.label}: it gives no size of the {sizes.pool} pool")
        if slots is None and budget < entry:
            raise click.UsageError(f"--capacity {each.label}: one entry takes {entry:,} bytes")
        found.add(slots if slots is not None else budget // entry)
    return sorted(found)


def _results(reader: TraceReader, sizes: Sizes, measured: Measured) -> CapacityResults:
    requests, sample = sizes.requests, sizes.requests.sample
    census, header = requests.census, reader.header
    (unlimited,) = _points(measured.unlimited)
    content = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv[1:],
        "trace": {
            "file": reader.path.name, "sha256": reader.sha256(), "events": census.events, "searches": census.searches,
            "geometry": header.geometry.to_dict(), "source": header.source, "synthetic": header.synthetic,
        },
        "pool": sizes.pool,
        "itemsize": sizes.itemsize,
        "sampled": {"followed_periods": len(sample.chosen), "periods": sample.periods} if sample else None,
        "unlimited": unlimited,
        "enough": ENOUGH,
        "points": _points(measured.points),
        "smallest": [_smallest(each, sizes, unlimited["lookups"]) for each in measured.smallest],
    }  # fmt: skip
    return convert(content, CapacityResults)


def _smallest(found: Smallest, sizes: Sizes, lookups: int) -> dict[str, Any]:
    return {
        "policy": found.policy,
        "unit": found.unit,
        "size": found.size,
        "bytes": sizes.bytes_of(found.unit, found.size),
        "hit_rate": found.hits / lookups if lookups else None,
    }


def _points(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            **{name: row[name] for name in ("policy", "unit", "size", "bytes", "lookups", *OUTCOMES)},
            "rates": {each: None if math.isnan(row[f"{each}_rate"]) else row[f"{each}_rate"] for each in OUTCOMES},
            "errors": {each: row[f"{each}_error"] for each in OUTCOMES},
        }
        for row in table.to_dict("records")
    ]
