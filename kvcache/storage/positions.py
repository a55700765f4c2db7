"""Absolute positions of cached tokens: what to add to one that stands elsewhere than where it was computed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kvcache.geometry import TOKENS_PER_STEP
from kvcache.keys_values import memory

__all__ = ["NO_POSITION", "PositionShifts"]

NO_POSITION = -1
_UNKNOWN = -1


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
        positions = kept + TOKENS_PER_STEP
        # The last row is of what has no position, and is never moved.
        self._known = np.full((positions + 1, positions), _UNKNOWN, dtype=np.int64)
        np.fill_diagonal(self._known, 0)
        self._known[NO_POSITION] = 0
        self._used = 1
        self.rows = memory((1 + kept, self._steps.shape[1]), shift.device, shift.dtype)
        self.rows[0].zero_()
        self.steps = self.index(np.arange(TOKENS_PER_STEP, positions), np.arange(kept))

    def index(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Which of ``rows`` moves a token from position ``old`` to ``new``; 0 where they are the same.

        ``old`` may be ``NO_POSITION``, whatever ``new`` is then.
        """
        found: np.ndarray = self._known[old, new]
        if found.size and found.min() == _UNKNOWN:
            old, new = np.broadcast_arrays(old, new)
            unknown = found == _UNKNOWN
            for pair in sorted(set(zip(old[unknown].tolist(), new[unknown].tolist(), strict=True))):
                self._add(*pair)
            found = self._known[old, new]
        return found

    def _add(self, old: int, new: int) -> None:
        assert old > new, f"a token at {old} cannot slide to {new}"
        assert (old - new) % TOKENS_PER_STEP == 0, f"no number of slides moves a token from {old} to {new}"
        if self._used == self.rows.shape[0]:
            grown = memory((2 * self._used, self.rows.shape[1]), self.rows.device, self.rows.dtype)
            grown[: self._used].copy_(self.rows)
            self.rows = grown
        self.rows[self._used].copy_(self._steps[new:old:TOKENS_PER_STEP].sum(0))
        self._known[old, new] = self._used
        self._used += 1

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes
