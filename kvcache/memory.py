"""Tensors for contents: allocated outside of inference mode, so that they can be written to at any time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["memory", "sample_mask", "zeros"]


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


def sample_mask(mask: np.ndarray | Tensor | Sequence[bool], cache: Tensor) -> Tensor:
    """A boolean mask ``[B]`` on the cache's device. Raises ValueError for one of another length or type."""
    keep = torch.as_tensor(mask, device=cache.device)
    if keep.dtype != torch.bool or tuple(keep.shape) != (cache.shape[0],):
        raise ValueError(
            f"prune needs one boolean per row, [{cache.shape[0]}], got {keep.dtype} of shape {tuple(keep.shape)}"
        )
    return keep
