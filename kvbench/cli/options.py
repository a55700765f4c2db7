"""Every option of every command: ``option`` makes one of those below, or one that a command has for itself.

What several commands have is defined once, with its default. A definition is made when a command wants it: what needs
``kvcache`` imports torch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from kvbench.errors import told
from kvbench.files import check_writable

__all__ = [
    "COUNT", "CommandGroup", "FILE", "FOLDER", "LIGHTZERO_SEED", "STEPS", "STEPS_OR_NONE", "FiniteRange",
    "capacities_as_usage", "finished", "lightzero_options", "model_options", "option", "writable",
]  # fmt: skip

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

Command = Callable[..., Any]


def _distinct(context: click.Context, parameter: click.Parameter, values: Any) -> Any:
    """Refuse a value that is given twice: it would be measured twice."""
    names = [getattr(each, "label", each) for each in values]
    if len(set(names)) != len(names):
        raise click.UsageError(f"a {parameter.opts[0]} is given twice: {', '.join(names)}")
    return values


def writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that cannot be written now, and not after minutes of measuring."""
    try:
        if path is not None:
            check_writable(path)
    except OSError as error:
        raise click.BadParameter(told(error)) from None
    return path


_PICTURES = (".png", ".svg", ".pdf")


def _drawable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """The same of a picture, whose name says its format."""
    if path is not None and path.suffix.lower() not in _PICTURES:
        raise click.BadParameter(f"{path}: give a name that ends with {', '.join(_PICTURES[:-1])} or {_PICTURES[-1]}")
    return writable(context, parameter, path)


_MOST = 10**6  # of anything that memory is allocated for; a typing error asks for more
_WHOLE = 10**6  # characters of a help, which none has
_LONGEST = 10**9  # of what only takes time


class FiniteRange(click.FloatRange):
    """Numbers of a range; NaN is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        return found if math.isfinite(found) else self.fail(f"{value!r} is not a finite number.", param, ctx)


COUNT, STEPS, STEPS_OR_NONE = click.IntRange(1, _MOST), click.IntRange(1, _LONGEST), click.IntRange(0, _LONGEST)
LIGHTZERO_SEED = click.IntRange(min=0, max=2**32 - 1)  # NumPy's and Python's generators take no larger one
_OPTIONS: dict[str, dict[str, Any]] = {
    "--budget": {
        "type": FiniteRange(min=0),
        "default": 900,
        "metavar": "SECONDS",
        "help": "Measure for so long, at most.",
    },
    "--csv": {"type": FILE, "callback": writable, "help": "Write all rows to this file instead."},
    "--device": {"type": click.Choice(["cpu", "cuda"]), "default": "cpu", "help": "Run on this device."},
    "--env-num": {"type": COUNT, "show_default": "the geometry's", "help": "Search in this many environments."},
    "--json": {"type": FILE, "callback": writable, "help": "Write all numbers to this file."},
    "--keyword": {"help": "Measure only these benchmarks, as pytest's -k has it: 'store and pong'."},
    "--leaves": {"type": COUNT, "default": 1, "help": "Infer N leaves of each environment in one forward pass."},
    "--pass-env": {
        "multiple": True,
        "metavar": "NAME",
        "help": "Hand this environment variable on, to builds too; several times.",
    },
    "--picture": {
        "type": FILE,
        "callback": _drawable,
        "help": "Draw time, memory and lookup outcomes into this file: .png, .svg or .pdf.",
    },
    "--searches": {"type": STEPS, "default": 20, "help": "Run this many searches."},
    "--simulations": {"type": COUNT, "show_default": "the geometry's", "help": "Run this many simulations a search."},
    "--threads": {"type": click.IntRange(1, 1024), "default": 1, "help": "Let torch use this many threads."},
}
_OF_CACHES = {"--backend", "--capacity", "--dtype", "--eviction", "--geometry", "--positions", "--seed"}


@contextmanager
def capacities_as_usage(error: type[click.UsageError] = click.UsageError) -> Iterator[None]:
    """What is wrong with a capacity is a fault of the command line."""
    from kvbench.replay.settings import CapacityError

    try:
        yield
    except CapacityError as fault:
        raise error(str(fault)) from None


def _capacity(text: str) -> Any:
    """Read an option's value. Raises click.BadParameter, which names the forms."""
    from kvbench.replay.settings import parse_capacity

    with capacities_as_usage(click.BadParameter):
        return parse_capacity(text)


@functools.cache
def _of_caches() -> dict[str, dict[str, Any]]:
    """Those that need ``kvcache``, which imports torch."""
    from kvbench.replay.settings import DTYPES
    from kvcache import AUTO_EVICTION, BACKENDS, GEOMETRIES, POSITIONS, EvictionStrategy
    from kvcache.world_model import LARGEST_SEED

    pools = {"metavar": "SLOTS", "default": "default", "help": "Give the pools this size; see above."}
    dtype = {"metavar": "TYPE", "default": "float32", "help": "Store contexts in this type."}
    kinds = [each.value for each in EvictionStrategy]
    evicts = "Evict by this strategy; legacy writes in a circle."
    shapes = "Take the shapes of the model and its caches from it."
    geometry = {"metavar": "GEOMETRY", "required": True, "help": shapes}
    positions = {"show_default": "the geometry's", "help": "Use these positions."}
    seed = {"default": 0, "help": "Seed the weights, the play and the noise."}
    backends = {"metavar": "CACHE", "multiple": True, "default": ("legacy", "new")}
    return {
        "--backend": {"type": click.Choice(list(BACKENDS))} | backends,
        "--capacity": {"type": _capacity} | pools,
        "--dtype": {"type": click.Choice(list(DTYPES))} | dtype,
        "--eviction": {"type": click.Choice([*kinds, AUTO_EVICTION]), "default": AUTO_EVICTION, "help": evicts},
        "--geometry": {"type": click.Choice(list(GEOMETRIES))} | geometry,
        "--positions": {"type": click.Choice(POSITIONS)} | positions,
        "--seed": {"type": click.IntRange(min=0, max=LARGEST_SEED)} | seed,
    }


class CommandGroup(click.Group):
    """Commands with their helps, whole."""

    def helps(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Each command's name and help."""
        return [(name, command.get_short_help_str(_WHOLE)) for name, command in sorted(self.commands.items())]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.helps(ctx))


class _Option(click.Option):
    """An option whose help is one line: its default stands there once, and no range, which an error names."""

    def get_help_extra(self, ctx: click.Context) -> Any:
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default  # without click's brackets around it
        return extra


def option(name: str, *names: str, **changes: Any) -> Callable[[Command], Command]:
    """One of the options above, or a command's own; ``names`` and ``changes`` are what it has different, as in
    ``click.option``.
    """
    settings = (_of_caches()[name] if name in _OF_CACHES else _OPTIONS.get(name, {})) | changes
    if settings.get("multiple") and settings.get("default"):  # what is measured, and not what is read
        settings["callback"] = _distinct
    if isinstance(settings.get("type"), click.IntRange | click.FloatRange):
        settings.setdefault("metavar", "N")
    return click.option(name, *names, **{"cls": _Option} | settings)


def _silence(context: click.Context, parameter: click.Parameter, is_quiet: bool) -> None:
    from kvbench.cli.console import STDERR

    STDERR.quiet = is_quiet


_QUIET = click.Option(
    ["--quiet", "-q"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_silence,
    help="Print results and errors only: no progress and no remarks.",
)


def finished(command: click.Command) -> click.Command:
    """A command, or all of a group, with what every command has: --quiet, and at its end the names to choose from."""
    for each in command.commands.values() if isinstance(command, click.Group) else [command]:
        if _QUIET not in each.params:
            each.params.append(_QUIET)
            named = {
                param.metavar: param.type.choices
                for param in each.params
                if isinstance(param.type, click.Choice) and param.metavar
            }
            each.epilog = "\n\n".join(f"{name}: {', '.join(choices)}." for name, choices in named.items()) or None
    return command


def lightzero_options(command: Command) -> Command:
    """Add the options of a UniZero configuration: a command gets ``config`` and ``settings`` (see ``load_config``)."""
    from kvbench.record.lightzero_config import ENVIRONMENTS, parse_settings

    @functools.wraps(command)
    def with_config(environment: str | None, config_file: Path | None, settings: Sequence[str], **others: Any) -> None:
        given = [each for each in (environment, config_file) if each is not None]
        if len(given) != 1:
            raise click.UsageError("give either --env or --config")
        command(config=str(given[0]), settings=parse_settings(settings), **others)

    whole: Command = with_config
    changed = "Change this value of main_config; several times."
    for add in (
        option("--set", "settings", multiple=True, metavar="PATH=VALUE", help=changed),
        option("--config", "config_file", type=FILE, help="Take this UniZero configuration, as LightZero writes them."),
        option(
            "--env",
            "environment",
            type=click.Choice(sorted(ENVIRONMENTS)),
            metavar="ENVIRONMENT",
            help="Take LightZero's own configuration for it.",
        ),
    ):
        whole = add(whole)
    return whole


def model_options(command: Command) -> Command:
    """Add the options of a world model: a command gets them as ``shape`` (a Geometry) and ``seed``."""
    import torch

    from kvcache import GEOMETRIES

    @functools.wraps(command)
    def with_shape(
        geometry: str, positions: str | None, simulations: int | None, env_num: int | None, threads: int, **others: Any
    ) -> None:
        torch.set_num_threads(threads)
        given = {"positions": positions, "env_num": env_num, "num_simulations": simulations}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        command(shape=replace(GEOMETRIES[geometry], **changes), **others)

    whole: Command = with_shape
    for name in ("--threads", "--seed", "--env-num", "--simulations", "--positions", "--geometry"):
        whole = option(name)(whole)
    return whole
