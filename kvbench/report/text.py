"""Numbers and names of files as a page shows them; ``clean`` makes any text fit for one."""

from __future__ import annotations

import hashlib
import math
import re

from kvbench.text import clean

__all__ = ["clean", "file_name", "number", "words"]

_SIGNIFICANT = 4
_MOST_DECIMALS = 10
_LONGEST_SLUG = 56  # an address is written several times on a page


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


def words(name: str) -> str:
    """The name of an outcome, an operation or a metric, to be read."""
    return name.replace("_", " ")


def file_name(*parts: str, beside: str = "") -> str:
    """A name for a file, the same for the same parts and another for others, whatever the parts hold.

    ``beside`` separates files whose parts are the same, without being read in the name.
    """
    text = "-".join(parts)
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST_SLUG].strip("-")
    return f"{slug or 'data'}-{hashlib.sha256(repr((parts, beside)).encode('utf-8', 'replace')).hexdigest()[:8]}"
