"""``kvbench record``: observe a search and write what it asked of its cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from rich.progress import track

from kvbench.cli.console import STDERR
from kvbench.cli.shapes import shape_of
from kvbench.record.lightzero_run import ENVIRONMENTS, record_run
from kvbench.record.world_model import record_model
from kvbench.trace.writer import journal_path
from kvcache import GEOMETRIES, POSITIONS
from kvcache.world_model import LARGEST_SEED, WorldModelConfig

__all__ = ["record"]

_LEGACY, _NEW = "legacy", "new"


@contextmanager
def _hint_when_cut_off(output: Path) -> Iterator[None]:
    """Say how what was recorded can be had, when somebody interrupts the recording."""
    try:
        yield
    except KeyboardInterrupt:
        if journal_path(output).exists():
            click.echo(f"cut off: 'kvbench trace recover {output}' makes a trace of what was recorded", err=True)
        raise


@click.group()
def record() -> None:
    """Record a search as a trace."""


@record.command()
@click.option("--env", "environment", type=click.Choice(sorted(ENVIRONMENTS)), required=True, help="What to play.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The trace file; it must not exist.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--train-steps",
    type=click.IntRange(min=0),
    default=12000,
    show_default=True,
    help="Environment steps to train before recording; 0 records untrained weights.",
)
@click.option("--searches", type=click.IntRange(min=1), default=40, show_default=True, help="Searches to record.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="torch's threads.")
def lightzero(environment: str, output: Path, seed: int, train_steps: int, searches: int, threads: int) -> None:
    """Train UniZero with LightZero 0.2.0 on the CPU, then collect with it and record the collecting.

    Needs LightZero, which needs Python 3.11 and an environment of its own: tox -e lightzero makes one.
    """
    with _hint_when_cut_off(output):
        header = record_run(
            environment,
            output,
            seed=seed,
            train_steps=train_steps,
            searches=searches,
            threads=threads,
            progress=lambda line: click.echo(line, err=True),
        )
    click.echo(f"{output}: {searches} searches of {header.source['environment']}, LightZero {header.source['version']}")


@record.command("synthetic-model")
@click.option("--geometry", type=click.Choice(list(GEOMETRIES)), required=True, help="Shapes of model and caches.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The trace file; it must not exist.")
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=LARGEST_SEED),
    default=0,
    show_default=True,
    help="Of weights, play and noise.",
)
@click.option("--searches", type=click.IntRange(min=1), default=20, show_default=True, help="Searches to record.")
@click.option("--simulations", type=click.IntRange(min=1), help="Of a search; the geometry's own by default.")
@click.option("--env-num", type=click.IntRange(min=1), help="Environments; the geometry's own by default.")
@click.option("--positions", type=click.Choice(POSITIONS), help="Instead of the geometry's own.")
@click.option("--backend", type=click.Choice([_LEGACY, _NEW]), default=_LEGACY, show_default=True, help="Its cache.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="torch's threads.")
def synthetic_model(
    geometry: str,
    output: Path,
    seed: int,
    searches: int,
    simulations: int | None,
    env_num: int | None,
    positions: str | None,
    backend: str,
    threads: int,
) -> None:
    """Search with kvcache's own world model, of random weights, and record what it asks of its cache.

    Real searches of real shapes, at any geometry and without LightZero; what they find has no meaning.
    """
    torch.set_num_threads(threads)
    shape = shape_of(geometry, positions, env_num, simulations)
    config = WorldModelConfig(shape, seed=seed, use_new_cache_manager=backend == _NEW)
    with _hint_when_cut_off(output):
        recording = record_model(output, config, searches, seed)
        for _ in track(recording, f"record {geometry}", total=searches, console=STDERR, transient=True):
            pass
    click.echo(f"{output}: {searches} searches of kvcache's own world model, {geometry}")
