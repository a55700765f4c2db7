"""Cache keys: a latent state's 64-bit hash, the same on any device.

A key is of a latent's numbers, whatever holds them: of their float32 bytes, in C order. A float64 or integer latent
that float32 cannot hold exactly is hashed in its own type, so that two such latents have two keys. The shape is no part
of a key. Equal numbers of other bytes are other latents: 0.0 and -0.0, and each payload of a NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xxhash

__all__ = ["Latents", "hash_state", "hash_states", "on_host", "rows_of"]

Latents = torch.Tensor | np.ndarray

_FLOAT32 = np.dtype(np.float32)
_REAL = "fiub"  # of NumPy's kinds
_LARGEST_ITEM = 8  # bytes; a wider float has padding in its bytes


def on_host(latents: Latents) -> np.ndarray:
    """The latents as a contiguous array on the host: of float32, or of their own type if that cannot hold them.

    At most one transfer.

    Raises:
        TypeError: they are neither a tensor nor an array.
        ValueError: they are no real numbers.
    """
    if isinstance(latents, torch.Tensor):
        if latents.dtype.is_floating_point and latents.dtype.itemsize < _FLOAT32.itemsize:
            latents = latents.float()  # it holds each of their numbers
        latents = latents.numpy(force=True)
    elif not isinstance(latents, (np.ndarray, np.generic)):
        raise TypeError(f"a latent must be a tensor or an array, got {type(latents).__name__}")
    if latents.dtype is _FLOAT32:
        return np.ascontiguousarray(latents)
    if latents.dtype.kind not in _REAL or latents.dtype.itemsize > _LARGEST_ITEM:
        hint = ": give real and imaginary parts as two channels" if latents.dtype.kind == "c" else ""
        raise ValueError(f"a latent must be real numbers of at most 64 bits, got {latents.dtype}{hint}")
    return _narrowed(np.ascontiguousarray(latents, dtype=latents.dtype.newbyteorder("=")))


def _narrowed(latents: np.ndarray) -> np.ndarray:
    """The latents in float32 if that holds all their numbers, to the bit; else as they are."""
    with np.errstate(invalid="ignore", over="ignore"):
        narrow = latents.astype(np.float32)
        back = narrow.astype(latents.dtype)
    return narrow if back.tobytes() == latents.tobytes() else latents


def hash_state(latent: Latents) -> int:
    """xxh64 of the latent's float32 bytes, as an integer in ``[0, 2**64)``.

    The first lines of this module say what that is for other types. LightZero's ``hash_state`` (0.2.0,
    ``unizero_world_models/utils.py``) returns the same number in hex.

    Args:
        latent: one latent state, of any shape.

    Raises:
        TypeError: it is neither a tensor nor an array.
        ValueError: it is no real numbers, or none at all.
    """
    latent = on_host(latent)
    if not latent.size:
        raise ValueError(f"a latent of shape {list(latent.shape)} is empty: all of them would have one key")
    return xxhash.xxh64_intdigest(latent.data)


def hash_states(latents: Latents) -> Sequence[int]:
    """Keys of a batch: ``hash_state`` of every row, with one transfer to the host.

    Args:
        latents: ``[B, ...]``, one latent state per row.

    Raises:
        TypeError, ValueError: as ``hash_state``.
    """
    latents = on_host(latents)
    if not latents.size and len(latents):
        raise ValueError(f"latents of shape {list(latents.shape)} are empty: all of them would have one key")
    return list(map(xxhash.xxh64_intdigest, latents if latents.dtype is _FLOAT32 else rows_of(latents)))


def rows_of(latents: np.ndarray) -> list[np.ndarray]:
    """The rows of latents from ``on_host``, each as it is hashed: in float32 if that holds all numbers of the row."""
    rows = list(latents)
    return rows if latents.dtype is _FLOAT32 else list(map(_narrowed, rows))
