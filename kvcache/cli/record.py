"""``kvcache record``: observe a search and write what it asked of its cache."""

from __future__ import annotations

from pathlib import Path

import click

from kvcache.integrations.lightzero_run import ENVIRONMENTS, record_run
from kvcache.trace.writer import journal_path

__all__ = ["record"]


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
    try:
        header = record_run(
            environment,
            output,
            seed=seed,
            train_steps=train_steps,
            searches=searches,
            threads=threads,
            progress=lambda line: click.echo(line, err=True),
        )
    except KeyboardInterrupt:
        if journal_path(output).exists():
            click.echo(f"cut off: 'kvcache trace recover {output}' makes a trace of what was recorded", err=True)
        raise
    click.echo(f"{output}: {searches} searches of {header.source['environment']}, LightZero {header.source['version']}")
