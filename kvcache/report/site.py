"""Writing pages: each one file that needs no other, no server and no network, and the data of its plots beside it."""

from __future__ import annotations

import base64
import csv
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kvcache.report.figures import Drawing, draw
from kvcache.report.panels import Cell, Link, Panel, Table
from kvcache.report.text import number
from kvcache.trace.files import whole_or_absent

__all__ = ["LARGEST_PAGE", "PageLink", "Site", "as_csv"]

LARGEST_PAGE = 1_500_000  # bytes of panels; what is around them is small
DATA = "data"
TEMPLATES = "templates"


@dataclass(frozen=True)
class PageLink:
    """A page in the navigation: its file and what it is called."""

    file: str
    title: str


@dataclass
class Site:
    """A folder of pages.

    Args:
        folder: to be written to.
        title: of all pages.
        made: how and when the report was made, for the foot of each page.
    """

    folder: Path
    title: str
    made: str
    navigation: list[PageLink] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("kvcache.report", TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["number"] = number
        self._environment.tests["link"] = lambda cell: isinstance(cell, Link)
        loader = self._environment.loader
        assert loader is not None
        script, style = (loader.get_source(self._environment, name)[0] for name in ("report.js", "report.css"))
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        # Files of ours, put into each page; the policy lets no other script run, whatever a page may hold.
        self._environment.globals |= {"script": Markup(script), "style": Markup(style), "script_digest": digest}  # noqa: S704

    def panel(self, panel: Panel) -> Markup:
        """A panel as it stands on a page; its data is written."""
        drawing: Drawing | None = None if panel.plot is None else draw(panel.plot, panel.name)
        file = f"{DATA}/{panel.name}.csv"
        as_csv(self.folder / file, panel.data or panel.table)
        template = self._environment.get_template("panel.html")
        return Markup(template.render(panel=panel, drawing=drawing, csv=file))  # noqa: S704

    def page(self, file: str, template: str, heading: str, **content: Any) -> None:
        """Write a page."""
        text = self._environment.get_template(template).render(site=self, heading=heading, file=file, **content)
        with whole_or_absent(self.folder / file) as beside:
            beside.write_text(text, encoding="utf-8")

    def paged(self, panels: Sequence[Panel]) -> list[list[Markup]]:
        """Panels, drawn, on as many pages as keep each small enough to be opened on a phone."""
        pages: list[list[Markup]] = [[]]
        size = 0
        for panel in panels:
            drawn = self.panel(panel)
            length = len(drawn.encode())
            if pages[-1] and size + length > LARGEST_PAGE:
                pages.append([])
                size = 0
            pages[-1].append(drawn)
            size += length
        return pages


def as_csv(path: Path, table: Table) -> None:
    """Write a table's exact numbers; what has none is an empty cell."""
    with whole_or_absent(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table.headings)
        writer.writerows([[_exact(cell) for cell in row] for row in table.rows])


def _exact(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return repr(cell) if isinstance(cell, float) else str(cell)
