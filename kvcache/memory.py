"""Tensors for contents: allocated outside of inference mode, so that they can be written to at any time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kvcache.geometry import is_whole

__all__ = ["check_sizes", "check_tokens", "memory", "sample_mask", "zeros"]


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


def check_sizes(num_samples: int, num_heads: int, max_tokens: int, embed_dim: int, num_layers: int) -> None:
    """Raise ValueError unless all sizes of ``KeysValues`` are positive integers, and heads divide the width."""
    sizes = num_samples, num_heads, max_tokens, embed_dim, num_layers
    if not all(is_whole(size) and size > 0 for size in sizes) or embed_dim % num_heads:
        raise ValueError(
            "KeysValues needs positive sizes and an embed_dim that num_heads divides, got "
            f"{num_samples=}, {num_heads=}, {max_tokens=}, {embed_dim=}, {num_layers=}"
        )


def check_tokens(cache: Tensor, dimensions: str, size: int) -> None:
    """Raise ValueError unless a tensor has these dimensions, the last but one of tokens, and room for ``size``."""
    if cache.ndim != dimensions.count(",") + 1:
        raise ValueError(f"keys and values are [{dimensions}], got {list(cache.shape)}")
    if not 0 <= size <= cache.shape[-2]:
        raise ValueError(f"there is room for 0..{cache.shape[-2]} tokens, got {size!r}")


def sample_mask(mask: np.ndarray | Tensor | Sequence[bool], cache: Tensor) -> Tensor:
    """A boolean mask ``[B]`` on the cache's device. Raises ValueError for one of another length or type."""
    keep = torch.as_tensor(mask, device=cache.device)
    if keep.dtype != torch.bool or tuple(keep.shape) != (cache.shape[0],):
        raise ValueError(
            f"prune needs one boolean per row, [{cache.shape[0]}], got {keep.dtype} of shape {tuple(keep.shape)}"
        )
    return keep
