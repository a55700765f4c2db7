"""``kvbench capacity``: how large should a pool be?"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch
from msgspec import convert

from kvbench.capacity.curves import OUTCOMES, POLICIES, POOLS, capacities_to_try
from kvbench.capacity.keyed import KEY_POLICIES, KeyRequests, measure_keys
from kvbench.capacity.measure import ENOUGH, Measured, Sizes, measure
from kvbench.capacity.requests import Requests
from kvbench.cli.capacity_table import answers, capacity_tables
from kvbench.cli.console import progress_bar, say, show
from kvbench.cli.options import COUNT, STEPS_OR_NONE, capacities_as_usage, option
from kvbench.replay.settings import DTYPES, capacity_of_trace
from kvbench.requests.opened import open_trace
from kvbench.requests.reader import RequestReader
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
    """Try pools of many sizes on TRACE: how small may they be?

    Each size is tried as slots of full entries, and as pages of one token in the same memory. Shares are of all
    lookups, root and node; the counts are those of 'kvbench replay --capacity'. Three bounds stand beside the policies:
    belady and strict know the future, unbounded never evicts. Strict alone compares histories.

    --capacity is a size as 'kvbench replay' has it: 50 or 'recur=50' slots, or '50MB'. Without it sizes are chosen,
    from one entry to as many as are ever held at once. A size is large enough where it has 99 % of the hits of a pool
    that never evicts.

    Of a large trace some searches are followed, chosen by a hash of their number, and the largest error is printed.
    """
    torch.set_num_threads(settings["threads"])
    reader = open_trace(trace)
    with progress_bar() as progress:
        progress.add_task("replaying", total=None)
        if isinstance(reader, RequestReader):
            results = _of_requests(reader, policies, capacities, settings)
        else:
            results = _of_search(reader, pool, policies, capacities, settings)
    show(*capacity_tables(results), "\n".join(answers(results)))
    if json_file is not None:
        write_json(json_file, results)
        say(f"all numbers: {json_file}")
    if picture is not None:
        from kvbench.report.capacity_picture import write_capacity_picture  # a third of a second

        write_capacity_picture(picture, results)
        say(f"picture: {picture}")


def _of_search(
    reader: TraceReader, pool: str, policies: Sequence[str], capacities: Sequence[Capacity], settings: dict[str, Any]
) -> CapacityResults:
    requests = Requests(reader, settings["searches"], settings["sample"] or None)
    if requests.cannot_sample:
        say(f"all of it is followed, and not a sample: {requests.cannot_sample}")
    sizes = Sizes(requests, pool, DTYPES[settings["dtype"]].itemsize)
    with capacities_as_usage():
        sized = [capacity_of_trace(each, reader.header, settings["dtype"]) for each in capacities]
    entries = sorted({_entries(sizes, each) for each in sized}) or capacities_to_try(sizes.most, settings["sizes"])
    measured = measure(sizes, policies or POLICIES, entries)
    header, census, sample = reader.header, requests.census, requests.sample
    trace = {
        "events": census.events, "searches": census.searches, "geometry": header.geometry.to_dict(),
        "source": header.source, "synthetic": header.synthetic,
    }  # fmt: skip
    followed = {"followed": len(sample.chosen), "total": sample.periods, "unit": "searches"} if sample else None
    about = {"pool": pool, "itemsize": sizes.itemsize, "sampled": followed}
    return _results(reader, trace, about, measured, sizes.bytes_of)


def _entries(sizes: Sizes, capacity: Capacity) -> int:
    """The size that is asked for, in full entries. Raises click.UsageError for one that is none of this pool."""
    slots, budget = getattr(capacity, sizes.pool), getattr(capacity, f"{sizes.pool}_bytes")
    entry = sizes.requests.geometry.entry_bytes(sizes.itemsize)
    if slots is None and budget is None and capacity.label == "default":
        slots = getattr(CacheConfig(sizes.requests.geometry), f"default_{sizes.pool}_pool_size")
    if slots is None and budget is None:
        raise click.UsageError(f"--capacity {capacity.label}: it gives no size of the {sizes.pool} pool")
    if slots is None and budget < entry:
        raise click.UsageError(f"--capacity {capacity.label}: one entry takes {entry:,} bytes")
    return int(slots if slots is not None else budget // entry)


def _of_requests(
    reader: RequestReader, policies: Sequence[str], capacities: Sequence[Capacity], settings: dict[str, Any]
) -> CapacityResults:
    unknown = [each for each in policies if each not in KEY_POLICIES]
    if unknown:
        raise click.UsageError(f"--policy {unknown[0]}: imported requests have {', '.join(KEY_POLICIES)}")
    for each in capacities:
        if each.recur is None or settings["searches"] is not None:
            raise click.UsageError("imported requests have no searches and no bytes: give --capacity as entries, '50'")
    requests = KeyRequests(reader, settings["sample"] or None)
    least = requests.least_entries
    if requests.cannot_sample:
        say(f"all of it is followed, and not a sample: {requests.cannot_sample}")
    entries = sorted({each.recur for each in capacities if each.recur})
    if entries and entries[0] < least:
        raise click.UsageError(
            f"--capacity {entries[0]}: a sample tells of {least:,} entries and more; --sample 0 of all"
        )
    entries = entries or capacities_to_try(requests.most_entries, settings["sizes"], least)
    measured = measure_keys(requests, policies or KEY_POLICIES, entries)
    source = {"format": reader.header.source_format, "file": reader.header.file, "license": reader.header.license}
    trace = {"events": requests.rows, "searches": None, "geometry": None, "source": source, "synthetic": False}
    is_sample = requests.share < 1
    followed = {"followed": requests.followed, "total": requests.rows, "unit": "requests"} if is_sample else None
    about = {"pool": None, "itemsize": None, "sampled": followed}
    return _results(reader, trace, about, measured, lambda unit, size: None)


def _results(
    reader: TraceReader | RequestReader,
    trace: dict[str, Any],
    about: dict[str, Any],
    measured: Measured,
    bytes_of: Callable[[str, int], int | None],
) -> CapacityResults:
    (unlimited,) = _points(measured.unlimited)
    lookups = unlimited["lookups"]
    with reader.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    content = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv[1:],
        "trace": {"file": reader.path.name, "sha256": sha256, **trace},
        **about,
        "unlimited": unlimited,
        "enough": ENOUGH,
        "points": _points(measured.points),
        "smallest": [
            {
                "policy": each.policy,
                "unit": each.unit,
                "size": each.size,
                "bytes": bytes_of(each.unit, each.size),
                "hit_rate": each.hits / lookups if lookups else None,
            }
            for each in measured.smallest
        ],
    }
    return convert(content, CapacityResults)


def _points(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            **{name: row[name] for name in ("policy", "unit", "size", "bytes", "lookups", *OUTCOMES)},
            "rates": {each: None if pd.isna(row[f"{each}_rate"]) else row[f"{each}_rate"] for each in OUTCOMES},
            "errors": {each: row[f"{each}_error"] for each in OUTCOMES},
        }
        for row in table.to_dict("records")
    ]
