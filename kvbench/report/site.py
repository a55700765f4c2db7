"""Writing pages: each one file that needs no other, no server and no network, and the data of its plots beside it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kvbench.errors import FileError
from kvbench.files import files_whole_or_absent, whole_or_absent
from kvbench.report.figures import draw
from kvbench.report.panels import Cell, Link, Panel
from kvbench.report.text import number
from kvbench.text import in_spreadsheet

__all__ = ["LARGEST_PAGE", "Group", "PageLink", "ReportError", "Site"]

LARGEST_PAGE = 1_500_000  # bytes of panels; what is around them is small
DATA = "data"
LISTING = "files.txt"  # of what a report wrote
_PAGE = r"(index|(regressions|backends|histories)(-\d+)?|(trace|training|sweep)-[a-z0-9-]+|compare)\.html"
_OWN = ("tables.js", "figures.js", "filters.js", "compare.js"), ("report.css",)  # of each page
_OWN_FILE = rf"[a-z0-9-]+\.html|{DATA}/[a-z0-9-]+\.csv"


class ReportError(FileError):
    """An input that cannot be used, or a file that is in the way."""


@dataclass(frozen=True)
class PageLink:
    """A page in the navigation: its file and what it is called."""

    file: str
    title: str


@dataclass(frozen=True)
class Group:
    """Panels under a heading; ``note`` stands in front of them, or in their place."""

    title: str
    panels: Sequence[Panel] = ()
    note: str = ""


_Page = list[tuple[Group, str, list[Markup]]]  # groups, their anchors, and their panels there


@dataclass
class Site:
    """A folder of pages, all with one title.

    ``made`` says how and when, at the foot of each. ``commits`` are those of each machine's history, oldest first:
    name, date and subject. Pages with figures along them are filtered, and two of them compared. ``control`` is the
    storage whose lines stay then, since the others are measured against it.
    """

    folder: Path
    title: str
    made: str
    navigation: list[PageLink] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    commits: dict[str, list[list[str]]] = field(default_factory=dict)
    control: str = ""
    _unfinished: Path = field(init=False)  # where files are until all of them are written

    def __post_init__(self) -> None:
        loader = PackageLoader("kvbench.report")
        self._environment = Environment(
            loader=loader,
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
        self._environment.filters["number"] = number
        self._environment.tests["link"] = lambda cell: isinstance(cell, Link)
        script, style = ("".join(loader.get_source(self._environment, name)[0] for name in each) for each in _OWN)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        # Files of ours, put into each page; the policy lets no other script run, whatever a page may hold.
        self._environment.globals |= {"script": Markup(script), "style": Markup(style), "script_digest": digest}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Pages are written within the block. They appear together when it ends well; else the old ones stay."""
        with files_whole_or_absent(self.folder) as self._unfinished:
            (self._unfinished / DATA).mkdir()
            yield
            # Before they are there: a report that is killed between two of them knows its own pages.
            self._list({*self._listed(), *self.written})

    def panel(self, panel: Panel) -> Markup:
        """A panel as it stands on a page; its data is written."""
        drawing = None if panel.plot is None else draw(panel.plot.drawable(), panel.name)
        file = f"{DATA}/{panel.name}.csv"
        table = panel.data or panel.table
        rows = [[in_spreadsheet(_text(cell)) for cell in row] for row in table.rows]
        frame = pd.DataFrame(rows, columns=[in_spreadsheet(each) for each in table.headings], dtype=object)
        # Exact numbers; what has none is an empty cell.
        self._write(file, frame.to_csv(index=False, lineterminator="\r\n"))
        self.written.append(file)
        template = self._environment.get_template("panel.html")
        return Markup(template.render(panel=replace(panel, table=panel.table.filled), drawing=drawing, csv=file))

    def page(self, file: str, template: str, heading: str, **content: Any) -> None:
        """Write a page."""
        text = self._environment.get_template(template).render(site=self, heading=heading, file=file, **content)
        self.written.append(file)
        self._write(file, text)

    def check(self) -> None:
        """Make sure that nothing of somebody else's is in the way.

        Raises:
            ReportError: the folder holds a page by one of a report's names that no report wrote, or a file where the
                data is to lie.
        """
        own = self._listed()
        pages = sorted(path.name for path in self.folder.glob("*.html") if re.fullmatch(_PAGE, path.name))
        foreign = [name for name in pages if name not in own]
        if foreign:
            raise ReportError(self.folder / foreign[0], "no report wrote this: give another folder, or move it away")
        data = self.folder / DATA
        if data.exists() and not data.is_dir():
            raise ReportError(data, "is a file, where a report has its folder of data")

    def _write(self, file: str, text: str) -> None:
        (self._unfinished / file).write_text(text, encoding="utf-8", newline="")

    def _listed(self) -> list[str]:
        listing = self.folder / LISTING
        return listing.read_text(encoding="utf-8", errors="replace").splitlines() if listing.is_file() else []

    def _list(self, names: Iterable[str]) -> None:
        with whole_or_absent(self.folder / LISTING) as beside:
            beside.write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")

    def finish(self) -> list[str]:
        """Remove what an earlier report left and this one did not write anew; the pages that were written."""
        for name in set(self._listed()) - set(self.written):
            if re.fullmatch(_OWN_FILE, name):
                (self.folder / name).unlink(missing_ok=True)
        self._list(self.written)
        first = [link.file for link in self.navigation]
        return [*first, *sorted(name for name in self.written if name.endswith(".html") and name not in first)]

    def pages(
        self,
        stem: str,
        heading: str,
        groups: Sequence[Group],
        lead: Sequence[str] = (),
        before: Sequence[PageLink] = (),
        after: Sequence[PageLink] = (),
    ) -> dict[str, str]:
        """Write panels, on as many pages as keep each small enough to be opened on a phone.

        Args:
            stem: of the pages' names: ``stem.html``, ``stem-2.html``, ...
            heading: of each page.
            groups: panels under headings; where there are several, each page begins with links to all of them.
            lead: paragraphs at the top of the first page.
            before, after: other pages that belong to these.

        Returns:
            The address of each panel by its name.
        """
        pages, where, contents = self._divided(stem, groups)
        own = [
            PageLink(_numbered(stem, number), heading if len(pages) == 1 else f"{heading} {number}")
            for number in range(1, len(pages) + 1)
        ]
        parts = [*before, *own, *after]
        facets = {link.file: _facets(groups, where, link.file) for link in own}
        for link, page in zip(own, pages, strict=True):
            self.page(
                link.file,
                "panels.html",
                link.title,
                lead=lead if link is own[0] else (),
                parts=parts if len(parts) > 1 else (),
                contents=contents if len(contents) > 1 else (),
                filtered=any(facets.values()),
                elsewhere=[{**vars(each), "facets": facets[each.file]} for each in own if each is not link],
                groups=[each for each in page if each[2] or each[0].note],
            )
        return where

    def _divided(self, stem: str, groups: Sequence[Group]) -> tuple[list[_Page], dict[str, str], list[PageLink]]:
        """Drawn groups page by page, addresses of panels by their names, and links to all groups."""
        pages: list[_Page] = [[]]
        where: dict[str, str] = {}
        contents: list[PageLink] = []
        size = 0
        for group in groups:
            anchor = re.sub(r"[^a-z]+", "-", f"part {group.title}".lower())
            pages[-1].append((group, anchor, []))
            for panel in group.panels:
                drawn = self.panel(panel)
                length = len(drawn.encode())
                if size and size + length > LARGEST_PAGE:
                    pages.append([(group, anchor, [])])
                    size = 0
                size += length
                pages[-1][-1][2].append(drawn)
                where[panel.name] = f"{_numbered(stem, len(pages))}#{panel.name}"
            if group.title and (group.panels or group.note):
                begins = where[group.panels[0].name] if group.panels else _numbered(stem, len(pages))
                contents.append(PageLink(f"{begins.partition('#')[0]}#{anchor}", group.title))
        return pages, where, contents


def _facets(groups: Sequence[Group], where: Mapping[str, str], file: str) -> dict[str, list[str]]:
    """What panels and rows of a page may be filtered by."""
    found: dict[str, dict[str, None]] = {}
    panels = [each for group in groups for each in group.panels if where[each.name].partition("#")[0] == file]
    for facets in (each for panel in panels for each in (panel.facets, *panel.table.facets)):
        for name, values in facets.items():
            found.setdefault(name, {}).update(dict.fromkeys(values))
    return {name: list(values) for name, values in found.items()}


def _text(cell: Cell) -> Cell:
    return cell.text if isinstance(cell, Link) else cell


def _numbered(stem: str, number: int) -> str:
    return f"{stem}.html" if number == 1 else f"{stem}-{number}.html"
