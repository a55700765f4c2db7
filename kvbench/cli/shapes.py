"""``--geometry`` of a world model, and the options that change it."""

from __future__ import annotations

from dataclasses import replace

from kvcache import GEOMETRIES, Geometry

__all__ = ["shape_of"]


def shape_of(geometry: str, positions: str | None, env_num: int | None, simulations: int | None) -> Geometry:
    """A geometry of SPEC 1 by name, with what was given on the command line in its place."""
    given = GEOMETRIES[geometry]
    return replace(
        given,
        positions=positions or given.positions,
        env_num=env_num or given.env_num,
        num_simulations=simulations or given.num_simulations,
    )
