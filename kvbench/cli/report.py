"""``kvbench report``: pages that people read, from what was measured."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from kvbench.cli.console import say
from kvbench.text import clean

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
@click.option(
    "--training", "trainings", multiple=True, type=_FILE, help="A file of 'kvbench train --json'; several times."
)
@click.option(
    "--search", "searches", multiple=True, type=_FILE, help="A file of 'kvbench search --json'; several times."
)
@click.option("--gpu", "gpus", multiple=True, type=_FILE, help="A file of 'tox -e gpu'; several times.")
@click.option("--output", type=_FOLDER, default=Path("reports/html"), help="Folder of the pages.")
@click.option("--repository", type=_FOLDER, default=Path(), help="A checkout of what was measured.")
@click.option(
    "--since",
    default="",
    show_default=False,
    help="What counts as new: after a tag or commit, or the last N commits.  [default: the last tag, else 10]",
)
@click.option("--histories", type=click.IntRange(0, 10**9), help="Most figures of histories, change points first.")
@click.option("--command", help="What a reader would repeat, where it is not this command line.")
def report(output: Path, histories: int | None, command: str | None, **inputs: Any) -> None:
    """Make HTML pages of measurements; they need no network and no server.

    There is a front page, and pages of regressions, of backends, of each trace, of each comparison of training runs and
    of each card.
    """
    from kvbench.report import MOST_HISTORIES, Inputs, build_report

    if not any(inputs[each] for each in inputs if each not in ("repository", "since")):
        kinds = "--results, --replay, --benchmark, --trace, --profile, --training, --search or --gpu"
        raise click.UsageError(f"nothing to report: give {kinds}")
    given = Inputs(
        **inputs,
        histories=MOST_HISTORIES if histories is None else histories,
        command=command or shlex.join(["kvbench", *sys.argv[1:]]),
    )
    pages = build_report(given, output, lambda what: say(f"{what} ..."), say)
    click.echo(clean(f"{pages[0]}: {len(pages)} pages"))
