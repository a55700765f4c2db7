"""``kvbench results``: the measured history as a table or CSV."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import click
import pandas as pd
from rich.table import Table

from kvbench.cli.console import make_table, say, show, show_lines, width
from kvbench.cli.options import FOLDER, option
from kvbench.cli.results_choice import ByCommit, Choice, no_match, remarks_on, series_of
from kvbench.cli.results_commits import Wanted, find_commits, of_commits, parse_commits
from kvbench.cli.results_table import environment_changes, table_lines
from kvbench.errors import KvbenchError
from kvbench.files import whole_or_absent
from kvbench.results.asv import check_found, load_durations, read_asv
from kvbench.results.decode import LeftOut
from kvbench.results.skipped import skip_reasons
from kvbench.text import in_spreadsheet

__all__ = ["results"]

_DIGITS = 8  # of a commit


@click.command()
@click.argument("folder", type=FOLDER, default=Path("benchmarks/results"))
@option("--benchmark", metavar="TEXT", help="Show benchmarks whose name contains this.")
@option("--params", metavar="TEXT", help="Show series whose parameters contain this, as in 'backend=new:slab'.")
@option("--machine", metavar="TEXT", help="Show machines whose name contains this.")
@option("--commits", metavar="N|COMMITS", callback=parse_commits, help="Show the last N, or these: 'v1.0,HEAD'.")
@option("--compare", nargs=2, metavar="A B", help="Show what differs between two commits, largest increase first.")
@option("--all", "shows_all", is_flag=True, help="Show every series, and not the headline metrics alone.")
@option("--csv", "csv_file")
@option("--durations", is_flag=True, help="Show how long asv took for each commit instead.")
def results(
    folder: Path,
    csv_file: Path | None,
    durations: bool,
    machine: str | None,
    commits: Wanted | None,
    compare: tuple[str, str] | None,
    shows_all: bool,
    **texts: str | None,
) -> None:
    """Show asv's results in FOLDER: a row a series, a column a commit.

    There are as many of the last commits as the terminal has room for, and the last value over the first one shown.
    Where nothing is chosen, the table has the headline metrics of replays: time, memory, stale hits and misses.

    What does not fit is left out, counted and named on standard error.
    """
    if compare and (commits or durations):
        raise click.UsageError("--compare names its commits: leave --commits and --durations out")
    left_out = LeftOut()
    frame, settings = _read(folder, durations, left_out)
    for line in left_out.lines:
        say(line)
    filters = {"machine": machine} if durations else {"machine": machine, **texts}
    chosen = frame
    for column, text in filters.items():
        if text:
            kept = chosen[chosen[column].str.contains(text, regex=False)]
            if kept.empty:
                raise no_match(chosen, column, text)
            chosen = kept
    if commits or compare:
        chosen = of_commits(chosen, list(compare) if compare else commits or 1)
    if durations:
        show(_duration_table(chosen))
    elif csv_file is not None:
        _write_csv(csv_file, chosen)
    else:
        order = find_commits(chosen, compare) if compare else []
        _show_values(frame, chosen, Choice(shows_all or any(texts.values()), order, settings))


def _read(folder: Path, durations: bool, left_out: LeftOut) -> tuple[pd.DataFrame, ByCommit]:
    """The rows, and in what each machine measured each commit."""
    if durations:
        return load_durations(folder, left_out), {}
    found = read_asv(folder, left_out)
    frame = found.values()
    if frame.empty:
        check_found(left_out)
    return frame, found.settings()


def _write_csv(file: Path, rows: pd.DataFrame) -> None:
    with whole_or_absent(file) as beside:
        rows.drop(columns="cell").apply(lambda each: each.map(in_spreadsheet)).to_csv(beside, index=False)
    say(f"{len(rows)} rows: {file}")


def _show_values(frame: pd.DataFrame, chosen: pd.DataFrame, choice: Choice) -> None:
    """A table for each machine: its numbers say nothing beside another's."""
    found = [series_of(str(machine), rows, choice) for machine, rows in chosen.groupby("machine", sort=True)]
    remarks: list[str] = []
    counts = Counter[str]()
    for measured in filter(None, found):
        if measured.groups:
            show_lines(table_lines(measured, width()))
        remarks += environment_changes(measured)
        counts += measured.counts
    remarks += remarks_on(counts, choice.compared[0][:_DIGITS] if choice.compared else "")
    reasons = [f"{each.number:,} values skipped: {each.why} ({each.commits})" for each in skip_reasons(frame, chosen)]
    if not remarks and not any(found):
        raise KvbenchError("; ".join(["nothing of it was measured", *reasons]))
    for line in [*remarks, *reasons]:
        say(line)


def _duration_table(durations: pd.DataFrame) -> Table:
    table = make_table("", ["machine", "commit"], ["build and install, s", "benchmarks, s"])
    for row in durations.itertuples():
        build = "in place" if math.isnan(row.build) else f"{row.build:.1f}"
        table.add_row(row.machine, row.commit[:_DIGITS], build, f"{row.benchmarks:.1f}")
    return table
