"""In what environments a history was measured: where one follows another a line breaks, and the change is named."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from kvbench.history.environments import Environments
from kvbench.history.series import History
from kvbench.judge.change_points import ChangePoint
from kvbench.report.panels import Cell, Panel, Table

__all__ = ["border_marks", "border_sentence", "environment_panel", "shortened"]

_MOST = 3  # changes that a sentence names
_LONGEST = 28  # characters above a figure


def environment_panel(history: History, points: Sequence[ChangePoint], command: str) -> Panel:
    """Where a machine's environment changed, to what, and what stepped with it."""
    rows: list[list[Cell]] = []
    for machine, environments in history.environments.items():
        own = [each for each in points if each.environment and each.series.machine == machine]
        commits = history.commits[machine]
        for place, following in pairwise([*environments.borders(), len(commits)]):
            # A series that was not measured right there steps at its next commit.
            steps = [point for point in own if place <= point.change.position < following]
            up = sum(point.change.ratio > 1 for point in steps)
            change = environments.change(place - 1, place)
            rows.append([change, commits[place][:8], commits[place - 1][:8], up, len(steps) - up, machine])
    headings = ("what changed", "first commit", "measured before at", "series that rose", "that fell", "machine")
    about = "Values of two environments are not compared as commits are. Lines of histories break there."
    return Panel("environments", "Changes of the environment", Table(headings, rows), about, command, open=True)


def border_marks(environments: Environments, known: Sequence[int]) -> list[tuple[int, str]]:
    """Which of the commits that are drawn is the first of another environment, and what changed."""
    return [(at, change) for at in range(1, len(known)) if (change := environments.change(known[at - 1], known[at]))]


def border_sentence(marks: Sequence[tuple[int, str]], commits: Sequence[str]) -> str:
    """Where the line breaks; empty where it does not."""
    if not marks:
        return ""
    named = "; ".join(f"{change} at {commits[at][:8]}" for at, change in marks[:_MOST])
    more = f"; and {len(marks) - _MOST} more" if len(marks) > _MOST else ""
    return f" Lines break where the environment changed: {named}{more}."


def shortened(change: str) -> str:
    """What changed, as long as there is room for above a figure; the sentence has all of it."""
    return change if len(change) <= _LONGEST else f"{change[: _LONGEST - 1]}…"
