"""Whether a model's weights are still the ones that its cached contexts were computed with."""

from __future__ import annotations

from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightsWatch"]


class WeightsWatch:
    """Notices changed weights of a model.

    Two checks, by what they cost. ``touched`` compares torch's count of writes to each tensor: an optimiser's step,
    ``copy_``, a submodule's ``load_state_dict``. And it sees another tensor or submodule in a place: ``assign=True``, a
    parametrization. ``differ`` also sees hooks that came or went. And it compares each tensor's address, and its first
    and last element: ``.data`` that was replaced or written to, which torch does not count. A write through ``.data``
    that changes neither element is not noticed.

    Args:
        model: whose parameters and buffers are watched.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.remember()

    def remember(self) -> None:
        """Take the weights as they are now for the ones that contexts are computed with."""
        self._tensors = [*self._model.parameters(), *self._model.buffers()]
        self._counted = [each for each in self._tensors if not each.is_inference()]
        parts: list[tuple[dict[str, Any], str, Any]] = [
            (each, name, part)
            for module in self._model.modules()
            for each in (module._parameters, module._buffers, module._modules)
            for name, part in each.items()
        ]
        self._holders = [holder for holder, _, _ in parts]
        self._names = [name for _, name, _ in parts]
        self._parts = [part for _, _, part in parts]
        self._writes, self._places, self._hooked = self._counts(), self._addresses(), self._hooks()
        self._ends: dict[torch.dtype, list[Tensor]] = {}  # views of first and last elements, to be read at once
        for each in self._tensors:
            flat = each.detach().reshape(-1)
            self._ends.setdefault(each.dtype, []).extend((flat[:1], flat[-1:]))
        self._elements = self._sample()

    def touched(self) -> bool:
        """Whether a tensor was written to, as far as torch counts it, or another one is in its place."""
        if self._counts() != self._writes:
            return True
        return not all(map(is_, map(dict.get, self._holders, self._names), self._parts))

    def differ(self) -> bool:
        """As ``touched``, or the weights' first and last elements are others, or the modules' hooks are."""
        if self.touched() or self._addresses() != self._places or self._hooks() != self._hooked:
            return True
        return not all(map(torch.equal, self._sample(), self._elements))

    def _counts(self) -> list[int]:
        return [each._version for each in self._counted]

    def _addresses(self) -> list[int]:
        return [each.data_ptr() for each in self._tensors]

    def _hooks(self) -> list[tuple[int, ...]]:
        return [(*each._forward_hooks, *each._forward_pre_hooks) for each in self._model.modules()]

    def _sample(self) -> list[Tensor]:
        """The first and the last element of each tensor, together by their type, on the host: one transfer each."""
        return [torch.cat(ends).cpu() for ends in self._ends.values()]
