"""``kvbench search``: whole searches over the world model on several caches, and whether they find the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.table import Table

from kvbench.cli.console import STDOUT
from kvbench.cli.shapes import shape_of
from kvbench.files import whole_or_absent
from kvbench.measure.machine import Machine
from kvcache import AUTO, GEOMETRIES, LOGGED_STALE_HITS, POSITIONS, STORAGES, CacheBackend, CacheMismatchError
from kvcache.world_model import LARGEST_SEED, Played, SearchConfig, WorldModel, WorldModelConfig, play

__all__ = ["search"]

# How a model's settings spell each of the backends that can be chosen here.
_SETTINGS: dict[str, dict[str, Any]] = {
    "legacy": {},
    "new": {"use_new_cache_manager": True},
    **{f"new:{storage}": {"use_new_cache_manager": True, "cache_storage": storage} for storage in (*STORAGES, AUTO)},
    "new:paged-resident": {
        "use_new_cache_manager": True,
        "cache_storage": "paged",
        "cache_resident_batch": True,
    },
}
_TIMED = ("hash_states", "lookup", "supply", "assemble", "store", "clear_recur_cache")


@dataclass
class _Run:
    """One backend's model, and what its searches took and found."""

    name: str
    model: WorldModel
    searches: list[Played]
    seconds: list[float]
    cache_seconds: list[float]


class _CacheClock:
    """Adds up the time that a cache's own methods take: of two in validation mode, and of their comparison.

    Args:
        cache: its methods are watched from now on.
        now: the time, in seconds.
    """

    def __init__(self, cache: CacheBackend, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = 0.0
        self._now = now
        for name in _TIMED:
            setattr(cache, name, self._timed(getattr(cache, name)))

    def _timed(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = self._now()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += self._now() - start

        return call


@click.command()
@click.option("--geometry", type=click.Choice(list(GEOMETRIES)), required=True, help="Shapes of model and caches.")
@click.option("--positions", type=click.Choice(POSITIONS), help="Instead of the geometry's own.")
@click.option("--searches", type=click.IntRange(min=1), default=20, show_default=True, help="One after the other.")
@click.option("--simulations", type=click.IntRange(min=1), help="Of a search; the geometry's own by default.")
@click.option("--env-num", type=click.IntRange(min=1), help="Environments; the geometry's own by default.")
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=LARGEST_SEED),
    default=0,
    show_default=True,
    help="Of weights, play and noise.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(list(_SETTINGS)),
    default=("legacy", "new"),
    show_default=True,
    help="A cache; may be given several times. The first is what the others are compared with.",
)
@click.option("--recur-slots", type=click.IntRange(min=1), help="Recurrent slots; by default one for every node.")
@click.option(
    "--validate",
    is_flag=True,
    help="Run the other cache beside each and compare every retrieval; cache work is that of both.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="torch's threads.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the numbers here.")
def search(
    geometry: str,
    positions: str | None,
    searches: int,
    simulations: int | None,
    env_num: int | None,
    seed: int,
    backends: tuple[str, ...],
    recur_slots: int | None,
    validate: bool,
    threads: int,
    json_path: Path | None,
) -> None:
    """Run whole searches on each cache in turns, and compare what they find and take.

    The model, its environments and all noise come from the seed: what differs is the cache's doing. A search is the
    roots' inference and all simulations; times are of whole searches, the backends taking turns search by search.
    """
    if len(set(backends)) != len(backends):
        raise click.BadParameter("a backend is named twice", param_hint="--backend")
    torch.set_num_threads(threads)
    shape = shape_of(geometry, positions, env_num, simulations)
    try:
        runs = [
            _run(name, WorldModelConfig(shape, seed=seed, recur_pool_size=recur_slots, cache_validation_mode=validate))
            for name in backends
        ]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        _play(runs, searches, seed, SearchConfig(num_simulations=shape.num_simulations))
    except CacheMismatchError as error:
        raise click.ClickException(str(error)) from error
    numbers = {
        "format": "kvcache-search",
        "geometry": shape.to_dict(),
        "searches": searches,
        "seed": seed,
        "recur_slots": recur_slots,
        "validated": validate,
        "machine": asdict(Machine.describe()),
        "backends": [_summary(run, runs[0]) for run in runs],
    }
    if json_path is not None:
        with whole_or_absent(json_path) as path:
            path.write_text(json.dumps(numbers, indent=1) + "\n")
    _print(numbers)
    for run in runs if validate else ():
        count = run.model.cache.report.stale_hits  # type: ignore[attr-defined]
        if count > LOGGED_STALE_HITS:
            click.echo(
                f"{run.name}: {count} stale hits of legacy, of which the first {LOGGED_STALE_HITS} were logged",
                err=True,
            )


def _run(name: str, config: WorldModelConfig) -> _Run:
    return _Run(name, WorldModel(replace(config, **_SETTINGS[name])), [], [], [])


def _play(runs: Sequence[_Run], searches: int, seed: int, config: SearchConfig) -> None:
    plays = [play(run.model, searches, seed, config) for run in runs]
    clocks = [_CacheClock(run.model.cache) for run in runs]
    for number in range(searches):
        order = list(zip(runs, plays, clocks, strict=True))
        for run, playing, clock in order if number % 2 == 0 else reversed(order):
            clock.seconds, start = 0.0, time.perf_counter()
            run.searches.append(next(playing))
            run.seconds.append(time.perf_counter() - start)
            run.cache_seconds.append(clock.seconds)


def _summary(run: _Run, first: _Run) -> dict[str, Any]:
    """The numbers of one backend, beside those of the first."""
    pairs = list(zip(run.searches, first.searches, strict=True))
    stats, cache = run.model.cache.hierarchy_stats, run.model.cache
    report = getattr(cache, "report", None)
    return {
        "name": run.name,
        "search_ms_median": 1e3 * float(np.median(run.seconds)),
        "times_faster_median": float(np.median(np.array(first.seconds) / np.array(run.seconds))),
        "cache_share_median": float(np.median(np.array(run.cache_seconds) / np.array(run.seconds))),
        "cache_ms_median": 1e3 * float(np.median(run.cache_seconds)),
        "bytes_reserved": sum(cache.bytes_reserved.values()),
        "hits": stats.hits,
        "misses": stats.misses,
        "searches_with_the_same_actions": sum(np.array_equal(a.result.actions, b.result.actions) for a, b in pairs),
        "searches_with_the_same_visits": sum(
            np.array_equal(a.result.visit_counts, b.result.visit_counts) for a, b in pairs
        ),
        "largest_difference_of_values": max(float(np.abs(a.result.values - b.result.values).max()) for a, b in pairs),
        "validation": None if report is None else vars(report),
    }


def _print(numbers: dict[str, Any]) -> None:
    backends, searches = numbers["backends"], numbers["searches"]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for each in backends:
        table.add_column(each["name"], justify="right")
    cache_work = "cache work" + " of both caches and comparing them" * numbers["validated"]
    rows = {
        "a search, ms, median": "{search_ms_median:.1f}",
        "times faster than the first, median": "{times_faster_median:.2f}",
        f"of it {cache_work}, ms, median": "{cache_ms_median:.2f}",
        f"of it {cache_work}, %, median": "{cache_share:.1f}",
        "bytes reserved, MB": "{megabytes:.1f}",
        "hits / misses below the roots": "{hits} / {misses}",
        f"the same actions as the first, of {searches} searches": "{searches_with_the_same_actions}",
        f"the same visits as the first, of {searches} searches": "{searches_with_the_same_visits}",
        "largest difference of root values": "{largest_difference_of_values:.2g}",
    }
    for label, form in rows.items():
        table.add_row(
            label,
            *(
                form.format(
                    **each, cache_share=100 * each["cache_share_median"], megabytes=each["bytes_reserved"] / 1e6
                )
                for each in backends
            ),
        )
    if numbers["validated"]:
        for label, name in (("compared retrievals, all the same", "compared"), ("legacy's stale hits", "stale_hits")):
            table.add_row(label, *(str(each["validation"][name]) for each in backends))
    STDOUT.print(table)
