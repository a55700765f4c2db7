"""``kvbench report``: pages that people read, from what was measured."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kvbench.cli.console import STDERR
from kvbench.files import check_writable

__all__ = ["report"]

_FILE = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--results", type=_FOLDER, help="asv's results_dir: regressions, and how cost grows.")
@click.option(
    "--replay", "replays", multiple=True, type=_FILE, help="A file of 'kvbench replay --json'; several times."
)
@click.option(
    "--benchmark", "benchmarks", multiple=True, type=_FILE, help="A file of pytest --benchmark-json; several times."
)
@click.option(
    "--trace", "traces", multiple=True, type=_FILE, help="A trace: its page, and bounds of its replays; several times."
)
@click.option("--profile", type=_FOLDER, help="A folder of 'kvbench profile', which the front page links.")
@click.option("--output", type=_FOLDER, default=Path("reports/html"), show_default=True, help="Folder of the pages.")
@click.option("--repository", type=_FOLDER, default=Path(), show_default=True, help="A checkout of what was measured.")
@click.option(
    "--since",
    default="",
    help="What counts as new: after a tag or commit, or the last N commits.  [default: the last tag, else 10]",
)
@click.option("--histories", type=click.IntRange(min=0), help="Most figures of histories, change points first.")
@click.option("--command", default="", help="What a reader would repeat, where it is not this command line.")
def report(
    results: Path | None,
    replays: tuple[Path, ...],
    benchmarks: tuple[Path, ...],
    traces: tuple[Path, ...],
    profile: Path | None,
    output: Path,
    repository: Path,
    since: str,
    histories: int | None,
    command: str,
) -> None:
    """Make HTML pages of measurements; they need no network and no server.

    There is a front page, and pages of regressions, of backends and of each trace.
    """
    from kvbench.report import MOST_HISTORIES, Inputs, build_report

    if results is None and profile is None and not (replays or benchmarks or traces):
        raise click.UsageError("nothing to report: give --results, --replay, --benchmark, --trace or --profile")
    inputs = Inputs(
        results, replays, benchmarks, traces, profile, repository, since,
        MOST_HISTORIES if histories is None else histories, command or shlex.join(["kvbench", *sys.argv[1:]]),
    )  # fmt: skip
    with _no_empty_folder(output):
        check_writable(output / "index.html")
        pages = build_report(inputs, output, lambda what: STDERR.print(f"{what} ...", highlight=False, markup=False))
    click.echo(f"{pages[0]}: {len(pages)} pages")


@contextmanager
def _no_empty_folder(path: Path) -> Iterator[None]:
    """Folders that the block made and left empty go again."""
    absent = [each for each in (path, *path.parents) if not each.exists()]
    try:
        yield
    finally:
        for each in absent:
            try:
                each.rmdir()
            except OSError:  # not made, or there is something in it
                break
