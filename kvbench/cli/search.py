"""``kvbench search``: whole searches over the world model on several caches, and whether their results agree."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Column, Table

from kvbench.cli.console import say, show
from kvbench.cli.options import COUNT, model_options, option
from kvbench.measure.machine import Machine
from kvbench.measure.search_split import PARTS, SplitClock, split_search
from kvbench.record.needs import require_for_searches
from kvbench.results.decode import write_json
from kvbench.results.search import SearchedBackend, SearchResults
from kvcache import AUTO, LOGGED_STALE_HITS, STORAGES, CacheMismatchError, Geometry
from kvcache.world_model import CompileError, Played, SearchConfig, WorldModel, WorldModelConfig, play

__all__ = ["search"]

# How a model's settings spell each of the backends that can be chosen here.
_SETTINGS: dict[str, dict[str, Any]] = {
    "legacy": {"use_new_cache_manager": False},
    "new": {},
    **{f"new:{storage}": {"cache_storage": storage} for storage in (*STORAGES, AUTO)},
    "new:paged-resident": {"cache_storage": "paged", "cache_resident_batch": True},
}


class _Run:
    """One backend's model, and times and results of its searches."""

    def __init__(self, name: str, config: WorldModelConfig, searched: SearchConfig) -> None:
        self.name = name
        model = WorldModel(replace(config, **{"use_new_cache_manager": True, **_SETTINGS[name]}))
        self.model, self.cache, self.clock = model, model.cache, SplitClock()
        self.whole = split_search(model, searched, self.clock)
        self.searches: list[Played] = []
        self.seconds: dict[str, list[float]] = {part: [] for part in PARTS}  # of each search

    def search(self, playing: Iterator[Played]) -> None:
        """Time one search."""
        self.clock.start()
        self.searches.append(self.clock("rest", next, playing))
        for part, seconds in self.clock.seconds.items():
            self.seconds[part].append(seconds)

    @property
    def totals(self) -> np.ndarray:
        """Seconds of each search."""
        totals: np.ndarray = np.sum(list(self.seconds.values()), axis=0)
        return totals


@click.command()
@model_options
@option("--searches")
@option("--leaves")
@option(
    "--backend",
    "backends",
    type=click.Choice(list(_SETTINGS)),
    help="Use this cache; several times, compared with the first.",
)
@option("--recur-slots", type=COUNT, show_default="one for every node", help="Give the recurrent pool N slots.")
@option("--eviction")
@option("--validate", is_flag=True, help="Compare every retrieval with the other cache's; times include both.")
@option("--compile", "compiles", is_flag=True, help="Compile the passes of recurrent inferences by torch.compile.")
@option("--json", "json_file")
def search(
    shape: Geometry,
    seed: int,
    searches: int,
    leaves: int,
    backends: tuple[str, ...],
    recur_slots: int | None,
    eviction: str,
    validate: bool,
    compiles: bool,
    json_file: Path | None,
) -> None:
    """Run whole searches on each cache in turns, and compare them.

    The model, its environments and all noise come from the seed, so any difference comes from the cache. A search is
    the roots' inference and all simulations. The caches take turns, search by search.
    """
    caches = [*backends, *(("new", "legacy") * len(backends) if validate else ())]
    require_for_searches("this search", shape, caches, searches, recur_slots, leaves)
    try:
        pool: dict[str, Any] = {"recur_pool_size": recur_slots, "eviction_strategy": eviction}
        config = WorldModelConfig(shape, seed=seed, cache_validation_mode=validate, compile=compiles, **pool)
        searched = SearchConfig(shape.num_simulations, leaves=leaves)
        runs = [_Run(name, config, searched) for name in backends]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        _play(runs, searches, seed)
    except (CacheMismatchError, CompileError) as error:
        raise click.ClickException(str(error)) from error
    numbers = SearchResults(
        geometry=shape,
        searches=searches,
        seed=seed,
        recur_slots=recur_slots,
        eviction=eviction,
        leaves=leaves,
        validated=validate,
        machine=Machine.describe().to_dict(),
        command=sys.argv[1:],
        backends=[_summary(run, runs[0]) for run in runs],
    )
    if json_file is not None:
        write_json(json_file, numbers)
    _print(numbers)
    for run in runs:
        report = run.cache.report
        if report is not None and report.stale_hits > LOGGED_STALE_HITS:
            found = f"{report.stale_hits} stale hits of legacy"
            say(f"{run.name}: {found}; the first {LOGGED_STALE_HITS} were logged")
        for name, count in run.model.step_counts.items():
            say(f"{run.name}: {count} {name}")


def _play(runs: Sequence[_Run], searches: int, seed: int) -> None:
    plays = [play(run.model, searches, seed, search=run.whole) for run in runs]
    for number in range(searches):
        order = list(zip(runs, plays, strict=True))
        for run, playing in order if number % 2 == 0 else reversed(order):
            run.search(playing)


def _summary(run: _Run, first: _Run) -> SearchedBackend:
    """The numbers of one backend, beside those of the first."""
    pairs = list(zip(run.searches, first.searches, strict=True))
    stats, report = run.cache.hierarchy_stats, run.cache.report
    medians = {f"{part}_ms_median": 1e3 * float(np.median(seconds)) for part, seconds in run.seconds.items()}
    return SearchedBackend(
        name=run.name,
        search_ms_median=1e3 * float(np.median(run.totals)),
        times_faster_median=float(np.median(first.totals / run.totals)),
        cache_share_median=float(np.median(run.seconds["cache"] / run.totals)),
        **medians,
        bytes_reserved=sum(run.cache.bytes_reserved.values()),
        hits=stats.hits,
        misses=stats.misses,
        searches_with_the_same_actions=sum(np.array_equal(a.result.actions, b.result.actions) for a, b in pairs),
        searches_with_the_same_visits=sum(
            np.array_equal(a.result.visit_counts, b.result.visit_counts) for a, b in pairs
        ),
        largest_difference_of_values=max(float(np.abs(a.result.values - b.result.values).max()) for a, b in pairs),
        validation=None if report is None else vars(report),
    )


def _print(numbers: SearchResults) -> None:
    searches = numbers.searches
    columns = [Column(each.name, justify="right") for each in numbers.backends]
    table = Table("", *columns, box=None, pad_edge=False)
    cache_work = "cache work" + " of both caches and comparing them" * numbers.validated
    rows = {
        "a search, ms, median": "{0.search_ms_median:.1f}",
        "times faster than the first, median": "{0.times_faster_median:.2f}",
        f"of it {cache_work}, ms, median": "{0.cache_ms_median:.2f}",
        f"of it {cache_work}, %, median": "{cache_percent:.1f}",
        "of it inferences without the cache, ms, median": "{0.forward_ms_median:.1f}",
        "of it trees, ms, median": "{0.tree_ms_median:.2f}",
        "of it the rest, environments for the most part, ms, median": "{0.rest_ms_median:.2f}",
        "bytes reserved, MB": "{megabytes:.1f}",
        "hits / misses below the roots": "{0.hits} / {0.misses}",
        f"the same actions as the first, of {searches} searches": "{0.searches_with_the_same_actions}",
        f"the same visits as the first, of {searches} searches": "{0.searches_with_the_same_visits}",
        "largest difference of root values": "{0.largest_difference_of_values:.2g}",
    }
    if numbers.validated:
        rows["compared retrievals, all the same"] = "{0.validation[compared]}"
        rows["legacy's stale hits"] = "{0.validation[stale_hits]}"
    for label, form in rows.items():
        cells = (
            form.format(each, cache_percent=100 * each.cache_share_median, megabytes=each.bytes_reserved / 1e6)
            for each in numbers.backends
        )
        table.add_row(label, *cells)
    show(table)
