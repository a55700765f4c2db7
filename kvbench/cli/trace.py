"""``kvbench trace``: look at a trace, check one, recover one, make one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.progress import track

from kvbench.cli.console import STDERR
from kvbench.cli.options import STEPS, FiniteRange, option
from kvbench.record.needs import require_for_trees
from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.text import clean
from kvbench.trace.reader import TraceReader
from kvbench.trace.writer import recover_trace
from kvcache import GEOMETRIES

__all__ = ["trace"]

_FILE = click.Path(path_type=Path)


@click.group()
def trace() -> None:
    """Show, check, recover and make traces."""


@trace.command()
@click.argument("file", type=_FILE)
def show(file: Path) -> None:
    """Print a trace's header, its number of events and their digest, as JSON."""
    reader = TraceReader(file)
    click.echo(json.dumps({**asdict(reader.header), "events": reader.rows, "digest": reader.digest()}, indent=2))


@trace.command()
@click.argument("files", type=_FILE, nargs=-1, required=True)
def check(files: tuple[Path, ...]) -> None:
    """Read every event of the traces and check the rules of the format."""
    for file in files:
        click.echo(clean(f"{file}: {TraceReader(file).check()} events, sound"))


@trace.command()
@click.argument("file", type=_FILE)
def recover(file: Path) -> None:
    """Make FILE of the journal that a killed recorder left beside it (FILE.journal)."""
    was_whole = file.exists()
    events = recover_trace(file)
    done = "were there already; the journal is removed" if was_whole else "recovered"
    click.echo(clean(f"{file}: {events} events {done}"))


@trace.command()
@click.argument("output", type=_FILE)
@option("--geometry", help="Take the shapes and sizes from this geometry.")
@option("--searches", default=4, help="Make this many searches.")
@option("--seed", type=click.IntRange(-(2**63), 2**63 - 1), help="Seed the trees.")
@click.option("--actions", "num_actions", type=click.IntRange(1, 1024), default=4, help="Branching of the trees.")
@click.option("--episode-length", type=STEPS, default=40, help="Mean steps.")
@click.option(
    "--transpositions",
    type=FiniteRange(0, 1),
    default=0.0,
    help="Share of nodes whose key was met before in the search.",
)
@click.option("--clear-ended", is_flag=True, help="Clear an environment's init cache when its episode ends.")
def synthesize(output: Path, geometry: str, searches: int, seed: int, **trees: Any) -> None:
    """Make a synthetic trace: trees built by the PUCT rule over seeded numbers, no model behind them."""
    require_for_trees(GEOMETRIES[geometry], searches, trees["num_actions"])
    search = SyntheticSearch(GEOMETRIES[geometry], searches, seed, **trees)
    for _ in track(write_synthetic_trace(output, search), "searching", searches, console=STDERR, transient=True):
        pass
    click.echo(clean(f"{output}: {TraceReader(output).rows} events, synthetic, {geometry}, seed {seed}"))
