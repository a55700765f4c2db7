"""Cache keys: a latent state's 64-bit hash, the same on any device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xxhash

__all__ = ["hash_state", "hash_states"]

Latents = torch.Tensor | np.ndarray


def _host_float32(latents: Latents) -> np.ndarray:
    """The latents as a contiguous float32 array on the host: at most one transfer."""
    if isinstance(latents, torch.Tensor):
        if latents.dtype is not torch.float32 or not latents.is_cpu:
            latents = latents.to(device="cpu", dtype=torch.float32)
        latents = latents.numpy(force=True)
    return np.ascontiguousarray(latents, dtype=np.float32)


def hash_state(latent: Latents) -> int:
    """xxh64 of the latent's float32 bytes, as an integer in ``[0, 2**64)``.

    LightZero's ``hash_state`` (0.2.0, ``unizero_world_models/utils.py``) returns the same number in hex.

    Args:
        latent: one latent state, of any shape.
    """
    return xxhash.xxh64_intdigest(_host_float32(latent).data)


def hash_states(latents: Latents) -> Sequence[int]:
    """Keys of a batch: ``hash_state`` of every row, with one transfer to the host.

    Args:
        latents: ``[B, ...]``, one latent state per row.
    """
    return list(map(xxhash.xxh64_intdigest, _host_float32(latents)))
