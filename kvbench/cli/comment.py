"""``kvbench comment``: what a gate and replays found, as a pull request's comment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click

from kvbench.cli.console import say
from kvbench.cli.options import FILE, option
from kvbench.files import whole_or_absent

__all__ = ["comment"]


def _address(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Refuse what a link of Markdown cannot hold."""
    if text is not None and (urlsplit(text).scheme not in ("http", "https") or set(text) & set(" ()<>\"'\\\n\t")):
        raise click.BadParameter(f"{text!r} is no web address: give one that begins with https://")
    return text


@click.command()
@option("--gate", "gate_file", type=FILE, help="A file of 'kvbench gate --json'.")
@option("--replay", "replays", multiple=True, type=FILE, help="A file of 'kvbench replay --json'; several times.")
@option("--pages", metavar="URL", callback=_address, help="Link these pages of 'kvbench report'.")
@option("--output", type=FILE, help="Write the comment here, and not to standard output.")
def comment(gate_file: Path | None, replays: Sequence[Path], pages: str | None, output: Path | None) -> None:
    """Write what a gate and replays found as a pull request's comment.

    One table has at most 20 rows, the worst first. Below it are the commands that measure the same again. The first
    line is not shown: by it .github/actions/gate finds its comment again.
    """
    if gate_file is None and not replays:
        raise click.UsageError("nothing to comment on: give --gate or --replay")
    from kvbench.cli.comment_text import comment_text, read_replay
    from kvbench.report.pair import read_gate
    from kvbench.results.decode import LeftOut

    left_out = LeftOut()
    gate = None if gate_file is None else read_gate(gate_file, left_out)
    text = comment_text(gate, [read_replay(path, left_out) for path in replays], pages)
    for line in left_out.lines:
        say(line)
    if output is None:
        click.echo(text, nl=False)
        return
    with whole_or_absent(output) as beside:
        beside.write_text(text)
