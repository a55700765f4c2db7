"""Options of several commands: each defined once, with its default. ``main`` shows defaults in every help."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from kvbench.cli.caches import DTYPES, parse_capacity
from kvbench.files import check_writable
from kvbench.record.lightzero_config import ENVIRONMENTS, parse_settings
from kvcache import BACKENDS, GEOMETRIES, POSITIONS, EvictionStrategy
from kvcache.world_model import LARGEST_SEED

__all__ = [
    "COUNT", "FILE", "LIGHTZERO_SEED", "STEPS", "STEPS_OR_NONE", "FiniteRange", "lightzero_options", "model_options",
    "option",
]  # fmt: skip

FILE = click.Path(path_type=Path, dir_okay=False)

Command = Callable[..., Any]


def _distinct(context: click.Context, parameter: click.Parameter, values: Any) -> Any:
    """Refuse a value that is given twice: it would be measured twice."""
    names = [getattr(each, "label", each) for each in values]
    if len(set(names)) != len(names):
        raise click.UsageError(f"a {parameter.opts[0]} is given twice: {', '.join(names)}")
    return values


def _writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that cannot be written now, and not after minutes of measuring."""
    try:
        if path is not None:
            check_writable(path)
    except OSError as error:
        raise click.BadParameter(str(error)) from None
    return path


_PICTURES = (".png", ".svg", ".pdf")


def _drawable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """The same of a picture, whose name says its format."""
    if path is not None and path.suffix.lower() not in _PICTURES:
        raise click.BadParameter(f"{path}: give a name that ends with {', '.join(_PICTURES[:-1])} or {_PICTURES[-1]}")
    return _writable(context, parameter, path)


_MOST = 10**6  # of anything that memory is allocated for; a typing error asks for more
_LONGEST = 10**9  # of what only takes time


class FiniteRange(click.FloatRange):
    """Numbers of a range; NaN is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        return found if math.isfinite(found) else self.fail(f"{value!r} is not a finite number.", param, ctx)


COUNT, STEPS, STEPS_OR_NONE = click.IntRange(1, _MOST), click.IntRange(1, _LONGEST), click.IntRange(0, _LONGEST)
LIGHTZERO_SEED = click.IntRange(min=0, max=2**32 - 1)  # NumPy's and Python's generators take no larger one
_OPTIONS: dict[str, dict[str, Any]] = {
    "--backend": {"type": click.Choice(list(BACKENDS)), "multiple": True, "default": ("legacy", "new")},
    "--capacity": {"type": parse_capacity, "metavar": "SLOTS", "default": "default"},
    "--device": {"type": click.Choice(["cpu", "cuda"]), "default": "cpu", "help": "Run on this device."},
    "--dtype": {"type": click.Choice(list(DTYPES)), "default": "float32", "help": "Store contexts in this type."},
    "--env-num": {"type": COUNT, "help": "Search in this many environments; by default the geometry's."},
    "--eviction": {
        "type": click.Choice([each.value for each in EvictionStrategy]),
        "default": "fifo",
        "help": "Evict by this strategy; legacy always writes in a circle.",
    },
    "--geometry": {
        "type": click.Choice(list(GEOMETRIES)),
        "required": True,
        "help": "Take the shapes of the model and its caches from this geometry.",
    },
    "--json": {"type": FILE, "callback": _writable, "help": "Write all numbers to this file."},
    "--leaves": {
        "type": COUNT,
        "default": 1,
        "help": "Infer this many leaves of each environment in one forward pass: faster, and another search.",
    },
    "--picture": {
        "type": FILE,
        "callback": _drawable,
        "help": "Draw time, memory and lookup outcomes into this file: .png, .svg or .pdf.",
    },
    "--positions": {"type": click.Choice(POSITIONS), "help": "Use these positions instead of the geometry's own."},
    "--searches": {"type": STEPS, "default": 20, "help": "Run this many searches."},
    "--seed": {
        "type": click.IntRange(min=0, max=LARGEST_SEED),
        "default": 0,
        "help": "Seed the weights, the play and the noise.",
    },
    "--simulations": {"type": COUNT, "help": "Run this many simulations a search; by default the geometry's."},
    "--threads": {"type": click.IntRange(1, 1024), "default": 1, "help": "Let torch use this many threads."},
}


def option(name: str, *names: str, **changes: Any) -> Callable[[Command], Command]:
    """One of the options above; ``names`` and ``changes`` are what a command has different, as in ``click.option``."""
    settings = _OPTIONS[name] | changes
    if settings.get("multiple"):
        settings["callback"] = _distinct
    return click.option(name, *names, **settings)


def lightzero_options(command: Command) -> Command:
    """Add the options of a UniZero configuration: a command gets ``config`` and ``settings`` (see ``load_config``)."""

    @functools.wraps(command)
    def with_config(environment: str | None, config_file: Path | None, settings: Sequence[str], **others: Any) -> None:
        given = [each for each in (environment, config_file) if each is not None]
        if len(given) != 1:
            raise click.UsageError("give either --env or --config")
        command(config=str(given[0]), settings=parse_settings(settings), **others)

    whole: Command = with_config
    for add in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="PATH=VALUE",
            help="Change a value of main_config, as in policy.num_simulations=10; give it several times.",
        ),
        click.option(
            "--config", "config_file", type=FILE, help="Take this UniZero configuration, as LightZero's are written."
        ),
        click.option(
            "--env",
            "environment",
            type=click.Choice(sorted(ENVIRONMENTS)),
            help="Take LightZero's own configuration for this environment.",
        ),
    ):
        whole = add(whole)
    return whole


def model_options(command: Command) -> Command:
    """Add the options of a world model: a command gets them as ``shape`` (a Geometry) and ``seed``."""

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
