"""``kvbench train``: the same training run on several caches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import TextColumn

from kvbench.cli.console import cells_of, make_table, progress_bar, show
from kvbench.cli.options import FOLDER, LIGHTZERO_SEED, STEPS, CommandGroup, lightzero_options, option
from kvbench.files import temporary_folder
from kvbench.results.decode import write_json
from kvbench.results.training import TrainingResults
from kvbench.text import clean
from kvbench.training import run
from kvbench.training.backends import LEGACY, TRAINED
from kvbench.training.run import TrainingSettings
from kvbench.training.table import rows_of, verdicts

__all__ = ["train"]

_EVICTION = "policy.model.world_model_cfg.eviction_strategy"  # as --set names it


@click.group(cls=CommandGroup)
def train() -> None:
    """Train UniZero on each cache from one seed, and compare the runs."""


@train.command()
@lightzero_options
@option(
    "--backend",
    "backends",
    type=click.Choice(TRAINED),
    default=(LEGACY, "new"),
    help="Train on this cache; several times, compared with the first.",
)
@option("--env-steps", type=STEPS, default=2000, help="Train for this many environment steps.")
@option(
    "--validate",
    "validates",
    is_flag=True,
    help="Compare every retrieval with a legacy cache's; times include both.",
)
@option("--eviction", default=None, show_default="the configuration's")
@option("--seed", type=LIGHTZERO_SEED, help="Seed everything: weights, environments, noise and LightZero's tree.")
@option("--threads")
@option("--output", type=FOLDER, help="Keep the runs' files, and a page of them, in this folder, which must not exist.")
@option("--json", "json_path")
def lightzero(output: Path | None, json_path: Path | None, eviction: str | None, **given: Any) -> None:
    """Train UniZero with LightZero 0.2.0 on the CPU, once with each cache, each in a process of its own.

    "legacy" is LightZero's own cache. The names that end with "-exact" have its bits; the others round the last one
    differently. Any other difference comes from the cache. Pool sizes are for the new caches alone:
    --set policy.model.world_model_cfg.recur_pool_size=100 lets some lookups miss.
    """
    if output is not None and output.exists():
        raise click.BadParameter(f"{output} exists: choose another name", param_hint="--output")
    if eviction is not None:
        given["settings"] = {**given["settings"], _EVICTION: eviction}
    settings = TrainingSettings(**given, command=sys.argv[1:])
    try:
        with temporary_folder("kvbench-train") as folder, _bars(settings) as progress:
            results = run.train(settings, output or folder, progress)
    except KeyboardInterrupt as error:
        if output is not None and output.exists():
            error.args = (f"{output} holds what the runs wrote until then: remove it, or name another folder",)
        raise
    if json_path is not None:
        write_json(json_path, results)
    _print(results)
    if output is not None:
        click.echo(clean(f"{_write_page(results, output)}: curves of all runs"))


@contextmanager
def _bars(settings: TrainingSettings) -> Iterator[run.Progress]:
    """A bar for each backend, which begins when its run does."""
    with progress_bar(TextColumn("steps")) as bars:
        tasks = {name: bars.add_task(name, total=settings.env_steps, start=False) for name in settings.backends}

        def progress(name: str, counts: dict[str, int]) -> None:
            bars.start_task(tasks[name])
            bars.update(
                tasks[name],
                completed=min(counts["env_steps"], settings.env_steps),
                description=f"{name}, {counts['learn_steps']} learning steps",
            )

        yield progress


def _print(results: TrainingResults) -> None:
    title = f"{results.environment}, {results.library}, seed {results.seed}"
    table = make_table(title, [""], [each.name for each in results.backends])
    for row in rows_of(results):
        table.add_row(row.label, *cells_of(row.values, row.form))
    show(table)
    for sentence in verdicts(results):
        show(sentence)


def _write_page(results: TrainingResults, folder: Path) -> Path:
    from kvbench.report.training import write_training_page

    path = folder / "training.json"
    write_json(path, results)
    return write_training_page(path)
