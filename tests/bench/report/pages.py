"""Reading pages back: their tables, with the exact values behind the shown ones."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

__all__ = ["Page", "read_csv"]


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        tables: by the id of their panel, rows of cells; a number is its exact value, all else the text.
        shown: the same, as readers see it.
        scripts: texts of scripts that would run.
        tags: names of all elements.
        links: targets of ``href`` and ``src``.
        text: all text outside scripts and styles.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[float | str | None]]] = {}
        self.shown: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self._panel = ""
        self._cell: tuple[str | None, list[str]] | None = None
        self._inside: str | None = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.handlers += [name for name in values if name.startswith("on")]
        if tag in ("script", "style"):
            self._inside = "data" if values.get("type") == "application/json" else tag
            if self._inside == "script":
                self.scripts.append("")
        elif tag == "section":
            self._panel = values.get("id", "")
        elif tag == "tr":
            self.tables.setdefault(self._panel, []).append([])
            self.shown.setdefault(self._panel, []).append([])
        elif tag in ("td", "th"):
            self._cell = values.get("data-value"), []

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = None
        elif tag in ("td", "th") and self._cell is not None:
            exact, texts = self._cell
            text = "".join(texts)
            value = text if exact is None else float(exact) if exact else None
            self.tables[self._panel][-1].append(value)
            self.shown[self._panel][-1].append(text)
            self._cell = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside is None:
            self.text += data
            if self._cell is not None:
                self._cell[1].append(data)

    def panel(self, start: str) -> str:
        """The id of the one panel that begins so."""
        found = [name for name in self.tables if re.match(start, name)]
        assert len(found) == 1, found
        return found[0]

    def rows(self, start: str) -> list[dict[str, float | str | None]]:
        """The table of the panel that begins so, rows by heading."""
        headings, *rows = self.tables[self.panel(start)]
        return [dict(zip(headings, row, strict=True)) for row in rows]


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
