"""Absolute positions of cached tokens: what to add to one that stands elsewhere than where it was computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kvcache.geometry import TOKENS_PER_STEP
from kvcache.keys_values import memory

__all__ = ["NO_TOKENS", "Origins", "PositionShifts"]


class Origins:
    """Where each token of a context was computed: position by position, in order.

    Contexts that grew alike share one: they are made from ``NO_TOKENS`` by ``grown`` and ``part``, which remember.
    """

    __slots__ = ("_made", "positions")

    def __init__(self, positions: tuple[int, ...] = ()) -> None:
        self.positions = positions
        self._made: dict[tuple[str, int, int], Origins] = {}

    def grown(self, first: int, new: int) -> Origins:
        """With ``new`` tokens more, computed at positions from ``first`` on."""
        return self._remembered(("grown", first, new), lambda: self.positions + tuple(range(first, first + new)))

    def part(self, first: int, count: int) -> Origins:
        """Of ``count`` tokens from ``first`` on, or as many as there are."""
        return self._remembered(("part", first, count), lambda: self.positions[first : first + count])

    def _remembered(self, how: tuple[str, int, int], positions: Callable[[], tuple[int, ...]]) -> Origins:
        made = self._made.get(how)
        if made is None:
            wanted = positions()
            made = self._made[how] = _ALL.setdefault(wanted, Origins(wanted))
        return made


# Few: they differ by a context's length and by when its window began to slide.
_ALL: dict[tuple[int, ...], Origins] = {}
NO_TOKENS = _ALL.setdefault((), Origins())


class PositionShifts:
    """``PE[new] - PE[old]`` of any two positions some slides apart, made when it is first needed.

    A slide moves a token by one step. The correction of several slides is one sum, made in float64 and rounded once,
    where legacy adds and rounds slide by slide.

    Attributes:
        rows: corrections ``[M, W]``; row 0 is zero.
        steps: which of them move the tokens that a slide keeps, ``[context_length - 3]``.

    Args:
        shift: what one slide adds, ``[L, 2, H, context_length - 3, D]``: entry ``i`` is ``PE[i] - PE[i + 2]``.
    """

    def __init__(self, shift: Tensor) -> None:
        kept = shift.shape[3]
        self._steps = shift.detach().movedim(3, 0).flatten(1).to("cpu", torch.float64)
        self._known: dict[tuple[int, int], int] = {}
        self._moves: dict[Origins, np.ndarray | None] = {}
        self.rows = memory((1 + kept, self._steps.shape[1]), shift.device, shift.dtype)
        self.rows[0].zero_()
        self.steps = np.array([self._row(new + TOKENS_PER_STEP, new) for new in range(kept)], dtype=np.int64)

    def moves(self, origins: Origins) -> np.ndarray | None:
        """Which of ``rows`` each token of such a context needs, ``[tokens]``; None where none needs any."""
        if origins not in self._moves:
            moves = [self._row(old, new) for new, old in enumerate(origins.positions)]
            self._moves[origins] = np.array(moves, dtype=np.int64) if any(moves) else None
        return self._moves[origins]

    def _row(self, old: int, new: int) -> int:
        """Which of ``rows`` moves a token from ``old`` to ``new``; 0 where they are the same."""
        if old == new:
            return 0
        if (old, new) not in self._known:
            self._add(old, new)
        return self._known[old, new]

    def _add(self, old: int, new: int) -> None:
        assert old > new, f"a token at {old} cannot slide to {new}"
        assert (old - new) % TOKENS_PER_STEP == 0, f"no number of slides moves a token from {old} to {new}"
        row = 1 + len(self._known)
        if row == self.rows.shape[0]:
            grown = memory((2 * row, self.rows.shape[1]), self.rows.device, self.rows.dtype)
            grown[:row].copy_(self.rows)
            self.rows = grown
        self.rows[row].copy_(self._steps[new:old:TOKENS_PER_STEP].sum(0))
        self._known[old, new] = row

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes
