"""The first number in which two training runs differ, in words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

__all__ = ["Comparison", "compare"]

_PLACES = {"search": "search", "learn": "learning step", "episode": "episode"}


@dataclass(frozen=True)
class Comparison:
    """Two runs, number by number.

    Attributes:
        first_difference: in words; None where every number is the same.
        largest_difference: of searched values, as long as both runs took the same actions.
        searches: of an environment, that were compared up to the first other action.
    """

    first_difference: str | None
    largest_difference: float
    searches: int


def compare(first: Path, other: Path) -> Comparison:
    """Compare the numbers of a run with those of the first one.

    Args:
        first: the file of its numbers, a line of JSON each.
        other: that of the other run.
    """
    difference, largest, searches = None, 0.0, 0
    counts: dict[str, int] = {}
    with open(first) as lines, open(other) as other_lines:
        for line, other_line in zip_longest(lines, other_lines):
            if line is None or other_line is None:
                return Comparison(difference or "one run is longer than the other", largest, searches)
            theirs, ours = json.loads(line), json.loads(other_line)
            kind = theirs["kind"]
            counts[kind] = counts.get(kind, 0) + 1
            if difference is None and line != other_line:  # as text: a NaN is then the same as a NaN
                difference = _describe(theirs, ours, counts[kind])
            if kind == "search":
                if (ours["kind"], ours.get("action")) != (kind, theirs["action"]):
                    break
                searches += 1
                largest = max(largest, abs(theirs["searched value"] - ours["searched value"]))
    return Comparison(difference, largest, searches)


def _describe(theirs: dict[str, Any], ours: dict[str, Any], number: int) -> str:
    if theirs["kind"] != ours["kind"]:
        return f"a {theirs['kind']} in one run is a {ours['kind']} in the other, at {theirs['env_steps']} steps"
    name = next((name for name in theirs if repr(theirs[name]) != repr(ours.get(name))), "the set of numbers")
    where = f"{_PLACES[theirs['kind']]} {number}"
    if "environment" in theirs:
        where += f", environment {theirs['environment']}"
    return f"{where}: {name} is {ours.get(name)!r}, and {theirs.get(name)!r} in the first"
