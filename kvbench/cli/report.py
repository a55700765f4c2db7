"""``kvbench report``: pages that people read, from what was measured."""

from __future__ import annotations

import functools
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from kvbench.cli.console import say
from kvbench.cli.options import FOLDER, option
from kvbench.files import append_whole
from kvbench.text import clean

__all__ = ["report"]

EXIT_NEW = 3  # with --fail-on-new; 1 and 2 are faults

_file = functools.partial(option, type=click.Path(path_type=Path), metavar="FILE")
_files = functools.partial(_file, multiple=True)


@click.command()
@option("--results", type=FOLDER, help="Read asv's results_dir: regressions, histories, how cost grows.")
@_files("--replay", "replays", help="Read this file of 'kvbench replay --json'; several times.")
@_files("--benchmark", "benchmarks", help="Read this file of pytest --benchmark-json; several times.")
@_files("--trace", "traces", help="Make a page of this trace, and bounds of its replays; several times.")
@option("--profile", type=FOLDER, help="Link this folder of 'kvbench profile' on the front page.")
@_files("--training", "trainings", help="Read this file of 'kvbench train --json'; several times.")
@_files("--search", "searches", help="Read this file of 'kvbench search --json'; several times.")
@option("--sweep", "sweeps", type=FOLDER, multiple=True, help="Read this folder of 'kvbench sweep'; several times.")
@_files("--gpu", "gpus", help="Read this file of 'tox -e gpu'; several times.")
@_file("--gate", help="Read this file of 'kvbench gate --json': verdicts on two commits, times too.")
@option("--base", metavar="COMMIT", default="", show_default="the one before", help="Compare --head with this commit.")
@option("--head", metavar="COMMIT", default="", show_default="the last measured", help="Compare this commit.")
@option("--output", type=FOLDER, default=Path("reports/html"), help="Write the pages to this folder.")
@option("--repository", type=FOLDER, default=Path(), help="Find commits in this checkout of what was measured.")
@option(
    "--since",
    metavar="COMMIT|N",
    default="",
    show_default="the last tag, else 10",
    help="Call regressions new since this commit, or in the last N.",
)
@option("--fail-on-new", is_flag=True, help="Exit with 3 where a regression is new, and list all that are.")
@_file("--summary", help="Append new regressions to this file, as Markdown.")
@option(
    "--histories",
    type=click.IntRange(0, 10**9),
    show_default="120",
    help="Draw at most N histories, those with change points first.",
)
@option("--command", help="Name this command on the pages, and not the one that ran.")
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
    """Make HTML pages of measurements; they need no network.

    There is a front page, and pages of regressions, of histories, of any two commits, of backends, of each trace, of
    each comparison of training runs, of each sweep and of each GPU.

    Exit code with --fail-on-new: 0 no regression is new, 3 one is and still stands, or a benchmark has newly no values;
    1 the report could not be made.
    """
    from kvbench.report import MOST_HISTORIES, Inputs, build_report
    from kvbench.report.alarm import Alarm, alarm_lines, alarm_markdown

    if not any(inputs[each] for each in inputs if each not in ("repository", "since", "base", "head")):
        kinds = "--results, --replay, --benchmark, --trace, --profile, --training, --search, --sweep, --gpu or --gate"
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
