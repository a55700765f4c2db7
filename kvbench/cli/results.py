"""``kvbench results``: the measured history as a table or CSV."""

from __future__ import annotations

import math
from pathlib import Path

import click
import pandas as pd
from rich.table import Table

from kvbench.cli.console import make_table, say, show
from kvbench.files import whole_or_absent
from kvbench.results.asv import load_durations, load_results
from kvbench.results.decode import LeftOut
from kvbench.text import in_spreadsheet

__all__ = ["results"]

LABEL_WIDTH = 24


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("benchmarks/results"))
@click.option("--benchmark", help="Only benchmarks whose name contains this.")
@click.option("--params", help="Only parameters that contain this, e.g. 'backend=new:private'.")
@click.option("--machine", help="Only machines whose name contains this.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all rows here instead.")
@click.option("--durations", is_flag=True, help="Show instead how long asv took for each commit.")
def results(folder: Path, csv_file: Path | None, durations: bool, machine: str | None, **texts: str | None) -> None:
    """Show asv's results in FOLDER as a table: a row each benchmark, a column each commit.

    What does not fit is left out, counted and named on standard error.
    """
    left_out = LeftOut()
    frame = (load_durations if durations else load_results)(folder, left_out)
    for line in left_out.lines:
        say(line)
    if durations:
        show(_duration_table(_containing(frame, machine=machine)))
        return
    chosen = _containing(frame, machine=machine, **texts)
    if csv_file is not None:
        with whole_or_absent(csv_file) as beside:
            written = chosen.drop(columns="cell").apply(lambda each: each.map(in_spreadsheet))
            written.to_csv(beside, index=False)
        say(f"{len(chosen)} rows: {csv_file}")
        return
    measured = chosen[chosen["state"] != "skipped"]
    # A machine's numbers stand together: they say nothing beside another's.
    for name, rows in measured.groupby("machine", sort=True):
        show(_result_table(str(name), rows))
    skipped = len(chosen) - len(measured)
    if skipped:
        say(f"{skipped} values were skipped where they would have been measured")


def _containing(frame: pd.DataFrame, **texts: str | None) -> pd.DataFrame:
    """The rows whose columns contain these texts."""
    for column, text in texts.items():
        frame = frame[frame[column].str.contains(text or "", regex=False)]
    return frame


def _result_table(machine: str, measured: pd.DataFrame) -> Table:
    commits = list(dict.fromkeys(measured["commit"]))
    table = make_table(machine, ["benchmark", "parameters"], ["unit", *(each[:8] for each in commits)], LABEL_WIDTH)
    texts = measured["value"].map("{:,.4g}".format).where(measured["state"] == "ok", "failed")
    for (name, cell, unit), rows in measured.assign(text=texts).groupby(["benchmark", "params", "unit"], sort=False):
        values = dict(zip(rows["commit"], rows["text"], strict=True))
        table.add_row(str(name).rpartition(".")[2], str(cell), str(unit), *(values.get(each, "") for each in commits))
    return table


def _duration_table(durations: pd.DataFrame) -> Table:
    table = make_table("", ["machine", "commit"], ["build and install, s", "benchmarks, s"])
    for row in durations.itertuples():
        build = "in place" if math.isnan(row.build) else f"{row.build:.1f}"
        table.add_row(row.machine, row.commit[:8], build, f"{row.benchmarks:.1f}")
    return table
