"""``kvbench record``: observe a search and write its cache requests to a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import track

from kvbench.cli.console import STDERR, say
from kvbench.cli.options import LIGHTZERO_SEED, STEPS_OR_NONE, CommandGroup, lightzero_options, model_options, option
from kvbench.record.lightzero_run import RunSettings, record_run
from kvbench.record.needs import require_for_searches, require_for_trees
from kvbench.record.world_model import record_model
from kvbench.text import clean
from kvbench.trace.journal import journal_path
from kvbench.trace.keys import FEW_DISTINCT_KEYS
from kvcache import Geometry
from kvcache.world_model import WorldModelConfig

__all__ = ["record"]


@contextmanager
def _hint_when_cut_off(output: Path) -> Iterator[None]:
    """Say how to recover the recorded part when the recording is interrupted."""
    try:
        yield
    except KeyboardInterrupt as error:
        if journal_path(output).exists():
            error.args = (f"cut off: 'kvbench trace recover {output}' makes a trace of what was recorded",)
        raise


@click.group(cls=CommandGroup)
def record() -> None:
    """Record a search as a trace."""


_OUTPUT = option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="Write this trace file, which must not exist.",
)


@record.command()
@lightzero_options
@_OUTPUT
@option("--seed", type=LIGHTZERO_SEED, help="Give LightZero this seed.")
@option("--train-steps", type=STEPS_OR_NONE, default=12000, help="Train for N environment steps first.")
@option("--searches", default=40, help="Record this many searches.")
@option("--threads")
def lightzero(
    config: str, settings: dict[str, Any], output: Path, seed: int, train_steps: int, searches: int, threads: int
) -> None:
    """Train UniZero with LightZero 0.2.0 on the CPU, then collect with it and record the collecting.

    LightZero needs Python 3.11 and its own environment, which tox -e lightzero makes.
    """
    with _hint_when_cut_off(output):
        run = RunSettings(config, seed, train_steps, searches, threads, settings)
        header = record_run(run, output, progress=say)
    recorded = f"{searches} searches of {header.source['environment']}, LightZero {header.source['version']}"
    click.echo(clean(f"{output}: {recorded}"))
    _report_distinct_keys(header.source.get("distinct_keys"))


def _report_distinct_keys(share: float | None) -> None:
    if share is None:
        return  # a model whose context has no room for a past stores nothing
    click.echo(f"distinct keys: {share:.1%} of the predicted latents")
    if share < FEW_DISTINCT_KEYS:
        say(
            "warning: most predicted latents share a key, as in a model that is hardly trained. Hit rates of this "
            "trace say little about a trained model: train for more steps with --train-steps."
        )


@record.command("synthetic-model")
@model_options
@_OUTPUT
@option("--searches", help="Record this many searches.")
@option("--leaves")
@option("--backend", type=click.Choice(["legacy", "new"]), multiple=False, default="legacy", help="Use this cache.")
def synthetic_model(shape: Geometry, seed: int, output: Path, searches: int, leaves: int, backend: str) -> None:
    """Search with kvcache's own world model of random weights, and record its cache requests.

    The searches have real shapes, at any geometry and without LightZero. Their results have no meaning.
    """
    require_for_searches("this recording", shape, [backend], searches, leaves=leaves)
    require_for_trees(shape, searches, num_actions=WorldModelConfig.action_space_size)
    config = WorldModelConfig(shape, seed=seed, use_new_cache_manager=backend == "new")
    with _hint_when_cut_off(output):
        recording = record_model(output, config, searches, seed, leaves)
        for _ in track(recording, f"record {shape.name}", total=searches, console=STDERR, transient=True):
            pass
    click.echo(clean(f"{output}: {searches} searches of kvcache's own world model, {shape.name}"))
