"""Text from files as text to be shown: what XML cannot hold or a terminal would obey becomes a replacement mark."""

from __future__ import annotations

import unicodedata
from typing import Any

__all__ = ["clean", "seconds_of"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters, lone surrogates, and formats (which turn the direction of writing, or are not seen at all).
_HIDDEN = {"Cc", "Cs", "Cf", "Cn"}
_TIME_UNITS = {"s": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def clean(value: Any) -> Any:
    """``value`` with every text in it (keys included) fit to be shown."""
    if isinstance(value, str):
        if value.isascii() and value.isprintable():
            return value
        return "".join(_REPLACEMENT if unicodedata.category(each) in _HIDDEN else each for each in value)
    if isinstance(value, dict):
        return {clean(key): clean(each) for key, each in value.items()}
    if isinstance(value, list):
        return [clean(each) for each in value]
    return value


def seconds_of(unit: str) -> float | None:
    """Seconds in one of that unit; None where it is no unit of time."""
    return _TIME_UNITS.get(unit)
