"""Benchmarks that have no values any more: they fail, are skipped or are gone, since which commit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from kvbench.history.commits import Commits
from kvbench.history.series import History, Series
from kvbench.judge.changes import FEWEST_VALUES

__all__ = ["Lost", "find_lost"]

FAILS, SKIPPED, GONE = "fails", "is skipped", "is gone"


@dataclass(frozen=True)
class Lost:
    """Series of one benchmark that have no values from ``commit`` on.

    Attributes:
        benchmark: the name for people.
        params: of the first of them.
        number: how many they are.
        state: "fails", "is skipped" or "is gone".
        commit: the first one measured without a value; ``previous`` is the last one with one.
        is_new: whether one of the commits that may have done it counts as new.
        environment: what changed in the environment there; then it need not be a commit that did it.
    """

    machine: str
    benchmark: str
    params: str
    number: int
    state: str
    commit: str
    previous: str
    is_new: bool
    environment: str = ""


def find_lost(history: History, commits: Commits) -> list[Lost]:
    """What is lost, new ones first. A run may be partial: what is merely absent is gone after some commits."""
    found: dict[tuple[str, ...], Lost] = {}
    for each in [*_undescribed(history), *_lost_series(history)]:
        key = each.machine, each.benchmark, each.state, each.commit, each.previous
        first = found.setdefault(key, replace(each, number=0))
        found[key] = replace(first, number=first.number + each.number)
    known = [
        replace(
            each,
            is_new=any(map(commits.is_new, commits.after(each.previous, each.commit))),
            environment=history.environment_change(each.machine, each.previous, each.commit),
        )
        for each in found.values()
    ]
    return sorted(known, key=lambda each: not each.is_new)


def _lost_series(history: History) -> Iterator[Lost]:
    for series in history.series:
        values = np.flatnonzero(~np.isnan(series.values))
        if len(values) and (lost := _since(series, int(values[-1]))):
            names = history.commits[series.machine]
            state, place = lost
            last = names[int(values[-1])]
            yield Lost(series.machine, series.metric, series.params, 1, state, names[place], last, False)


def _since(series: Series, last: int) -> tuple[str, int] | None:
    """Why there are no values after a place, and the first place without; None where that may be chance."""
    told = np.flatnonzero(series.failed | series.skipped)
    if len(told) and told[-1] > last:
        first = int(told[told > last][0])
        return (FAILS if series.failed[told[-1]] else SKIPPED), first
    return (GONE, last + 1) if len(series.values) - 1 - last >= FEWEST_VALUES else None


def _undescribed(history: History) -> Iterator[Lost]:
    for machine, benchmark, last in history.undescribed:
        names = history.commits.get(machine, [])
        place = names.index(last) + 1 if last in names else len(names)
        if place < len(names):
            yield Lost(machine, benchmark, "", 1, GONE, names[place], last, False)
