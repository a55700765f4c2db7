"""``kvbench trace``: look at a trace, check one, recover one, make one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.progress import track

from kvbench.cli.console import STDERR
from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
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
        click.echo(f"{file}: {TraceReader(file).check()} events, sound")


@trace.command()
@click.argument("file", type=_FILE)
def recover(file: Path) -> None:
    """Make FILE of the journal that a killed recorder left beside it (FILE.journal)."""
    click.echo(f"{file}: {recover_trace(file)} events recovered")


@trace.command()
@click.argument("output", type=_FILE)
@click.option("--geometry", type=click.Choice(list(GEOMETRIES)), required=True, help="Shapes and sizes (SPEC 1).")
@click.option("--searches", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--actions", type=click.IntRange(min=1), default=4, show_default=True, help="Branching of the trees.")
@click.option("--episode-length", type=click.IntRange(min=1), default=40, show_default=True, help="Mean steps.")
@click.option(
    "--transpositions",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of nodes whose key was met before in the search.",
)
def synthesize(
    output: Path, geometry: str, searches: int, seed: int, actions: int, episode_length: int, transpositions: float
) -> None:
    """Make a synthetic trace: trees built by the PUCT rule over seeded numbers, no model behind them."""
    search = SyntheticSearch(
        GEOMETRIES[geometry],
        searches,
        seed,
        num_actions=actions,
        episode_length=episode_length,
        transpositions=transpositions,
    )
    for _ in track(write_synthetic_trace(output, search), "searching", searches, console=STDERR, transient=True):
        pass
    click.echo(f"{output}: {TraceReader(output).rows} events, synthetic, {geometry}, seed {seed}")
