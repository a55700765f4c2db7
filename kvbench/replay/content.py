"""Contents without a model: what each token of a replayed context holds, exactly reproducible.

Numbers are small integers, so that every sum a cache makes of them (the positional correction of a slid window) is
exact in float32, float16 and bfloat16 alike, in any order: contents are compared bit for bit.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from kvcache import TOKENS_PER_STEP, Geometry

__all__ = ["NO_CONTEXT", "Contents", "as_entry", "extend_context", "generated_context", "latent_of", "mix"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_LARGEST_BASE = 64  # token contents lie in [-64, 63]
_LARGEST_POSITION = 32  # a position adds integers in [-32, 31]
_TOKENS_REMEMBERED = 4096

# Identities of contexts: each follows from the context before and the key that was appended.
NO_CONTEXT = 0
_GENERATED = 1


def mix(*numbers: int) -> int:
    """A well-spread 64-bit number that depends on all of ``numbers`` and their order (SplitMix64's finaliser)."""
    state = 0
    for number in numbers:
        state = _spread((state + number + _GOLDEN) & _MASK)
    return state


def _spread(word: Any) -> Any:
    """A 64-bit number, or an array of them: all bits of the result depend on all of ``word``."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)


def extend_context(context: int, key: int) -> int:
    """The context of ``key``, reached from ``context`` by one step."""
    return mix(context, key)


def generated_context(key: int) -> int:
    """The context that a model makes for ``key`` after a miss: the observation alone."""
    return mix(_GENERATED, key)


def _words(seed: int, count: int) -> np.ndarray:
    """``count`` 64-bit words that follow from ``seed``."""
    words: np.ndarray = _spread(np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(seed))
    return words


def _small_integers(seed: int, shape: tuple[int, ...], bound: int) -> np.ndarray:
    """Integers in ``[-bound, bound)``, int8; ``bound`` is a power of two."""
    count = math.prod(shape)
    octets = _words(seed, -(-count // 8)).astype("<u8").view(np.uint8)[:count].reshape(shape)
    return (octets & np.uint8(2 * bound - 1)).astype(np.int8) - np.int8(bound)


def latent_of(key: int, width: int) -> np.ndarray:
    """The latent that a replay uses for a trace's key: ``[width]``, float32 in [0, 1)."""
    return ((_words(key, width) >> np.uint64(40)).astype(np.float32)) / np.float32(1 << 24)


def as_entry(tokens: np.ndarray, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
    """Tokens ``[n, L, 2, H, D]`` as a cache has them: ``[L, 2, H, n, D]``."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(tokens, 0, 3))).to(device=device, dtype=dtype)


class Contents:
    """The contents of tokens and positions of one geometry.

    Attributes:
        positions: what a position adds to K and V, ``[T, L, 2, H, D]``: nothing where positions are rotary.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._shape = (geometry.num_layers, 2, geometry.num_heads, geometry.head_dim)
        self.positions = np.zeros((geometry.context_length, *self._shape), dtype=np.int8)
        if geometry.positions == "absolute":
            for position in range(geometry.context_length):
                self.positions[position] = _small_integers(mix(_MASK, position), self._shape, _LARGEST_POSITION)
        self._kept = max(geometry.slid_size, 0)  # tokens, when a window slides
        self.token = lru_cache(maxsize=_TOKENS_REMEMBERED)(self._token)

    def _token(self, context: int, index: int) -> np.ndarray:
        """Token ``index`` of the last step of ``context``, without its position: ``[L, 2, H, D]``, int8."""
        return _small_integers(mix(context, index), self._shape, _LARGEST_BASE)

    def sequence(self, tokens: list[tuple[int, int]], first: int = 0) -> np.ndarray:
        """K and V of ``(context, index)`` tokens from position ``first`` on: ``[n, L, 2, H, D]``, int8."""
        base = np.stack([self.token(context, index) for context, index in tokens])
        return base + self.positions[first : first + len(tokens)]

    def position_shift(self, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor | None:
        """``PE[new] - PE[old]`` of the tokens that a slide keeps, ``[L, 2, H, n, D]``; None with rotary positions."""
        if not self.positions.any() or not self._kept:
            return None
        old = self.positions[TOKENS_PER_STEP : TOKENS_PER_STEP + self._kept]
        return as_entry(self.positions[: self._kept] - old, device, dtype)
