"""A causal transformer that keeps its keys and values in a ``KeysValues``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from kvcache.geometry import TOKENS_PER_STEP, Geometry
from kvcache.keys_values import KeysValues
from kvcache.world_model.attention import Attend, ReadOnlyContext, append_and_attend
from kvcache.world_model.direct import Call, DirectModule, direct, is_plain, linear

__all__ = ["Transformer"]

_ROTARY_BASE = 10000.0

Rotation = tuple[Tensor, ...]  # cosines and sines
Places = tuple[Tensor, ...]


def rotation(positions: Tensor, head_dim: int, dtype: torch.dtype) -> Rotation:
    """The angles of rotary positions (Su et al. 2021, "RoFormer"); they are the same for all heads and layers.

    Args:
        positions: ``[B, n]``, int64, in tokens.
        head_dim: D, even.
        dtype: of what is turned.

    Returns:
        cosines ``[B, 1, n, D]`` and sines, negative for the first half; see ``rotated``.
    """
    half = head_dim // 2
    # In float64: a long episode's positions times the fastest frequency lose their fraction in float32.
    frequencies = _ROTARY_BASE ** (-torch.arange(half, device=positions.device, dtype=torch.float64) / half)
    angles = (positions.to(torch.float64)[:, None, :, None] * frequencies).remainder(2 * torch.pi).float()
    cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)


def rotated(x: Tensor, by: Rotation) -> Tensor:
    """Each pair of numbers turned by an angle that grows with position.

    Args:
        x: ``[B, H, n, D]``; number ``i`` of the first half makes a pair with number ``i`` of the second.
        by: see ``rotation``.

    Returns:
        ``[B, H, n, D]``, as long as ``x``.
    """
    cosine, sine = by
    return x * cosine + x.roll(x.shape[-1] // 2, -1) * sine


class SelfAttention(DirectModule):
    """Attention of new tokens to all cached ones and to each other."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.num_heads = geometry.num_heads
        self.key, self.query, self.value, self.projection = (
            nn.Linear(geometry.embed_dim, geometry.embed_dim) for _ in range(4)
        )
        self._pack()

    @torch.no_grad()
    def _pack(self) -> None:
        """Put the weights of queries, keys and values into one block of memory, in this order."""
        layers = self.query, self.key, self.value
        for name in ("weight", "bias"):
            parts = [getattr(layer, name) for layer in layers]
            if _block_of(parts) is None:
                for part, place in zip(parts, torch.cat(parts).chunk(len(parts)), strict=True):
                    part.data = place
        self.prepare()

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)
        self._pack()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._pack()

    def bind(self) -> tuple[Call, Call]:
        """Queries, keys and values side by side, which are one product where their weights are in one block; and the
        projection.
        """
        layers = self.query, self.key, self.value
        if all(map(is_plain, layers)):
            weight, bias = (_block_of([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
            if weight is not None and bias is not None:
                return linear(weight, bias), direct(self.projection)
        calls = [direct(layer) for layer in layers]
        return lambda x: torch.cat([call(x) for call in calls], dim=-1), direct(self.projection)

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
        rows, new, width = x.shape
        heads = self.num_heads
        queries_keys_values, project = self._calls
        parts = queries_keys_values(x).view(rows, new, 3 * heads, width // heads).transpose(1, 2)
        turning, value = parts[:, : 2 * heads], parts[:, 2 * heads :]
        if turned is not None:
            turning = rotated(turning, turned)
        query, key = turning[:, :heads], turning[:, heads:]
        attended = attend(cache, query, key, value, mask)
        result: Tensor = project(attended.transpose(1, 2).reshape(rows, new, width))
        return result


def _block_of(parts: Sequence[Tensor]) -> Tensor | None:
    """Tensors that lie in memory one behind the other, as one; None where they do not."""
    first = parts[0].detach()
    starts = [first.data_ptr() + number * first.nbytes for number in range(len(parts))]
    storage = first.untyped_storage().data_ptr()
    for part, start in zip(parts, starts, strict=True):
        alike = part.shape == first.shape and part.dtype == first.dtype and part.is_contiguous()
        if not alike or part.untyped_storage().data_ptr() != storage or part.data_ptr() != start:
            return None
    return first.as_strided((len(parts) * first.shape[0], *first.shape[1:]), first.stride())


class Block(DirectModule):
    """Attention and a perceptron, each behind a normalisation and around a shortcut."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        width = geometry.embed_dim
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(geometry)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.prepare()

    def bind(self) -> tuple[Call, ...]:
        """As ``DirectModule``'s: the two normalisations, attention, and the perceptron's layers."""
        return tuple(map(direct, (self.attention_norm, self.perceptron_norm, self.attention, *self.perceptron)))

    def forward(self, x: Tensor, turned: Rotation | None, cache: Any, mask: Tensor | None, attend: Attend) -> Tensor:
        """``[B, n, E]`` to ``[B, n, E]``; the other arguments are those of ``SelfAttention.forward``."""
        attention_norm, perceptron_norm, attention, *perceptron = self._calls
        x = x + attention(attention_norm(x), turned, cache, mask, attend)
        inner = perceptron_norm(x)
        for layer in perceptron:
            inner = layer(inner)
        result: Tensor = x + inner
        return result


class Transformer(DirectModule):
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
        self.prepare()

    def bind(self) -> tuple[Call | None, Sequence[Call], Call]:
        """As ``DirectModule``'s: the table of positions, the blocks, and the normalisation behind them."""
        table = None if self.positions is None else direct(self.positions)
        return table, list(map(direct, self.blocks)), direct(self.norm)

    def places(self, positions: Tensor, dtype: torch.dtype) -> Places:
        """What tokens get of their positions ``[B, n]``, int64: of each tensor ``n`` is the last dimension but one.

        Positions are those in the context where they are absolute, and in the episode where rotary.
        """
        table = self._calls[0]
        return rotation(positions, self.geometry.head_dim, dtype) if table is None else (table(positions),)

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
            positions: see ``places``.
            cache: the contexts of all rows, padded to ``size`` tokens; ``size + n`` afterwards.
            padding: ``[B, size]``, bool: true where no token attends; with None all attend to padding too.
            attend: to a context of this kind.
        """
        return self.placed(x, self.places(positions, x.dtype), cache, padding, attend)

    def placed(
        self, x: Tensor, places: Places, cache: KeysValues | ReadOnlyContext, padding: Tensor | None, attend: Attend
    ) -> Tensor:
        """As ``forward``, with what ``places`` made of positions."""
        table, blocks, norm = self._calls
        turned = places if table is None else None
        if table is not None:
            x = x + places[0]
        mask = self._mask(x.shape[1], cache.size, padding, x.device)
        for number, block in enumerate(blocks):
            x = block(x, turned, cache[number], mask, attend)
        result: Tensor = norm(x)
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
        """The correction of cached tokens when a window slides; None with rotary positions.

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
