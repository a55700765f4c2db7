"""Whether a model's weights are still the ones that its cached contexts were computed with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["WeightsWatch"]


class WeightsWatch:
    """Notices changed weights of a model.

    Two checks, by what they cost. ``touched`` compares torch's count of writes to each tensor and its address: an
    optimiser's step, ``copy_``, a submodule's ``load_state_dict``. ``differ`` also compares the first and the last
    element of each tensor: writes through ``.data``, which torch does not count. A write through ``.data`` that changes
    neither is not noticed.

    Args:
        model: whose parameters and buffers are watched.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.remember()

    def remember(self) -> None:
        """Take the weights as they are now for the ones that contexts are computed with."""
        self._tensors = [*self._model.parameters(), *self._model.buffers()]
        self._writes = self._counts()
        self._elements = self._sample()

    def touched(self) -> bool:
        """Whether a tensor was written to, or replaced, as far as torch counts it."""
        return self._counts() != self._writes

    def differ(self) -> bool:
        """As ``touched``, or the weights' first and last elements are others."""
        return self.touched() or self._sample() != self._elements

    def _counts(self) -> list[tuple[int, int]]:
        return [(0 if each.is_inference() else each._version, each.data_ptr()) for each in self._tensors]

    def _sample(self) -> list[float]:
        """The first and the last element of each tensor, by one transfer."""
        ends: list[Tensor] = []
        for each in self._tensors:
            flat = each.detach().reshape(-1)
            ends += [flat[:1], flat[-1:]]
        return torch.cat([each.double() for each in ends]).tolist() if ends else []
