"""``kvbench train``: the same training run on several caches."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kvbench.cli.console import STDERR, STDOUT, make_table
from kvbench.cli.options import lightzero_options, option
from kvbench.results.decode import write_json
from kvbench.results.training import TrainedBackend, TrainingResults
from kvbench.training.backends import LEGACY, TRAINED
from kvbench.training.run import TrainingSettings
from kvbench.training.run import train as run_training

__all__ = ["train"]


@click.group()
def train() -> None:
    """Train UniZero with LightZero on each cache from one seed, and compare every number."""


@train.command()
@lightzero_options
@option(
    "--backend",
    "backends",
    type=click.Choice(TRAINED),
    default=(LEGACY, "new"),
    help="Train on this cache; give it several times. The others are compared with the first.",
)
@click.option("--env-steps", type=click.IntRange(min=1), default=2000, help="Train for this many environment steps.")
@option("--seed", help="Seed everything: weights, environments, noise and LightZero's tree.")
@option("--threads")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep all files of the runs in this folder, which must not exist.",
)
@option("--json", "json_path")
def lightzero(
    config: str,
    settings: dict[str, Any],
    backends: tuple[str, ...],
    env_steps: int,
    seed: int,
    threads: int,
    output: Path | None,
    json_path: Path | None,
) -> None:
    """Train UniZero with LightZero 0.2.0 on the CPU, once with each cache, each in a process of its own.

    "legacy" is LightZero's own cache. The names that end with "-exact" have its bits; the others round the last one
    differently. Any other difference comes from the cache.
    """
    if output is not None and output.exists():
        raise click.BadParameter(f"{output} exists: choose another name", param_hint="--output")
    run = TrainingSettings(config, settings, backends, env_steps, seed, threads)
    folder = Path(mkdtemp(prefix="kvbench-train-")) if output is None else output
    with ExitStack() as stack:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        bar = stack.enter_context(Progress(*columns, console=STDERR, transient=True))
        tasks = {name: bar.add_task(name, total=env_steps) for name in backends}

        def progress(name: str, counts: dict[str, Any]) -> None:
            bar.update(tasks[name], completed=min(counts["env_steps"], env_steps))

        results = run_training(run, folder, progress)
    if json_path is not None:
        write_json(json_path, results)
    _print(results)


_ROWS = {
    "searches a second, while collecting": "{searches_per_second:.1f}",
    "of a search's time the cache's, %": "{cache_percent:.1f}",
    "cache, ms a search": "{cache_ms_per_search:.2f}",
    "hits / misses below the roots, %": "{hit_percent:.2f} / {miss_percent:.2f}",
    "stale hits": "{stale}",
    "cache memory, MB": "{cache_mb:.1f}",
    "peak memory of the process, MB": "{peak_mb:.0f}",
    "distinct keys of predicted latents, %": "{distinct_percent:.0f}",
    "searches / learning steps": "{searches} / {learn_steps}",
    "wall time, s": "{wall_seconds:.0f}",
}


def _print(results: TrainingResults) -> None:
    names = [each.name for each in results.backends]
    title = f"{results.environment}, {results.library}, seed {results.seed}"
    table = make_table(title, [""], names)
    for label, form in _ROWS.items():
        table.add_row(label, *(form.format(**_numbers(each)) for each in results.backends))
    STDOUT.print(table)
    for each in results.backends[1:]:
        STDOUT.print(verdict(each, names[0]))


def verdict(backend: TrainedBackend, first: str) -> str:
    """The comparison in a sentence."""
    counts = f"{backend.searches} searches and {backend.learn_steps} learning steps"
    if backend.first_difference is None:
        return f"{backend.name}: identical to {first} in every number of {counts}."
    return (
        f"{backend.name}: first difference to {first} at {backend.first_difference}; searched values differ by "
        f"{backend.largest_difference:.2g} at most, until another action was taken."
    )


def _numbers(backend: TrainedBackend) -> dict[str, Any]:
    return {
        **{name: getattr(backend, name) for name in backend.__struct_fields__},
        "cache_percent": 100 * backend.cache_share,
        "hit_percent": 100 * backend.hit_rate,
        "miss_percent": 100 * backend.miss_rate,
        "distinct_percent": 100 * backend.distinct_keys,
        "cache_mb": backend.cache_bytes / 1e6,
        "peak_mb": backend.peak_bytes / 1e6,
        "stale": "not known" if backend.stale_hits is None else backend.stale_hits,
    }
