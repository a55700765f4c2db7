"""The tables of ``fill.py``: as it goes, and in Markdown for README.md and docs/storages.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fill_runs import LIGHTZERO, SIMULATIONS, Cell, Plan

from kvcache import GEOMETRIES

__all__ = ["Result", "markdown", "table_rows"]


@dataclass
class Result:
    """All that one run of ``fill.py`` measured.

    Attributes:
        machine: it ran on.
        machine_line: the same, for people.
        date: of the run.
        against: the baseline: LightZero's own methods, or which legacy cache.
        plan: of every cell.
        cells: by geometry, fill and backend, in this order.
    """

    machine: dict[str, Any]
    machine_line: str
    date: str
    against: str
    plan: Plan
    cells: list[Cell] = field(default_factory=list)

    @property
    def baseline(self) -> str:
        return "LightZero 0.2.0's own methods" if self.against == LIGHTZERO else f"{self.against}, not LightZero itself"

    @property
    def heading(self) -> str:
        plan = self.plan
        what = "forward over each batch / over legacy's" if plan.forward else f"{self.against} / backend"
        clock = "processor time, " if plan.processor_time else ""
        return (
            f"{self.machine_line}\n{self.date}, against {self.baseline}; {what}: {clock}median (quartiles) of steps "
            f"in turns, seeds {', '.join(map(str, plan.seeds))}; {plan.searches} searches of {SIMULATIONS} simulations "
            "each, 8 environments"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; units are in the names."""
        values = asdict(self)
        del values["machine_line"]
        values |= values.pop("plan")
        return {"command": sys.argv[1:], **values, "lightzero": self.against == LIGHTZERO, "simulations": SIMULATIONS}


def shown(ratio: Sequence[float], digits: int = 1) -> str:
    low, middle, high = (f"{each:.{digits}f}" for each in ratio)
    return f"{middle} ({low} to {high})"


def _tokens(cell: Cell) -> str:
    return f"{cell.longest}" if cell.shortest == cell.longest else f"{cell.shortest} to {cell.longest}"


def table_rows(result: Result, cells: Sequence[Cell]) -> list[str]:
    """One geometry and fill on all backends; before the first one, the table's head."""
    digits = 2 if result.plan.forward else 1
    ratios = [shown(each.ratio, digits) for each in cells]
    if result.plan.forward:
        ratios = [
            f"{ratio}, {each.strided_bytes} strided bytes" if each.strided_bytes else ratio
            for ratio, each in zip(ratios, cells, strict=True)
        ]
    first = cells[0]
    row = _row(first.geometry, first.fill, _tokens(first), f"{first.baseline_us:.0f}", *ratios)
    names = (each.backend.removeprefix("new:") for each in cells)
    head = _row("geometry", "fill", "longest context, tokens", f"{result.against}, us", *names)
    return [row] if len(result.cells) > len(cells) else [head, "|---" * (4 + len(cells)) + "|", row]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def markdown(result: Result) -> str:
    """README.md's table, then docs/storages.md's."""
    width = len(dict.fromkeys(cell.backend for cell in result.cells))
    rows = [result.cells[at : at + width] for at in range(0, len(result.cells), width)]
    whole = Result(**{**vars(result), "cells": []})
    detailed = []
    for cells in rows:
        whole.cells += cells
        detailed += table_rows(whole, cells)
    parts = ["\ndocs/storages.md:\n", *detailed]
    if not result.plan.forward:
        parts = ["\nREADME.md:\n", *_headline(result), *parts]
    return "\n".join(parts)


def _headline(result: Result) -> list[str]:
    """By geometry the worst and the best fill, each with the storage that is fastest there."""
    backends = list(dict.fromkeys(cell.backend for cell in result.cells))
    default, others = backends[0], backends[1:]
    name = default.removeprefix("new:")
    lines = [
        _row("geometry", "context tokens", "worst fill", f"{name}, there", "best other there", f"best fill, {name}"),
        "|---" * 6 + "|",
    ]
    for geometry in dict.fromkeys(cell.geometry for cell in result.cells):
        own = [cell for cell in result.cells if cell.geometry == geometry]
        of_default = sorted((cell for cell in own if cell.backend == default), key=lambda cell: cell.ratio[1])
        worst, best = of_default[0], of_default[-1]
        there = [cell for cell in own if cell.fill == worst.fill and cell.backend in others]
        other = max(there, key=lambda cell: cell.ratio[1], default=None)
        lines.append(
            _row(
                geometry,
                f"{GEOMETRIES[geometry].context_length}",
                worst.fill,
                f"**{shown(worst.ratio)}**",
                "" if other is None else f"{other.backend.removeprefix('new:')} {shown(other.ratio)}",
                f"{best.fill} {shown(best.ratio)}",
            )
        )
    return lines
