"""A card's page: what was verified, counted and measured on it, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kvbench.report.panels import Cell, Panel, Table
from kvbench.report.site import Group
from kvbench.report.text import clean, file_name, words
from kvbench.results.decode import Scalars, read_json
from kvbench.results.gpu import MADE_BY, GpuResults, GpuRow

__all__ = ["Gpu", "read_gpu"]

_COMMAND = "tox -e gpu"
_TRIAL = "This is a trial of the parts on a CPU. No card was there, and the numbers are of none."
_DESCRIBED = {
    "tests": "The project's tests of kernels, staging, devices and steps",
    "contents": "Contexts on the card against legacy's on the CPU",
    "counts": "Transfers, synchronisations and launches of a simulation",
    "steps": "A recurrent step's calls of the cache, by fill",
    "bandwidth": "Gather and scatter against a copy",
    "searches": "Whole searches, and the split of their time",
    "sliding": "Searches whose windows slide",
    "compiled": "Whole searches with compiled passes",
}


@dataclass(frozen=True)
class Gpu:
    """One file of ``tox -e gpu``; ``name`` is what it is called."""

    content: GpuResults
    name: str

    @property
    def card(self) -> str:
        """Its name."""
        return str(self.content.card.get("name") or "no card (a trial on a CPU)")

    @property
    def title(self) -> str:
        """Of its page."""
        return f"GPU: {self.card}"

    @property
    def lead(self) -> list[str]:
        """Paragraphs at the top of its page."""
        rows = self.content.rows
        promised = [row for row in rows if row.holds is not None]
        kept = sum(row.holds is True for row in promised)
        ended = sum(part.status == "done" for part in self.content.parts)
        told = f"{ended} of {len(self.content.parts)} parts ended. {kept} of {len(promised)} promises hold."
        return [told] if self.content.device == "cuda" else [_TRIAL, told]

    def groups(self) -> list[Group]:
        """All panels of its page."""
        parts = [panel for part in self.content.parts for panel in self._part(part.name)]
        return [
            Group("Parts", [self._panel("How each part ended", self._ended())]),
            *([Group("What does not hold", [self._panel("Broken promises", self._broken())])] if self._failed else []),
            *([Group("Results", parts)] if parts else []),
            Group("How it was made", [self._panel("Card and machine", self._machine())]),
        ]

    @property
    def _failed(self) -> list[GpuRow]:
        return [row for row in self.content.rows if row.holds is False]

    def _panel(self, title: str, table: Table, is_open: bool = True) -> Panel:
        name = file_name("gpu", title, beside=self.name)
        return Panel(name, title, table, command=_COMMAND, open=is_open)

    def _part(self, name: str) -> Iterator[Panel]:
        rows = [row for row in self.content.rows if row.part == name]
        if rows:
            yield self._panel(_DESCRIBED.get(name, name), _table(rows), is_open=False)

    def _ended(self) -> Table:
        rows: list[list[Cell]] = [
            [part.name, part.status, part.seconds, part.reason or None] for part in self.content.parts
        ]
        return Table(("part", "it", "seconds", "why"), rows)

    def _broken(self) -> Table:
        rows = _table(self._failed)
        found = zip(self._failed, rows.rows, strict=True)
        return Table(("part", *rows.headings), [[row.part, *cells] for row, cells in found])

    def _machine(self) -> Table:
        content = self.content
        values: Scalars = {"date": content.date, "quick": content.quick, **content.card, **content.machine}
        return Table(("what", "value"), [[words(what), str(value)] for what, value in values.items()])


def _table(rows: list[GpuRow]) -> Table:
    cells: list[list[Cell]] = [
        [row.name, row.value, row.unit, row.wanted or None, _verdict(row), row.reason or None] for row in rows
    ]
    return Table(("what", "value", "unit", "wanted", "holds", "why there is none"), cells)


def _verdict(row: GpuRow) -> str | None:
    return None if row.holds is None else "yes" if row.holds else "no"


def read_gpu(path: Path, name: str = "") -> Gpu:
    """Read one result file, called by its own name unless one is given. Raises ResultsError, as ``read_json`` does."""
    return Gpu(read_json(path, GpuResults, MADE_BY), name or clean(path.name))
