"""The two consoles: results on standard output, progress and remarks on standard error."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from kvbench.text import clean, clean_lines

__all__ = ["STDERR", "STDOUT", "cells_of", "make_table", "plain", "progress_bar", "say", "show", "show_lines", "width"]

WIDTH_OF_FILES = 120
_UNKNOWN = "-"

# A table that goes to a file or a pipe is as wide as it needs; one on a terminal is as wide as that.
_WIDTH = None if Console().is_terminal else WIDTH_OF_FILES
# With NO_COLOR there is no style at all, bold included.
_COLORS = None if os.environ.get("NO_COLOR") else "auto"
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "color_system": _COLORS}
STDOUT = Console(width=_WIDTH, soft_wrap=True, **_PLAIN)
STDERR = Console(stderr=True, **_PLAIN)


def plain(text: str) -> Text:
    """Text that is shown as it is, in one line: names of operations, files and benchmarks hold brackets and worse."""
    return Text(clean(text))


def _lines(text: str) -> Text:
    """The same of a text of ours that has lines."""
    return Text(clean_lines(text))


def say(text: str) -> None:
    """Print a remark on standard error."""
    STDERR.print(plain(text), soft_wrap=True)


def show(*parts: RenderableType) -> None:
    """Print results on standard output, texts in their lines."""
    STDOUT.print(*(_lines(part) if isinstance(part, str) else part for part in parts))


def width() -> int:
    """Of lines that are made to fit: the terminal's; for a file or a pipe COLUMNS, where that is set."""
    columns = "" if STDOUT.is_terminal else os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else STDOUT.width


def show_lines(lines: Iterable[tuple[str, bool]]) -> None:
    """Print lines as they are, headings in bold."""
    texts = (Text(clean(line).rstrip(), style="bold" if is_heading else "") for line, is_heading in lines)
    STDOUT.print(Text("\n").join(texts), soft_wrap=True)


class _PlainTable(Table):
    """A table whose cells are shown as they are."""

    def add_row(self, *cells: RenderableType | None, **settings: Any) -> None:
        super().add_row(*(_lines(cell) if isinstance(cell, str) else cell for cell in cells), **settings)


def make_table(title: str, labels: Iterable[str], numbers: Iterable[str], min_width: int | None = None) -> Table:
    """A table with columns of labels (``min_width`` characters wide or more), then columns of numbers."""
    shown = _lines(title) if title else None
    table = _PlainTable(title=shown, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in labels:
        table.add_column(plain(heading), overflow="fold", min_width=min_width)
    for heading in numbers:
        table.add_column(plain(heading), justify="right")
    return table


def progress_bar(*more: str | ProgressColumn, **settings: Any) -> Progress:
    """Bars on a terminal that leave nothing behind, each with its description as it is; ``more`` is behind them."""
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), *more]
    settings |= {"console": STDERR, "transient": True, "disable": not STDERR.is_terminal}
    return Progress(*columns, TimeElapsedColumn(), **settings)


def cells_of(values: Iterable[Any], form: str) -> list[str]:
    """A cell for each value, by a format string; None is not known."""
    return [_UNKNOWN if value is None else form.format(value) for value in values]
