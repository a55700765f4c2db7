"""Contents without a model: what each token of a replayed context holds, exactly reproducible.

Numbers are small integers, so that every sum a cache makes of them (the positional correction of a slid window) is
exact in float32, float16 and bfloat16 alike, in any order: contents are compared bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xxhash

from kvcache import TOKENS_PER_STEP, Geometry

__all__ = [
    "NO_CONTEXT", "Contents", "as_batch", "extend_context", "generated_context", "latents_of", "mix", "mix_rows",
]  # fmt: skip

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_LARGEST_BASE = 64  # token contents lie in [-64, 63]
_LARGEST_POSITION = 32  # a position adds integers in [-32, 31]

# Identities of contexts: each follows from the context before and the key that was appended.
NO_CONTEXT = 0
_GENERATED = 1


def mix(*numbers: int) -> int:
    """A well-spread 64-bit number that depends on all of ``numbers`` and their order (SplitMix64's finaliser)."""
    state = 0
    for number in numbers:
        state = _spread((state + number + _GOLDEN) & _MASK)
    return state


def mix_rows(*numbers: Any) -> np.ndarray:
    """``mix`` of arrays of 64-bit numbers, element by element; they broadcast against each other."""
    state: Any = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        state = _spread(state + number + np.uint64(_GOLDEN))
    spread: np.ndarray = state
    return spread


def _spread(word: Any) -> Any:
    """A 64-bit number, or an array of them: all bits of the result depend on all of ``word``."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)


def extend_context(context: int, key: int) -> int:
    """The context of ``key``, reached from ``context`` by one step."""
    return xxhash.xxh64_intdigest((context << 64 | key).to_bytes(16, "little"))


def generated_context(key: int) -> int:
    """The context that a model makes for ``key`` after a miss: the observation alone."""
    return xxhash.xxh64_intdigest(key.to_bytes(8, "little"), _GENERATED)


def _words(seeds: Any, count: int) -> np.ndarray:
    """``[n, count]`` 64-bit words that follow from ``seeds`` ``[n]``."""
    first = np.asarray(seeds, dtype=np.uint64)[:, None]
    words: np.ndarray = _spread(np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + first)
    return words


def _small_integers(seeds: Any, count: int, bound: int) -> np.ndarray:
    """``[n, count]`` integers in ``[-bound, bound)``, int8, of ``seeds`` ``[n]``; ``bound`` is a power of two."""
    octets = _words(seeds, -(-count // 8)).astype("<u8", copy=False).view(np.uint8)[:, :count]
    return (octets & np.uint8(2 * bound - 1)).view(np.int8) - np.int8(bound)


def latents_of(keys: Sequence[int], width: int) -> np.ndarray:
    """The latents that a replay uses for a trace's keys: ``[n, width]``, float32 in [0, 1)."""
    return (_words(keys, width) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def as_batch(tokens: np.ndarray, geometry: Geometry, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
    """Tokens ``[..., n, L x 2 x H x D]`` as a cache has them: ``[..., L, 2, H, n, D]``."""
    *rows, n, _ = tokens.shape
    shaped = tokens.reshape(*rows, n, geometry.num_layers, 2, geometry.num_heads, geometry.head_dim)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(shaped, len(rows), -2))).to(device=device, dtype=dtype)


class Contents:
    """The contents of tokens and positions of one geometry, ``N = L x 2 x H x D`` integers each.

    Attributes:
        positions: what a position adds to K and V, ``[T, N]``: nothing where positions are rotary.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self.width = geometry.num_layers * 2 * geometry.embed_dim  # N
        self.positions = np.zeros((geometry.context_length, self.width), dtype=np.int8)
        if geometry.positions == "absolute":
            seeds = [mix(_MASK, position) for position in range(geometry.context_length)]
            self.positions[:] = _small_integers(seeds, self.width, _LARGEST_POSITION)
        self._kept = max(geometry.slid_size, 0)  # tokens, when a window slides

    def tokens(self, seeds: Any) -> np.ndarray:
        """Tokens without their positions, ``[n, N]``, int8, of 64-bit ``seeds`` ``[n]``."""
        return _small_integers(seeds, self.width, _LARGEST_BASE)

    def position_shift(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor | None:
        """``PE[new] - PE[old]`` of the tokens that a slide keeps, ``[L, 2, H, n, D]``; None with rotary positions."""
        if not self.positions.any() or not self._kept:
            return None
        old = self.positions[TOKENS_PER_STEP : TOKENS_PER_STEP + self._kept]
        return as_batch(self.positions[: self._kept] - old, self._geometry, device, dtype)
