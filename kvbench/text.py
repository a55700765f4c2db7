"""Text from files is text: fit to be shown, and safe in a spreadsheet and in Markdown."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

__all__ = ["clean", "clean_lines", "in_markdown", "in_spreadsheet", "seconds_of"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters, lone surrogates, formats (which turn the direction of writing, or are not seen at all), what has
# no character, and the two separators that end a line.
_HIDDEN = {"Cc", "Cs", "Cf", "Cn", "Zl", "Zp"}
_TIME_UNITS = {"s": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - the wide forms count as well
# A bracket that opens an address, an underscore at the edge of a word, and what means something wherever it stands.
_MARKDOWN = re.compile(r"(?<=\])\(|(?<!\w)_|_(?!\w)|[\\`*~<>&|$#@!]")


def clean(value: Any) -> Any:
    """``value`` with every text in it (keys included) fit to be shown: what XML cannot hold, what a terminal would obey
    and what ends a line becomes a replacement mark.
    """
    if isinstance(value, str):
        if value.isascii() and value.isprintable():
            return value
        return "".join(_REPLACEMENT if unicodedata.category(each) in _HIDDEN else each for each in value)
    if isinstance(value, dict):
        return {clean(key): clean(each) for key, each in value.items()}
    if isinstance(value, list):
        return [clean(each) for each in value]
    return value


def clean_lines(text: str) -> str:
    """The same of a text of ours that has lines."""
    return "\n".join(map(clean, text.split("\n")))


def in_spreadsheet(value: Any) -> Any:
    """A cell of a CSV file: a text that a spreadsheet would compute gets an apostrophe in front. Numbers stay."""
    if not isinstance(value, str) or not value.startswith(_FORMULA) or value == "-":
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def in_markdown(text: str) -> str:
    """Text in a line or a table of Markdown."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", str(clean(text)))


def seconds_of(unit: str) -> float | None:
    """Seconds in one of that unit; None where it is no unit of time."""
    return _TIME_UNITS.get(unit)
