"""Commits of ``kvbench results``: how many of the last, or which; by their first digits, or by what git calls them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import pandas as pd

from kvbench.errors import KvbenchError
from kvbench.history.commits import find_measured

__all__ = ["Wanted", "find_commits", "of_commits", "parse_commits"]

Wanted = int | list[str]
_MOST_DIGITS = 6  # of a number of commits: a longer one is a commit's first digits


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
    found = [find_measured(Path.cwd(), measured, name) for name in names]
    for place, commit in enumerate(found):
        if commit in found[:place]:
            raise KvbenchError(f"{names[found.index(commit)]!r} and {names[place]!r} are the same commit: name two")
    return found
