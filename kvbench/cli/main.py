"""The command group, and how errors reach the person at the keyboard."""

from __future__ import annotations

import errno
from typing import Any

import click

from kvbench.cli.gate import gate
from kvbench.cli.profile import profile
from kvbench.cli.record import record
from kvbench.cli.replay import replay
from kvbench.cli.report import report
from kvbench.cli.results import results
from kvbench.cli.search import search
from kvbench.cli.trace import trace
from kvbench.profile.index import ProfileError
from kvbench.record.lightzero import RecordingError
from kvbench.results.asv import ResultsError
from kvbench.trace.schema import TraceError
from kvcache import CacheMismatchError, __version__

__all__ = ["main"]


class _Group(click.Group):
    """Faults that name themselves are printed without a traceback: exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (TraceError, RecordingError, ResultsError, ProfileError, CacheMismatchError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read our output has gone: click ends quietly
                raise
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="kvbench")
def main() -> None:
    """The KV-cache of transformer world models under MCTS: record and replay searches, compare caches and commits."""


main.add_command(replay)
main.add_command(profile)
main.add_command(search)
main.add_command(record)
main.add_command(trace)
main.add_command(results)
main.add_command(gate)
main.add_command(report)
