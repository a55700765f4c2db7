"""Tensors for contents: allocated outside of inference mode, so that they can be written to at any time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["memory", "zeros"]


def memory(shape: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor, never an inference tensor.

    A tensor made under ``torch.inference_mode`` cannot be written to outside it. A cache filled during a search is
    used after it.
    """
    with torch.inference_mode(False):
        return torch.empty(tuple(shape), device=device, dtype=dtype)


def zeros(shape: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """As ``memory``, but of zeros."""
    with torch.inference_mode(False):
        return torch.zeros(tuple(shape), device=device, dtype=dtype)
