"""``kvbench record``: observe a search and write its cache requests to a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from rich.progress import track

from kvbench.cli.console import STDERR
from kvbench.cli.shapes import model_options, shape_of
from kvbench.record.lightzero_run import ENVIRONMENTS, RunSettings, record_run
from kvbench.record.world_model import record_model
from kvbench.trace.writer import journal_path
from kvcache.world_model import WorldModelConfig

__all__ = ["record"]

_LEGACY, _NEW = "legacy", "new"


@contextmanager
def _hint_when_cut_off(output: Path) -> Iterator[None]:
    """Print how to recover the recorded part when the recording is interrupted."""
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
@click.option(
    "--env", "environment", type=click.Choice(sorted(ENVIRONMENTS)), required=True, help="Play this environment."
)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Write this trace file, which must not exist."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Give LightZero this seed.")
@click.option(
    "--train-steps",
    type=click.IntRange(min=0),
    default=12000,
    show_default=True,
    help="Train for this many environment steps first; 0 records untrained weights.",
)
@click.option(
    "--searches", type=click.IntRange(min=1), default=40, show_default=True, help="Record this many searches."
)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Let torch use this many threads."
)
def lightzero(environment: str, output: Path, seed: int, train_steps: int, searches: int, threads: int) -> None:
    """Train UniZero with LightZero 0.2.0 on the CPU, then collect with it and record the collecting.

    LightZero needs Python 3.11 and its own environment, which tox -e lightzero makes.
    """
    with _hint_when_cut_off(output):
        settings = RunSettings(environment, seed, train_steps, searches, threads)
        header = record_run(settings, output, progress=lambda line: click.echo(line, err=True))
    click.echo(f"{output}: {searches} searches of {header.source['environment']}, LightZero {header.source['version']}")


@record.command("synthetic-model")
@model_options
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Write this trace file, which must not exist."
)
@click.option(
    "--searches", type=click.IntRange(min=1), default=20, show_default=True, help="Record this many searches."
)
@click.option(
    "--backend", type=click.Choice([_LEGACY, _NEW]), default=_LEGACY, show_default=True, help="Use this cache."
)
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
    """Search with kvcache's own world model of random weights, and record its cache requests.

    The searches have real shapes, at any geometry and without LightZero. Their results have no meaning.
    """
    torch.set_num_threads(threads)
    shape = shape_of(geometry, positions, env_num, simulations)
    config = WorldModelConfig(shape, seed=seed, use_new_cache_manager=backend == _NEW)
    with _hint_when_cut_off(output):
        recording = record_model(output, config, searches, seed)
        for _ in track(recording, f"record {geometry}", total=searches, console=STDERR, transient=True):
            pass
    click.echo(f"{output}: {searches} searches of kvcache's own world model, {geometry}")
