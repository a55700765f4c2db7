"""Which series ``kvbench results`` shows: the headline metrics, what was asked for, or what differs of two commits."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from kvbench.cli.results_table import Measured
from kvbench.cli.results_values import Group, Line, by_benchmark, is_headline
from kvbench.errors import KvbenchError
from kvbench.results.environment import Settings

__all__ = ["ByCommit", "Choice", "no_match", "remarks_on", "series_of"]

ByCommit = Mapping[tuple[str, str], Settings]  # by machine and commit
_MOST_SERIES = 40  # of a machine, where nothing was chosen and there are no headline metrics
_NAMED = 5  # in an error, of what there is


@dataclass(frozen=True)
class Choice:
    """Whether all series are shown, the two commits that are compared, if any, and in what commits were measured."""

    shows_all: bool
    compared: Sequence[str] = ()
    settings: ByCommit = field(default_factory=dict)


def no_match(frame: pd.DataFrame, column: str, text: str) -> KvbenchError:
    """The error where nothing has this text, with what comes next to it."""
    there = list(dict.fromkeys(frame[column]))
    near = difflib.get_close_matches(text, there, _NAMED, cutoff=0.3) or there[:_NAMED]
    what = {"params": "series has parameters that contain", "commit": "commit's name contains"}
    named = what.get(column, f"{column}'s name contains")
    more = f" and {len(there) - len(near)} more" if len(there) > len(near) else ""
    return KvbenchError(f"no {named} {text!r}: there are {'; '.join(near)}{more}")


def series_of(machine: str, rows: pd.DataFrame, choice: Choice) -> Measured | None:
    """What is shown of one machine; None where it has nothing of it."""
    rows = rows[rows["state"] != "skipped"] if not choice.shows_all else rows
    known = rows[rows["state"] != "skipped"].drop_duplicates("commit").set_index("commit")
    commits = [each for each in choice.compared or known.index if each in known.index]
    if len(commits) < max(1, len(choice.compared)):
        return None
    groups, counts = _chosen(list(by_benchmark(rows, commits)), choice)
    known = known.loc[commits]
    environments = [choice.settings.get((machine, each), {}) for each in commits]
    return Measured(machine, commits, list(known["date"]), environments, groups, counts)


def _chosen(groups: list[Group], choice: Choice) -> tuple[list[Group], Counter[str]]:
    """The groups that are shown, and how many series there are of which kind."""
    counts = Counter(series=_number(groups))
    if choice.compared:
        differing = [replace(group, lines=_differing(group)) for group in groups]
        counts = _compared(groups, differing)
        groups = differing
    if not choice.shows_all:
        headlines = [group for group in groups if is_headline(group.benchmark)]
        counted = [group for group in groups if choice.compared and not group.is_noisy and group not in headlines]
        groups = [*headlines, *counted] if headlines else _first(groups)
    counts["shown"] = _number(groups)
    return [group for group in groups if group.lines], counts


def _number(groups: Iterable[Group]) -> int:
    return sum(len(group.lines) for group in groups)


def _compared(groups: list[Group], differing: list[Group]) -> Counter[str]:
    counts = Counter(series=_number(differing))
    for group, found in zip(groups, differing, strict=True):
        complete = sum(line.is_complete for line in group.lines)
        kind = "times" if group.is_noisy else "counters"
        counts += Counter({kind: complete, f"other {kind}": len(found.lines), "alone": len(group.lines) - complete})
    return counts


def remarks_on(counts: Counter[str], base: str) -> Iterator[str]:
    """How many series are shown; of two compared commits how many differ, and what only one of them has."""
    judged = f", as they do from run to run: 'kvbench gate --base {base}' judges them"
    for kind, more in (("counters", ""), ("times", judged)):
        known, found = counts[kind], counts[f"other {kind}"]
        if known:
            yield f"{found:,} of {known:,} {kind} differ{more if found else ''}"
    if counts["alone"]:
        yield f"{counts['alone']:,} series have a value at one of both commits only"
    if counts["shown"] < counts["series"]:
        shown = f"{counts['shown']:,} of {counts['series']:,} series are shown"
        yield f"{shown}: --all, --benchmark and --params show more"


def _differing(group: Group) -> list[Line]:
    """Series that are not the same at both commits, the largest increase first; what failed at one comes before."""
    lines = [line for line in group.lines if line.is_complete]
    lines = [line for line in lines if line.states[0] != line.states[1] or line.values[0] != line.values[1]]
    return sorted(lines, key=_increase, reverse=True)


def _increase(line: Line) -> float:
    first, last = (float(value) for value in line.values)
    return last / first if not math.isnan(first + last) and first else math.inf


def _first(groups: list[Group]) -> list[Group]:
    """As many series as are read at once."""
    left, found = _MOST_SERIES, []
    for group in groups:
        found.append(replace(group, lines=group.lines[:left]))
        left = max(0, left - len(group.lines))
    return found
