"""A causal transformer that keeps its keys and values in a ``KeysValues``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kvcache.geometry import TOKENS_PER_STEP, Geometry
from kvcache.keys_values import KeysValues
from kvcache.world_model.attention import Attend, ReadOnlyContext, append_and_attend

__all__ = ["Transformer"]

_ROTARY_BASE = 10000.0

Rotation = tuple[Tensor, Tensor]


def rotation(positions: Tensor, head_dim: int, dtype: torch.dtype) -> Rotation:
    """The angles of rotary positions (Su et al. 2021, "RoFormer"); they are the same for all heads and layers.

    Args:
        positions: ``[B, n]``, int64, in tokens.
        head_dim: D, even.
        dtype: of what is turned.

    Returns:
        cosines and sines, each ``[B, 1, n, D / 2]``.
    """
    half = head_dim // 2
    # In float64: a long episode's positions times the fastest frequency lose their fraction in float32.
    frequencies = _ROTARY_BASE ** (-torch.arange(half, device=positions.device, dtype=torch.float64) / half)
    angles = (positions.to(torch.float64)[:, None, :, None] * frequencies).remainder(2 * torch.pi).float()
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotated(x: Tensor, by: Rotation) -> Tensor:
    """Each pair of numbers turned by an angle that grows with position.

    Args:
        x: ``[B, H, n, D]``; number ``i`` of the first half makes a pair with number ``i`` of the second.
        by: see ``rotation``.

    Returns:
        ``[B, H, n, D]``, as long as ``x``.
    """
    half = x.shape[-1] // 2
    cosine, sine = by
    even, odd = x[..., :half], x[..., half:]
    return torch.cat([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)


class SelfAttention(nn.Module):
    """Attention of new tokens to all cached ones and to each other."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.num_heads = geometry.num_heads
        self.key, self.query, self.value, self.projection = (
            nn.Linear(geometry.embed_dim, geometry.embed_dim) for _ in range(4)
        )

    def heads(self, x: Tensor) -> Tensor:
        """``[B, n, E]`` to ``[B, H, n, D]``."""
        return x.view(*x.shape[:2], self.num_heads, x.shape[2] // self.num_heads).transpose(1, 2)

    def forward(
        self, x: Tensor, turned: Rotation | None, cache: Any, mask: Tensor | None, attend: Attend = append_and_attend
    ) -> Tensor:
        """Attend to the layer's context and to the new tokens.

        Args:
            x: ``[B, n, E]``.
            turned: by which rotation keys and queries are turned; None where positions are absolute.
            cache: of this layer, as ``attend`` takes it.
            mask: ``[B or 1, 1, n, size + n]``, bool: what may be attended to; None allows everything.
            attend: to the context, and what becomes of new keys and values.

        Returns:
            ``[B, n, E]``: what was attended to, projected.
        """
        query, key, value = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
        if turned is not None:
            query, key = rotated(query, turned), rotated(key, turned)
        attended = attend(cache, query, key, value, mask)
        result: Tensor = self.projection(attended.transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    """Attention and a perceptron, each behind a normalisation and around a shortcut."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        width = geometry.embed_dim
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(geometry)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, turned: Rotation | None, cache: Any, mask: Tensor | None, attend: Attend) -> Tensor:
        """``[B, n, E]`` to ``[B, n, E]``; the other arguments are those of ``SelfAttention.forward``."""
        x = x + self.attention(self.attention_norm(x), turned, cache, mask, attend)
        result: Tensor = x + self.perceptron(self.perceptron_norm(x))
        return result


class Transformer(nn.Module):
    """As many blocks as the geometry has layers.

    With absolute positions a learned vector of its position is added to each token; with rotary ones keys and queries
    are turned.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.positions: nn.Embedding | None = None
        if geometry.positions == "absolute":
            self.positions = nn.Embedding(geometry.context_length, geometry.embed_dim)
        self.blocks = nn.ModuleList(Block(geometry) for _ in range(geometry.num_layers))
        self.norm = nn.LayerNorm(geometry.embed_dim)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        cache: KeysValues | ReadOnlyContext,
        padding: Tensor | None = None,
        attend: Attend = append_and_attend,
    ) -> Tensor:
        """Outputs ``[B, n, E]`` of new tokens, whose keys and values are appended to ``cache``.

        Args:
            x: tokens ``[B, n, E]``.
            positions: ``[B, n]``, int64: in the context where positions are absolute, in the episode where rotary.
            cache: the contexts of all rows, padded to ``size`` tokens; ``size + n`` afterwards.
            padding: ``[B, size]``, bool: true where no token attends; with None all attend to padding too.
            attend: to a context of this kind.
        """
        turned = None
        if self.positions is not None:
            x = x + self.positions(positions)
        else:
            turned = rotation(positions, self.geometry.head_dim, x.dtype)
        mask = self._mask(x.shape[1], cache.size, padding, x.device)
        for number, block in enumerate(self.blocks):
            x = block(x, turned, cache[number], mask, attend)
        result: Tensor = self.norm(x)
        return result

    @staticmethod
    def _mask(new: int, size: int, padding: Tensor | None, device: torch.device) -> Tensor | None:
        """The attention mask of new tokens: all before them except padding, and each other up to themselves.

        Args:
            new: tokens, n.
            size: tokens of the padded contexts before them.
            padding: ``[B, size]``, bool: true where no token attends; with None all attend to padding too.
            device: of the mask.

        Returns:
            ``[B or 1, 1, n, size + n]``, bool, true where there is attention; None where it is everywhere.
        """
        if new == 1 and padding is None:
            return None
        causal = torch.ones(new, new, dtype=torch.bool, device=device).tril()
        past = torch.ones(1, size, dtype=torch.bool, device=device) if padding is None else ~padding
        rows = past.shape[0]
        return torch.cat([past[:, None].expand(rows, new, size), causal.expand(rows, new, new)], dim=2).unsqueeze(1)

    @torch.no_grad()
    def position_shift(self) -> Tensor | None:
        """The correction of cached tokens when a window slides (SPEC 3.3); None with rotary positions.

        ``[L, 2, H, context_length - 3, D]``: of each layer, its key and value weights times ``PE[i] - PE[i + 2]``. It
        is exact where keys are linear in the position vector, which the normalisation in front of them prevents.
        """
        if self.positions is None or not self.geometry.keeps_past:
            return None
        kept, table = self.geometry.slid_size, self.positions.weight
        change = table[:kept] - table[TOKENS_PER_STEP : TOKENS_PER_STEP + kept]
        shifts = []
        for block in self.blocks:
            attention = block.attention
            weights = attention.key.weight, attention.value.weight  # type: ignore[union-attr]
            shifts.append(torch.stack([attention.heads((change @ each.T)[None])[0] for each in weights]))  # type: ignore[union-attr,operator]
        return torch.stack(shifts)
