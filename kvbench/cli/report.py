"""``kvbench report``: pages that people read, from what was measured."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from kvbench.cli.console import say
from kvbench.cli.options import option
from kvbench.files import append_whole
from kvbench.text import clean

__all__ = ["report"]

EXIT_NEW = 3  # with --fail-on-new; 1 and 2 are faults

_FILE = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@option("--results", type=_FOLDER, help="asv's results_dir: regressions, and how cost grows.")
@option("--replay", "replays", multiple=True, type=_FILE, help="A file of 'kvbench replay --json'; several times.")
@option(
    "--benchmark", "benchmarks", multiple=True, type=_FILE, help="A file of pytest --benchmark-json; several times."
)
@option(
    "--trace", "traces", multiple=True, type=_FILE, help="A trace: its page, and bounds of its replays; several times."
)
@option("--profile", type=_FOLDER, help="A folder of 'kvbench profile', which the front page links.")
@option("--training", "trainings", multiple=True, type=_FILE, help="A file of 'kvbench train --json'; several times.")
@option("--search", "searches", multiple=True, type=_FILE, help="A file of 'kvbench search --json'; several times.")
@option("--gpu", "gpus", multiple=True, type=_FILE, help="A file of 'tox -e gpu'; several times.")
@option("--gate", type=_FILE, help="A file of 'kvbench gate --json': verdicts of two commits, times as well.")
@option("--base", default="", show_default="the one before", help="Compare --head with this commit.")
@option("--head", default="", show_default="the last measured", help="Compare this commit.")
@option("--output", type=_FOLDER, default=Path("reports/html"), help="Folder of the pages.")
@option("--repository", type=_FOLDER, default=Path(), help="A checkout of what was measured.")
@option(
    "--since",
    default="",
    show_default="the last tag, else 10",
    help="What is new: after this tag or commit, or the last N.",
)
@option("--fail-on-new", is_flag=True, help="Exit with 3 where a regression is new; lists them.")
@option("--summary", type=_FILE, help="Append new regressions here, as Markdown.")
@option("--histories", type=click.IntRange(0, 10**9), help="Most figures of histories, change points first.")
@option("--command", help="What a reader would repeat, where it is not this command line.")
@click.pass_context
def report(
    context: click.Context,
    /,
    output: Path,
    fail_on_new: bool,
    summary: Path | None,
    histories: int | None,
    command: str | None,
    **inputs: Any,
) -> None:
    """Make HTML pages of measurements; they need no network and no server.

    There is a front page, and pages of regressions, of backends, of each trace, of each comparison of training runs and
    of each card.

    Exit code with --fail-on-new: 0 no regression is new, 3 one is and still stands, or a benchmark has newly no values;
    1 the report could not be made.
    """
    from kvbench.report import MOST_HISTORIES, Inputs, build_report
    from kvbench.report.alarm import Alarm, alarm_lines, alarm_markdown

    if not any(inputs[each] for each in inputs if each not in ("repository", "since", "base", "head")):
        kinds = "--results, --replay, --benchmark, --trace, --profile, --training, --search, --gpu or --gate"
        raise click.UsageError(f"nothing to report: give {kinds}")
    if (fail_on_new or summary) and not inputs["results"]:
        raise click.UsageError("--fail-on-new and --summary are about a history: give --results as well")
    if (inputs["base"] or inputs["head"]) and not inputs["results"]:
        raise click.UsageError("--base and --head are commits of a history: give --results as well")
    given = Inputs(
        **inputs,
        histories=MOST_HISTORIES if histories is None else histories,
        command=command or shlex.join(["kvbench", *sys.argv[1:]]),
    )
    found: list[Alarm] = []

    def alarm(alarms: list[Alarm], described: str) -> None:
        found.extend(alarms)
        for line in alarm_lines(alarms, described) if fail_on_new else ():
            click.echo(clean(line))
        if summary is not None:
            append_whole(summary, alarm_markdown(alarms, described))

    pages = build_report(given, output, lambda what: say(f"{what} ..."), say, alarm)
    click.echo(clean(f"{pages[0]}: {len(pages)} pages"))
    if found and fail_on_new:
        context.exit(EXIT_NEW)
