"""Whole searches on several caches: what they take, divided into forward passes, cache, trees and the rest."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kvbench.measure.search_split import PARTS
from kvbench.report.panels import Cell, Panel, Plot, Series, Table
from kvbench.report.text import clean, file_name, number
from kvbench.results.decode import read_json
from kvbench.results.search import MADE_BY, SearchResults

__all__ = ["WholeSearches", "read_whole_searches", "split_panels"]


@dataclass(frozen=True)
class WholeSearches:
    """One file of ``kvbench search``; ``name`` is what it is called."""

    path: Path
    content: SearchResults
    name: str

    @property
    def command(self) -> str:
        """The command that made it."""
        return shlex.join(["kvbench", *self.content.command])


def read_whole_searches(path: Path, name: str = "") -> WholeSearches:
    """Read one result file, called by its own name unless one is given. Raises ResultsError, as ``read_json`` does."""
    return WholeSearches(path, read_json(path, SearchResults, MADE_BY), name or clean(path.name))


def split_panels(files: Iterable[WholeSearches]) -> Iterator[Panel]:
    """A search, divided, for each file; one from before searches were divided has the cache alone."""
    for file in files:
        if file.content.backends:
            yield _split_panel(file)


def _split_panel(file: WholeSearches) -> Panel:
    content, backends = file.content, file.content.backends
    parts = {part: [getattr(each, f"{part}_ms_median") for each in backends] for part in PARTS}
    rows: list[list[Cell]] = [
        [each.name, each.search_ms_median, *(times[place] for times in parts.values()), each.times_faster_median]
        for place, each in enumerate(backends)
    ]

    def hover(place: float, time: float, part: str) -> str:
        each = backends[int(place)]
        return f"{part}: {number(time)} ms of {number(each.search_ms_median)} ms\n{each.name}"

    places = range(len(backends))
    bars = [Series(part, places, [time or 0.0 for time in times], hover) for part, times in parts.items() if any(times)]
    geometry = content.geometry
    leaves = f", {content.leaves} leaves at once" if content.leaves > 1 else ""
    return Panel(
        file_name("search", file.path.stem, geometry.name, beside=str(file.path)),
        f"A whole search, divided: {geometry.name}",
        Table(
            ("backend", "a search, ms", *(f"{part}, ms" for part in PARTS), f"times as fast as {backends[0].name}"),
            rows,
        ),
        f"{content.searches} searches of {geometry.num_simulations} simulations{leaves}, in {geometry.env_num} "
        "environments; medians. Forward is inferences without their calls of the cache, tree is the search without its "
        "inferences, rest is the environments and what is around.",
        file.command,
        Plot("ms", series=bars, categories=[each.name for each in backends]),
    )
