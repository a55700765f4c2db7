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
    """

    first_difference: str | None
    largest_difference: float


def compare(first: Path, other: Path, until_first_ends: bool = False) -> Comparison:
    """Compare the numbers of a run with those of the first one.

    Args:
        first: the file of its numbers, a line of JSON each.
        other: that of the other run.
        until_first_ends: whether the other run may be longer: the first one ended before its time.
    """
    difference, largest = None, 0.0
    counts: dict[str, int] = {}
    with open(first) as lines, open(other) as other_lines:
        for line, other_line in zip_longest(lines, other_lines):
            if line is None or other_line is None:
                if not (line is None and until_first_ends):
                    difference = difference or _describe_end(counts, other_line is None)
                break
            theirs, ours = json.loads(line), json.loads(other_line)
            kind = theirs["kind"]
            counts[kind] = counts.get(kind, 0) + 1
            if difference is None and line != other_line:  # as text: a NaN is then the same as a NaN
                difference = _describe(theirs, ours, counts[kind])
            if kind == "search":
                if (ours["kind"], ours.get("action")) != (kind, theirs["action"]):
                    break
                largest = max(largest, abs(theirs["searched value"] - ours["searched value"]))
    return Comparison(difference, largest)


def _describe(theirs: dict[str, Any], ours: dict[str, Any], number: int) -> str:
    place = f"{_PLACES[theirs['kind']]} {number}"
    if theirs["kind"] != ours["kind"]:
        return f"{place}: it has {_PLACES[ours['kind']]!r} there, an entry of another kind"
    if "environment" in theirs:
        place += f", environment {theirs['environment']}"
    name = next((name for name in theirs if repr(theirs[name]) != repr(ours.get(name))), None)
    if name is None:
        return f"{place}: other quantities are noted"
    return f"{place}: {name} is {ours.get(name)!r}, and {theirs[name]!r} in the first"


def _describe_end(counts: dict[str, int], ends: bool) -> str:
    reached = ", ".join(f"{_PLACES[kind]} {number}" for kind, number in counts.items()) or "its beginning"
    return f"{reached}: {'it ends, and the first goes on' if ends else 'it goes on, and the first ends'}"
