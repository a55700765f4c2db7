"""Options of the commands that search with a world model: its shapes, seed and threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from kvcache import GEOMETRIES, POSITIONS, Geometry
from kvcache.world_model import LARGEST_SEED

__all__ = ["model_options", "shape_of"]

_OPTIONS: dict[str, dict[str, Any]] = {
    "--geometry": {
        "type": click.Choice(list(GEOMETRIES)),
        "required": True,
        "help": "Take the shapes of the model and its caches from this geometry.",
    },
    "--positions": {"type": click.Choice(POSITIONS), "help": "Use these positions instead of the geometry's own."},
    "--simulations": {
        "type": click.IntRange(min=1),
        "help": "Run this many simulations a search; by default the geometry's.",
    },
    "--env-num": {
        "type": click.IntRange(min=1),
        "help": "Search in this many environments; by default the geometry's.",
    },
    "--seed": {
        "type": click.IntRange(min=0, max=LARGEST_SEED),
        "default": 0,
        "show_default": True,
        "help": "Seed the weights, the play and the noise.",
    },
    "--threads": {
        "type": click.IntRange(min=1),
        "default": 1,
        "show_default": True,
        "help": "Let torch use this many threads.",
    },
}


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options ``--geometry``, ``--positions``, ``--simulations``, ``--env-num``, ``--seed``, ``--threads``."""
    for name, settings in reversed(_OPTIONS.items()):
        command = click.option(name, **settings)(command)
    return command


def shape_of(geometry: str, positions: str | None, env_num: int | None, simulations: int | None) -> Geometry:
    """A geometry of SPEC 1 by name, changed by the options that were given."""
    given = GEOMETRIES[geometry]
    return replace(
        given,
        positions=positions or given.positions,
        env_num=env_num or given.env_num,
        num_simulations=simulations or given.num_simulations,
    )
