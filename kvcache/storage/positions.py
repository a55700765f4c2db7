"""Absolute positions of cached tokens: the correction of a token whose position has changed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kvcache.geometry import TOKENS_PER_STEP
from kvcache.kernels import large_memory

__all__ = ["NO_TOKENS", "Origins", "PositionShifts"]


class Origins:
    """The position at which each token of a context was computed, in order.

    Equal origins are one object: all are made from ``NO_TOKENS`` by ``grown``, which caches its results.
    """

    __slots__ = ("_made", "positions")

    def __init__(self, positions: tuple[int, ...] = ()) -> None:
        self.positions = positions
        self._made: dict[tuple[int, int, int], Origins] = {}

    def grown(self, first: int, end: int, new: int) -> Origins:
        """Of the tokens from ``first`` on, and of ``new`` ones behind them whose positions end before ``end``."""
        how = (first, end, new)
        made = self._made.get(how)
        if made is None:
            positions = self.positions[first : end - new] + tuple(range(end - new, end))
            made = self._made[how] = _ALL.setdefault(positions, Origins(positions))
        return made

    def __reduce__(self) -> tuple[object, tuple[tuple[int, ...]]]:
        return _of, (self.positions,)  # a copy is the same object


# There are few: they differ by a context's length and by the step at which its window began to slide.
_ALL: dict[tuple[int, ...], Origins] = {}
NO_TOKENS = _ALL.setdefault((), Origins())


def _of(positions: tuple[int, ...]) -> Origins:
    return _ALL.setdefault(positions, Origins(positions))


class PositionShifts:
    """``PE[new] - PE[old]`` of any two positions some slides apart, computed when it is first needed.

    A slide moves a token by one step. The correction of several slides is one sum in float64, rounded once; legacy adds
    and rounds at every slide.

    Attributes:
        rows: corrections ``[M, W]``; row 0 is zero.

    Args:
        shift: the correction of one slide, ``[L, 2, H, context_length - 3, D]``: entry ``i`` is ``PE[i] - PE[i + 2]``.
    """

    def __init__(self, shift: Tensor) -> None:
        kept = shift.shape[3]
        self._steps = shift.detach().movedim(3, 0).flatten(1).to("cpu", torch.float64)
        self._row_of = {(new + TOKENS_PER_STEP, new): 1 + new for new in range(kept)}
        self._moves: dict[Origins, np.ndarray | None] = {}
        self.rows = large_memory((1 + kept, self._steps.shape[1]), shift.device, shift.dtype)
        self.rows[0].zero_()
        self.rows[1:].copy_(self._steps)

    def moves(self, origins: Origins) -> np.ndarray | None:
        """The row of ``rows`` for each token of a context, ``[tokens, 1]``; None where all are 0."""
        if origins not in self._moves:
            moves = [self.row(old, new) for new, old in enumerate(origins.positions)]
            self._moves[origins] = np.array(moves, dtype=np.int64)[:, None] if any(moves) else None
        return self._moves[origins]

    def row(self, old: int, new: int) -> int:
        """The row of ``rows`` that moves a token from ``old`` to ``new``; 0 where they are the same."""
        if old == new:
            return 0
        if (old, new) not in self._row_of:
            self._make(old, new)
        return self._row_of[old, new]

    def _make(self, old: int, new: int) -> None:
        assert old > new, f"a token at {old} cannot slide to {new}"
        assert (old - new) % TOKENS_PER_STEP == 0, f"no number of slides moves a token from {old} to {new}"
        row = 1 + len(self._row_of)
        if row == self.rows.shape[0]:
            grown = large_memory((2 * row, self.rows.shape[1]), self.rows.device, self.rows.dtype)
            grown[:row].copy_(self.rows)
            self.rows = grown
        self.rows[row].copy_(self._steps[new:old:TOKENS_PER_STEP].sum(0))
        self._row_of[old, new] = row

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes
