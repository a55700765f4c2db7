"""JSON and TOML that others wrote, parsed within bounds: nothing is too deep, too large, there twice or unseen."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from typing import Any

from kvbench.text import clean

__all__ = ["DEEPEST", "parse_json", "parse_toml"]

DEEPEST = 64  # arrays and objects in each other; what the suite writes has less than ten
_LARGEST = 2**63  # integers and their negatives are smaller: others fit no column
_MOST_DIGITS = len(str(_LARGEST))
_TOO_DEEP = f"nested more than {DEEPEST} deep"


class NotANumber:
    """In place of ``NaN`` and infinities, which JSON has not."""


class NumberOutOfRange:
    """In place of a number that 64 bits do not hold."""


class TwoValues:
    """In place of a value whose key is there twice."""


def parse_json(content: bytes | str, constant: Callable[[str], Any] | None = None, keeps_rest: bool = False) -> Any:
    """Parse JSON; all texts are made fit to be shown (``clean``).

    Args:
        content: of a file; bytes are UTF-8, with or without a byte order mark, or what else JSON may be in.
        constant: makes something of ``NaN``, ``Infinity`` and ``-Infinity``.
        keeps_rest: whether a number that JSON has not, or that 64 bits do not hold, and a key that is there twice leave
            an object of the classes above in their place, which no type takes. Otherwise they are refused.

    Raises ValueError, in one line: it is not JSON, or out of bounds.
    """

    bounds = _Bounds(keeps_rest)
    try:
        parsed = json.loads(
            content,
            object_pairs_hook=bounds.whole,
            parse_int=bounds.integer,
            parse_float=bounds.real,
            parse_constant=constant or bounds.constant,
        )
        return _shown(parsed)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


class _Bounds:
    """What the parser makes of objects and numbers."""

    def __init__(self, keeps_rest: bool) -> None:
        self._keeps_rest = keeps_rest

    def whole(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            name = clean(key)
            found[name] = self._refused(TwoValues, f"the key {name!r} is there twice") if name in found else value
        return found

    def integer(self, text: str) -> Any:
        number = int(text) if len(text.lstrip("-")) <= _MOST_DIGITS else _LARGEST
        return number if abs(number) < _LARGEST else self._out_of_range(text)

    def real(self, text: str) -> Any:
        number = float(text)
        return self._out_of_range(text) if math.isinf(number) else number

    def constant(self, name: str) -> Any:
        return self._refused(NotANumber, f"{name} is no number of JSON")

    def _out_of_range(self, text: str) -> Any:
        return self._refused(NumberOutOfRange, f"Number out of range: {text[:20]}")

    def _refused(self, place: type[Any], fault: str) -> Any:
        if self._keeps_rest:
            return place()
        raise ValueError(fault)


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML. Raises ValueError, in one line: it is not TOML, or out of bounds."""
    try:
        content: dict[str, Any] = _shown(tomllib.loads(text.removeprefix("\ufeff")))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    return content


def _shown(value: Any, depth: int = 0) -> Any:
    """``clean`` within bounds."""
    if depth > DEEPEST:
        raise ValueError(_TOO_DEEP)
    if isinstance(value, dict):
        return {clean(key): _shown(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_shown(each, depth + 1) for each in value]
    if isinstance(value, int) and abs(value) >= _LARGEST:  # of TOML
        raise ValueError("Number out of range: an integer of more than 64 bits")
    return clean(value)
