"""``kvbench trace import`` and ``export``: traces of other systems, and ours for their tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kvbench.cli.console import progress_bar, say
from kvbench.cli.options import FILE, option, writable
from kvbench.requests.export import EXPORTS, export_requests
from kvbench.requests.formats import CSV, FORMATS, import_requests
from kvbench.requests.source import SourceFile
from kvbench.requests.table import Columns
from kvbench.text import clean
from kvbench.trace.writer import check_new

__all__ = ["export_trace", "import_trace"]

_COLUMN = click.IntRange(0, 10_000)
_OF_CSV = {
    "key": "--key-column",
    "time": "--time-column",
    "size": "--size-column",
    "delimiter": "--delimiter",
    "has_header": "--header",
    "hashes_keys": "--text-keys",
}


def _character(context: click.Context, parameter: click.Parameter, text: str) -> str:
    """A delimiter: one character, a tab written as it is typed."""
    found = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(found) != 1 or not found.isascii() or found in '\r\n"':
        raise click.BadParameter(f"{text!r}: give one character, or 'tab'")
    return found


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@option("--format", "form", type=click.Choice(list(FORMATS)), metavar="FORMAT", required=True, help="Read this format.")
@option("--output", "-o", type=FILE, required=True, help="Write the trace to this file.")
@option("--license", "license_note", help="Note in the trace what its source may be used for.")
@option("--key-column", "key", type=click.IntRange(1, 10_000), default=2, help="Of csv: take keys from column N.")
@option("--time-column", "time", type=_COLUMN, default=1, help="Of csv: take seconds from column N; 0: there are none.")
@option("--size-column", "size", type=_COLUMN, default=3, help="Of csv: take sizes from column N; 0: there are none.")
@option("--delimiter", default=",", callback=_character, help="Of csv: columns are divided by this character.")
@option("--header", "has_header", is_flag=True, help="Of csv: the first line has names.")
@option("--text-keys", "hashes_keys", is_flag=True, help="Of csv: keys are texts; take their hashes.")
@click.pass_context
def import_trace(
    context: click.Context, /, file: Path, form: str, output: Path, license_note: str | None, **columns: Any
) -> None:
    """Import FILE, requests of another system, as a trace of keys and sizes.

    mooncake and bailian are JSON lines of prompts with the hashes of their blocks. oracle-general and csv are
    libCacheSim's. plain is a number a line (LIRS) or four (ARC). A file that ends with .zst, .gz, .bz2 or .lz4 is
    decompressed. 'kvbench trace replay' replays the trace.
    """
    for name, spelt in _OF_CSV.items() if form != CSV else ():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{spelt} is for --format csv")
    check_new(output)
    source = SourceFile(file)
    with progress_bar(auto_refresh=False) as bar:
        task = bar.add_task("importing", total=source.bytes)

        def update(done: int) -> None:
            bar.update(task, completed=done)
            bar.refresh()

        requests = import_requests(source, form, output, Columns(**columns), license_note, update)
    if source.left_out:
        say(f"{source.left_out:,} requests of size 0 are left out, as libCacheSim does")
    if source.odd_lengths:
        say(f"{source.odd_lengths:,} prompts have a length that does not fit their blocks: their blocks count as full")
    click.echo(clean(f"{output}: {requests} requests of {file.name}"))


@click.command("export")
@click.argument("file", metavar="TRACE", type=click.Path(path_type=Path))
@option("--format", "form", type=click.Choice(EXPORTS), metavar="FORMAT", required=True, help="Write this format.")
@option("--output", "-o", type=FILE, callback=writable, required=True, help="Write the requests to this file.")
def export_trace(file: Path, form: str, output: Path) -> None:
    """Export TRACE, recorded or imported, for libCacheSim's tools.

    Of a recorded search each lookup and each store is a request for its key, of the size of a full entry. libCacheSim
    stores what it misses, and knows no clears.
    """
    if output.exists() and file.exists() and output.samefile(file):
        raise click.UsageError(f"{output} is the trace itself: name another file")
    requests = export_requests(file, form, output)
    click.echo(clean(f"{output}: {requests} requests of {file.name}"))
