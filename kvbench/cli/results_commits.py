"""Commits of ``kvbench results``: how many of the last, or which; by their first digits, or by what git calls them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import pandas as pd

from kvbench.errors import KvbenchError

__all__ = ["Wanted", "find_commits", "of_commits", "parse_commits"]

Wanted = int | list[str]
_MOST_DIGITS = 6  # of a number of commits: a longer one is a commit's first digits
_FEWEST_DIGITS = 4  # of a commit
_NAMED = 5  # of the commits that have results, in an error


def parse_commits(context: click.Context, parameter: click.Parameter, text: str | None) -> Wanted | None:
    """The value of ``--commits``: a number, or names with commas between."""
    if text is None:
        return None
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        return [each.strip() for each in text.split(",")]
    if not int(text):
        raise click.BadParameter("0 commits are none: give a number from 1 on, or commits as in 'v1.0,HEAD'")
    return int(text)


def of_commits(frame: pd.DataFrame, wanted: Wanted) -> pd.DataFrame:
    """Rows of each machine's last so many commits, or of those with these names. Raises KvbenchError."""
    if not isinstance(wanted, int):
        return frame[frame["commit"].isin(find_commits(frame, wanted))]
    last = frame.drop_duplicates(["machine", "commit"]).groupby("machine").tail(wanted)
    return frame.merge(last[["machine", "commit"]])


def find_commits(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Full hashes of commits that have results. Raises KvbenchError: there is none, or one is given twice."""
    measured = list(dict.fromkeys(frame["commit"]))
    found = [_find(name, measured) for name in names]
    for place, commit in enumerate(found):
        if commit in found[:place]:
            raise KvbenchError(f"{names[found.index(commit)]!r} and {names[place]!r} are the same commit: name two")
    return found


def _find(name: str, measured: Sequence[str]) -> str:
    alike = [each for each in measured if each.startswith(name.lower())] if len(name) >= _FEWEST_DIGITS else []
    if len(alike) > 1:
        raise KvbenchError(f"{name!r} may be {alike[0][:12]} or {alike[1][:12]}: give more digits")
    commit = alike[0] if alike else _known_to_git(name)
    if commit in measured:
        return commit
    last = ", ".join(each[:8] for each in measured[: -_NAMED - 1 : -1])
    called = f"{name!r} ({commit[:8]})" if commit else repr(name)
    raise KvbenchError(f"{called} is no commit with results: the last that have some are {last}")


def _known_to_git(name: str) -> str:
    from kvbench.gate.processes import find_commit

    try:
        return find_commit(Path.cwd(), name)
    except KvbenchError:
        return ""
