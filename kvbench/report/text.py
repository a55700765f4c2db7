"""Text from files as text on pages: what XML cannot hold or a terminal would obey is shown as a replacement mark."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from typing import Any

__all__ = ["clean", "file_name", "number", "seconds_of"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters, lone surrogates, and formats (which turn the direction of writing, or are not seen at all).
_HIDDEN = {"Cc", "Cs", "Cf", "Cn"}
_SIGNIFICANT = 4
_MOST_DECIMALS = 10
_LONGEST_SLUG = 80

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


def number(value: float | None) -> str:
    """A number for people: all digits of an integer, four significant ones of what is not, a dash for none."""
    if value is None or math.isnan(value):
        return "-"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10 ** (_SIGNIFICANT - 1):
        return f"{value:,.0f}"
    text = f"{value:.{_SIGNIFICANT}g}"
    if "e" in text and abs(value) > 10**-_MOST_DECIMALS:
        text = f"{value:.{_MOST_DECIMALS}f}".rstrip("0")
    return text


def seconds_of(unit: str) -> float | None:
    """Seconds in one of that unit; None where it is no unit of time."""
    return _TIME_UNITS.get(unit)


def file_name(*parts: str, beside: str = "") -> str:
    """A name for a file, the same for the same parts and another for others, whatever stands in them.

    ``beside`` tells files apart whose parts are the same, without being read in the name.
    """
    text = "-".join(parts)
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST_SLUG].strip("-")
    return f"{slug or 'data'}-{hashlib.sha256(repr((parts, beside)).encode('utf-8', 'replace')).hexdigest()[:8]}"
