"""The command group: it imports a command when that is asked for, and prints errors as one line."""

from __future__ import annotations

import errno
import importlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from kvbench.cli.options import CommandGroup, finished
from kvbench.errors import KvbenchError, told
from kvbench.text import clean, clean_lines

__all__ = ["COMMANDS", "main"]

# Each command's module in this package is named like it. Written here, so that "--help" imports none of them.
COMMANDS = {
    "bisect": "Find the commit between GOOD and BAD that made METRIC worse.",
    "capacity": "Try pools of many sizes on TRACE: how small may they be?",
    "comment": "Write what a gate and replays found as a pull request's comment.",
    "explain": "Show which functions of BENCHMARK execute more instructions.",
    "gate": "Measure the working tree against a commit: is anything worse?",
    "profile": "Profile a replay of TRACE on each cache, for other tools to open.",
    "record": "Record a search as a trace.",
    "replay": "Replay TRACES on several caches: what does each cost and return?",
    "report": "Make HTML pages of measurements; they need no network.",
    "results": "Show asv's results in FOLDER: a row a series, a column a commit.",
    "search": "Run whole searches on each cache in turns, and compare them.",
    "sweep": "Replay all cells of PLAN on several workers.",
    "train": "Train UniZero on each cache from one seed, and compare the runs.",
    "trace": "Show, check, recover, make, import, replay, export traces.",
}


class _LazyGroup(CommandGroup):
    """Faults that name themselves are printed without a traceback: exit code 1. Ctrl-C is a line too.

    Its exit code is 130, as a shell has it: 128 and the number of the signal.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return finished(getattr(importlib.import_module(f"kvbench.cli.{cmd_name}"), cmd_name))

    def helps(self, ctx: click.Context) -> list[tuple[str, str]]:
        return list(COMMANDS.items())

    def make_context(self, *args: Any, **settings: Any) -> click.Context:
        with _one_line():
            return super().make_context(*args, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    """What ends a command is printed without a traceback, and without what a terminal would obey."""
    try:
        yield
    except KeyboardInterrupt as error:
        said = error.args[0] if error.args else "no file is half written"
        click.echo(clean(f"Interrupted: {said}"), err=True)
        raise SystemExit(128 + getattr(error, "signal", signal.SIGINT)) from None
    except KvbenchError as error:
        raise click.ClickException(clean_lines(str(error))) from error
    except click.ClickException as error:
        of_a_line = isinstance(error, click.UsageError)  # which repeats what was typed
        vars(error)["message"] = clean(error.message) if of_a_line else clean_lines(error.message)
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise  # torch has no better name for it
        said = str(error).partition("\n")[0]
        fault = "there is not memory enough: ask for fewer environments, simulations or slots"
        raise click.ClickException(clean(f"{fault} ({said})" if said else fault)) from error
    except UnicodeEncodeError as error:  # a file's name, as all other text is clean
        raise click.ClickException(clean(f"{error.object}: a name that is not UTF-8: choose another")) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever read our output has gone: click ends quietly
            raise
        raise click.ClickException(clean(told(error))) from error


def _print_version(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from kvcache import __version__

        click.echo(f"kvbench, version {__version__}")
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def main() -> None:
    """Record and replay searches of world models, compare their caches, and judge commits."""
