"""The two consoles: results on standard output, progress and remarks on standard error."""

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["STDERR", "STDOUT", "cells_of", "make_table"]

WIDTH_OF_FILES = 120
_UNKNOWN = "-"

# What is printed is shown as it is: names of operations and benchmarks hold brackets and colons.
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
# A table that goes to a file or a pipe is as wide as it needs; one on a terminal is as wide as that.
_WIDTH = None if Console().is_terminal else WIDTH_OF_FILES
STDOUT = Console(width=_WIDTH, soft_wrap=True, **_PLAIN)
STDERR = Console(stderr=True, **_PLAIN)


def make_table(title: str, labels: Iterable[str], numbers: Iterable[str], min_width: int | None = None) -> Table:
    """A table with columns of labels (``min_width`` characters wide or more), then columns of numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in labels:
        table.add_column(heading, overflow="fold", min_width=min_width)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def cells_of(values: Iterable[Any], form: str) -> list[str]:
    """A cell for each value, by a format string; None is not known."""
    return [_UNKNOWN if value is None else form.format(value) for value in values]
