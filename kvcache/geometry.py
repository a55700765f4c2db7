"""The shape of a cached world model: layers, heads, context, environments, simulations."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

__all__ = ["GEOMETRIES", "Geometry", "check_row", "is_whole"]

POSITIONS = ("rotary", "absolute")

# A step of the world model is one observation latent and one action, so contexts move by whole pairs.
TOKENS_PER_STEP = 2

# A context of ``context_length - SLIDE_MARGIN`` tokens slides: the next step would not fit.
SLIDE_MARGIN = 1

# With this many context tokens or fewer there is no room for a past, and nothing is ever stored.
LONGEST_CONTEXT_WITHOUT_PAST = 2


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, Python's or NumPy's."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_row(row: int, rows: int) -> None:
    """Raise IndexError unless a batch has that row: a negative one would be another."""
    if not is_whole(row) or not 0 <= row < rows:
        raise IndexError(f"the batch has rows 0..{rows - 1}, got {row!r}")


@dataclass(frozen=True)
class Geometry:
    """The sizes of a model and a search, which decide the size of a cache entry.

    Attributes:
        name: in reports.
        num_layers: transformer layers, L.
        num_heads: attention heads, H.
        embed_dim: embedding width, E = H x D.
        context_length: most tokens of a context, T.
        env_num: environments searched in one batch, B.
        num_simulations: simulations of one search.
        positions: ``"rotary"`` (a kept token needs no correction when the window slides) or ``"absolute"``.
    """

    name: str = "custom"
    num_layers: int = 2
    num_heads: int = 8
    embed_dim: int = 768
    context_length: int = 8
    env_num: int = 8
    num_simulations: int = 50
    positions: str = "absolute"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("name", "positions"):
                continue
            if not is_whole(value) or value < 1:
                raise ValueError(f"geometry {self.name!r}: {field.name} must be a positive integer, got {value!r}")
            object.__setattr__(self, field.name, int(value))  # NumPy's integers too
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"geometry {self.name!r}: embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}"
            )
        if self.positions not in POSITIONS:
            raise ValueError(f"geometry {self.name!r}: positions must be one of {POSITIONS}, got {self.positions!r}")

    @property
    def head_dim(self) -> int:
        """Width of one head, D."""
        return self.embed_dim // self.num_heads

    @property
    def slid_size(self) -> int:
        """Tokens of a context right after its window slid."""
        return self.context_length - SLIDE_MARGIN - TOKENS_PER_STEP

    @property
    def keeps_past(self) -> bool:
        """Whether contexts are stored. They are not where a context has room for one step only."""
        return self.context_length > LONGEST_CONTEXT_WITHOUT_PAST

    def window(self, size: int) -> tuple[int, int]:
        """Which tokens of a context of ``size`` are stored: ``(first, count)``.

        A context of ``context_length - 1`` tokens or more drops its oldest step and everything from position
        ``context_length - 1`` on (LightZero 0.2.0, ``world_model.py``, ``update_cache_context``).
        """
        if size >= self.context_length - SLIDE_MARGIN:
            return TOKENS_PER_STEP, self.slid_size
        return 0, size

    def entry_bytes(self, itemsize: int = 4) -> int:
        """Bytes of one full entry: L x 2 x E x T x itemsize."""
        return self.num_layers * 2 * self.embed_dim * self.context_length * itemsize

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Geometry:
        """Raises ValueError for a field that is missing, unknown or of the wrong type."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            missing, unknown = sorted(names - set(values)), sorted(set(values) - names)
            raise ValueError(f"geometry: missing fields {missing}, unknown fields {unknown}")
        return cls(**values)


# LightZero's own configurations, and one larger than any shipped.
GEOMETRIES: dict[str, Geometry] = {
    geometry.name: geometry
    for geometry in (
        Geometry("cartpole", 2, 2, 64, 8, 8, 25, "rotary"),
        Geometry("lunarlander", 4, 4, 256, 8, 8, 50, "absolute"),
        Geometry("pong", 2, 8, 768, 8, 8, 50, "absolute"),
        Geometry("visual-match", 4, 4, 256, 162, 8, 50, "absolute"),
        Geometry("multitask", 8, 8, 768, 8, 8, 50, "absolute"),
        Geometry("wide", 8, 8, 768, 40, 8, 50, "absolute"),
    )
}
