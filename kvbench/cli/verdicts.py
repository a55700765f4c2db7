"""A gate's verdicts as a table, for a terminal and for a job's summary."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.table import Table
from rich.text import Text

from kvbench.gate import GateReport, Row, Verdict

__all__ = ["verdict_markdown", "verdict_table", "verdict_text"]

HEADINGS = ("benchmark", "metric", "base", "head", "change", "verdict")
NUMBERS = ("base", "head", "change")
_STYLES = {Verdict.BETTER: "green", Verdict.INCONCLUSIVE: "yellow"}
_FAILING_STYLE = "bold red"


def verdict_table(title: str, report: GateReport) -> Table | str:
    """All times, and of the deterministic metrics those that changed; where there are none, the title alone."""
    if not _shown(report):
        return title
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left", overflow="fold")
    for row in _shown(report):
        style = _FAILING_STYLE if row.verdict.fails else _STYLES.get(row.verdict)
        table.add_row(*(Text(cell) for cell in _cells(row)), style=style)  # brackets are no markup
    return table


def verdict_markdown(title: str, report: GateReport) -> str:
    """The same for GitHub."""
    rows = [
        "| " + " | ".join(each.replace("|", "\\|").replace("\n", " ") for each in _cells(row)) + " |"
        for row in _shown(report)
    ]
    table = [
        f"| {' | '.join(HEADINGS)} |",
        "|" + "|".join("--:" if heading in NUMBERS else "--" for heading in HEADINGS) + "|",
        *rows,
        "",
    ]
    heading = [f"### {title}: {_overall(report)}", ""]
    return "\n".join([*heading, *(table if rows else []), verdict_text(report)]) + "\n\n"


def verdict_text(report: GateReport) -> str:
    """One sentence for all of it."""
    counts = Counter(row.verdict.value for row in report.rows)
    found = ", ".join(f"{counts[each.value]} {each.value}" for each in Verdict if counts[each.value])
    return f"{_overall(report)}: {found} ({report.pairs} pairs of processes, {report.seconds:.0f} s)"


def _overall(report: GateReport) -> str:
    if report.fails:
        return "worse"
    return "not worse" if report.is_conclusive else "inconclusive"


def _shown(report: GateReport) -> list[Row]:
    """What fails first, then what is undecided, then the rest; metrics that did not change are left out."""
    shown = [row for row in report.rows if row.ratio is not None or row.verdict is not Verdict.SAME]
    return sorted(shown, key=lambda row: (not row.verdict.fails, row.verdict is not Verdict.INCONCLUSIVE))


def _cells(row: Row) -> tuple[str, ...]:
    if row.ratio is not None:
        unit, change = " us", f"{row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})"
    else:
        unit, change = "", "" if row.base is None or row.head is None else f"{row.head - row.base:+,.10g}"
    values = ["" if value is None else _number(value, unit) for value in (row.base, row.head)]
    verdict = row.verdict.value + (f": {row.reason}" if row.reason else "")
    return row.benchmark.removeprefix("test_"), row.metric, *values, change, verdict


def _number(value: float, unit: str) -> str:
    return f"{value:,.2f}{unit}" if unit else f"{value:,.10g}"
