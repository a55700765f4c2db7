"""``kvbench sweep``: the cells of a plan, spread over workers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import TextColumn, TimeRemainingColumn

from kvbench.cli.console import make_table, progress_bar, say, show
from kvbench.cli.options import COUNT, FILE, FOLDER, option
from kvbench.results.sweep import DONE, FAILED
from kvbench.sweep.cells import Cell
from kvbench.sweep.cluster import cores, require_dask
from kvbench.sweep.session import Session, open_session
from kvbench.text import clean

__all__ = ["sweep"]

_MOST = 10  # failed cells that are named


def _address(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Refuse what Dask would take for no address."""
    if text is not None and not re.fullmatch(r"[a-z]+://[^\s/]+:\d{1,5}", text):
        raise click.BadParameter(f"{text!r}: give tcp://HOST:PORT, as 'dask scheduler' prints it")
    return text


@click.command()
@click.argument("plan", type=FILE)
@option("--output", type=FOLDER, required=True, help="Write a file a cell into this folder; it may have some already.")
@option("--workers", type=COUNT, show_default="the CPUs of this machine", help="Run on N workers of this machine.")
@option(
    "--scheduler",
    metavar="ADDRESS",
    callback=_address,
    help="Run on the workers of this Dask scheduler instead: tcp://HOST:PORT.",
)
@option("--retry-failed", is_flag=True, help="Run cells again that failed before.")
@option("--dry-run", is_flag=True, help="Say what would run, and run nothing.")
def sweep(
    plan: Path, output: Path, workers: int | None, scheduler: str | None, retry_failed: bool, dry_run: bool
) -> None:
    """Replay all cells of PLAN on several workers.

    A cell is one trace on one cache at one capacity, and so on: PLAN crosses them, in TOML. Each cell is a file in the
    folder, of one row. pandas.read_parquet reads the folder as one frame, and 'kvbench report --sweep' makes a page of
    it. The same command goes on where it was interrupted: cells that are there are not run again. docs/sweeps.md has a
    plan, the columns, and how to use several machines.

    Exits with 1 when a cell failed: its row says why, and all others are complete.
    """
    if workers is not None and scheduler is not None:
        raise click.UsageError("give either --workers or --scheduler")
    session = open_session(plan, output)
    waiting = session.waiting(retry_failed)
    if dry_run:
        _show_plan(session, waiting)
        return
    if waiting:
        require_dask()
        try:
            with _progress_bar(len(session.cells), len(session.cells) - len(waiting)) as progress:
                # Two, where one would do, since some cells are computed twice.
                session.run(waiting, scheduler, min(workers or cores(), max(2, len(waiting))), say, progress)
        except KeyboardInterrupt as error:
            done = list(session.folder.statuses(session.cells).values()).count(DONE)
            error.args = (f"{done} of {len(session.cells)} cells are done, and the same command goes on",)
            raise
    _show_end(session, len(waiting))


@contextmanager
def _progress_bar(cells: int, there: int) -> Iterator[Callable[[int, int], None]]:
    failures = TextColumn("{task.fields[failed]} failed", markup=False)
    with progress_bar(failures, TimeRemainingColumn(), "left,") as progress:
        task = progress.add_task("cells", total=cells, completed=there, failed=0)
        yield lambda done, failed: progress.update(task, completed=done + failed, failed=failed)


def _show_plan(session: Session, waiting: list[Cell]) -> None:
    """What each trace has, and what would run."""
    table = make_table("", ["trace"], ["cells", "done", "failed", "to run"])
    for trace in session.traces:
        cells = [each for each in session.cells if each.trace == trace]
        found = Counter(session.statuses.get(each.id, "") for each in cells)
        to_run = sum(each.trace == trace for each in waiting)
        table.add_row(Path(trace.path).name, *map(str, (len(cells), found[DONE], found[FAILED], to_run)))
    show(table, f"{len(waiting)} of {len(session.cells)} cells would run")


def _show_end(session: Session, ran: int) -> None:
    """How many are done, what was compared, and which failed: then the exit code is 1."""
    done, failed = session.counts[DONE], session.failed
    click.echo(
        clean(f"{session.folder.path}: {len(session.cells)} cells: {done} done, {len(failed)} failed; {ran} ran now")
    )
    unequal = sum(reason.startswith("computed twice") for _, reason in failed)
    if session.compared:
        click.echo(f"computed on two workers and compared: {session.compared}, of which {unequal} differ")
    if session.not_compared:
        say(f"{session.not_compared} cells were not computed twice: there was no second worker")
    if failed:
        lines = "\n".join(f"  {cell}: {reason}" for cell, reason in failed[:_MOST])
        more = f"\n  and {len(failed) - _MOST} more" if len(failed) > _MOST else ""
        raise click.ClickException(f"{len(failed)} cells failed (--retry-failed runs them again):\n{lines}{more}")
