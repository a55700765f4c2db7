"""The page that compares any two measured commits: every series with all its values, which the page's script reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kvbench.history.commits import Commits
from kvbench.history.series import History, Series
from kvbench.report.facets import facets_of, facets_together
from kvbench.report.site import PageLink, Site

__all__ = ["COMPARE", "measured_commits", "write_comparison"]

COMPARE = PageLink("compare.html", "Compare")


def measured_commits(history: History, commits: Commits) -> dict[str, list[list[str]]]:
    """Commits of each machine, oldest first: name, date and subject."""
    return {
        machine: [
            [name[:8], str(history.dates[name].date()), known.subject if (known := commits.find(name)) else ""]
            for name in names
        ]
        for machine, names in history.commits.items()
    }


def write_comparison(site: Site, history: History) -> None:
    """Write the page."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for series in history.series:
        groups.setdefault((series.machine, series.benchmark), []).append(series)
    content = [_group(each) for each in groups.values()]
    site.page(
        COMPARE.file, "compare.html", "Compare two commits", series=content, changes=_changes(history), elsewhere=[],
        filtered=True,
    )  # fmt: skip


def _changes(history: History) -> dict[str, dict[str, list[Any]]]:
    """Of each machine whose environment changed: which one each commit has, and what differs between any two."""
    found: dict[str, dict[str, list[Any]]] = {}
    for machine, environments in history.environments.items():
        places = environments.places.tolist()
        firsts = [places.index(each) for each in range(len(environments.settings))]
        if len(firsts) > 1:
            texts = [[environments.change(one, other) for other in firsts] for one in firsts]
            found[machine] = {"places": places, "texts": texts}
    return found


def _group(group: Sequence[Series]) -> dict[str, Any]:
    """Series of one benchmark: ``facets`` with all their values, and of each series the numbers of its own."""
    facets = facets_together(group)
    rows = []
    for series in group:
        own = facets_of(series)
        rows.append(
            [*(values.index(own[name]) if name in own else None for name, values in facets.items()), _values(series)]
        )
    return {"unit": group[0].unit, "exact": group[0].is_exact, "facets": facets, "series": rows}


def _values(series: Series) -> list[float | None]:
    """One value for each commit; one alone where all are the same."""
    found = [None if math.isnan(value) else int(value) if value.is_integer() else value for value in series.values]
    return found[:1] if len(set(found)) == 1 else found
