"""``kvbench trace``: look at a trace, check one, recover one, make one; those of other systems too."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from msgspec import to_builtins
from rich.progress import track

from kvbench.cli.console import STDERR
from kvbench.cli.options import STEPS, CommandGroup, FiniteRange, option
from kvbench.cli.trace_import import export_trace, import_trace
from kvbench.cli.trace_replay import replay_trace
from kvbench.record.fills import FILLS, FilledSearch, root_steps
from kvbench.record.needs import require_for_trees
from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.requests.opened import open_trace
from kvbench.requests.reader import RequestReader
from kvbench.text import clean
from kvbench.trace.reader import TraceReader
from kvbench.trace.writer import recover_trace
from kvcache import GEOMETRIES

__all__ = ["trace"]

_FILE = click.Path(path_type=Path)


@click.group(cls=CommandGroup)
def trace() -> None:
    """Show, check, recover, make, import, replay, export traces."""


for _command in (import_trace, export_trace, replay_trace):
    trace.add_command(_command)


@trace.command()
@click.argument("file", type=_FILE)
def show(file: Path) -> None:
    """Print a trace's header, its number of events or requests and their digest, as JSON."""
    reader = open_trace(file)
    if isinstance(reader, RequestReader):
        about = {**to_builtins(reader.header), "requests": reader.rows}
    else:
        about = {**asdict(reader.header), "events": reader.rows}
    click.echo(json.dumps({**about, "digest": reader.digest()}, indent=2))


@trace.command()
@click.argument("files", type=_FILE, nargs=-1, required=True)
def check(files: tuple[Path, ...]) -> None:
    """Read every event or request of the traces and check the rules of the format."""
    for file in files:
        reader = open_trace(file)
        rows = "requests" if isinstance(reader, RequestReader) else "events"
        click.echo(clean(f"{file}: {reader.check()} {rows}, sound"))


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
@option("--actions", "num_actions", type=click.IntRange(1, 1024), default=4, help="Give each node N actions.")
@option("--episode-length", type=STEPS, default=40, help="End an episode after N steps, in the mean.")
@option(
    "--transpositions",
    type=FiniteRange(0, 1),
    default=0.0,
    metavar="SHARE",
    help="Give this share of nodes a key that was met.",
)
@option("--clear-ended", is_flag=True, help="Clear an environment's init cache when its episode ends.")
@option(
    "--fill",
    type=click.Choice(FILLS),
    metavar="FILL",
    help="Search contexts that are this full; episodes follow from it.",
)
@click.pass_context
def synthesize(
    context: click.Context, /, output: Path, geometry: str, searches: int, seed: int, fill: str | None, **trees: Any
) -> None:
    """Make a synthetic trace: trees built by the PUCT rule over seeded numbers, no model behind them."""
    shape, steps = GEOMETRIES[geometry], 0
    if fill is not None:
        for name in ("episode_length", "clear_ended"):
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--fill decides about episodes: leave --{name.replace('_', '-')} out")
        steps = max(root_steps(shape, fill))
    # Steps without a search have events too.
    sized = replace(shape, num_simulations=shape.num_simulations + steps)
    require_for_trees(sized, searches, trees["num_actions"])
    search = SyntheticSearch(shape, searches, seed, **trees)
    if fill is not None:
        search = FilledSearch(shape, searches, seed, fill=fill, **trees)
    for _ in track(write_synthetic_trace(output, search), "searching", searches, console=STDERR, transient=True):
        pass
    named = f"{geometry}, seed {seed}" + (f", {fill}" if fill else "")
    click.echo(clean(f"{output}: {TraceReader(output).rows} events, synthetic, {named}"))
