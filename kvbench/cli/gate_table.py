"""A gate's rows as a table, for a terminal and for a job's summary."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from kvbench.cli.console import make_table
from kvbench.gate.session import GateReport
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict
from kvbench.text import in_markdown

__all__ = ["gate_markdown", "gate_table", "gate_text"]

LABELS = ("benchmark", "metric")
NUMBERS = ("base", "head", "change")
_VERDICT = "verdict"
_STYLES = {Verdict.BETTER: "green", Verdict.NOT_DECIDED: "yellow"}
_FAILING_STYLE = "bold red"


def gate_table(title: str, report: GateReport) -> Table | str:
    """All times, and of the deterministic metrics those that changed; where there are none, the title alone."""
    if not _shown(report):
        return title
    table = make_table(title, LABELS, NUMBERS)
    table.add_column(_VERDICT, overflow="fold")
    for row in _shown(report):
        table.add_row(*_cells(row), style=_FAILING_STYLE if row.verdict.fails else _STYLES.get(row.verdict))
    return table


def gate_markdown(title: str, report: GateReport) -> str:
    """The same for GitHub."""
    lines = [f"### {in_markdown(title)}: {_overall(report)}", ""]
    if _shown(report):
        lines += [f"| {' | '.join((*LABELS, *NUMBERS, _VERDICT))} |", "|--|--|--:|--:|--:|--|"]
        for row in _shown(report):
            cells = (in_markdown(each.replace("\n", " ")) for each in _cells(row))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, gate_text(report)]) + "\n\n"


def gate_text(report: GateReport) -> str:
    """One sentence for all of it, and a line for each thing that could not be measured."""
    counts = Counter(row.verdict.value for row in report.rows)
    found = ", ".join(f"{counts[each.value]} {each.value}" for each in Verdict if counts[each.value])
    whole = f"{_overall(report)}: {found} ({report.pairs} pairs of processes, {report.seconds:.0f} s)"
    return "\n".join([whole, *report.notes])


def _overall(report: GateReport) -> str:
    if report.fails:
        return "worse"
    return "not worse" if report.is_decided else "not decided"


def _shown(report: GateReport) -> list[Row]:
    """What fails first, then what is not decided, then the rest; metrics that did not change are left out."""
    shown = [row for row in report.rows if row.ratio is not None or row.verdict is not Verdict.SAME]
    return sorted(shown, key=lambda row: (not row.verdict.fails, row.verdict is not Verdict.NOT_DECIDED))


def _cells(row: Row) -> tuple[str, ...]:
    if row.ratio is not None:
        form, change = "{:,.2f} us", f"{row.ratio:.3f}"
        change += "" if row.low is None else f" ({row.low:.3f} to {row.high:.3f})"
    else:
        form, change = "{:,.10g}", "" if row.base is None or row.head is None else f"{row.head - row.base:+,.10g}"
    values = ["" if value is None else form.format(value) for value in (row.base, row.head)]
    verdict = row.verdict.value + (f": {row.reason}" if row.reason else "")
    return row.benchmark.removeprefix("test_"), row.metric, *values, change, verdict
