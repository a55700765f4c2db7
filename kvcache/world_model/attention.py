"""Attention to a context: to one that new tokens are appended to, or to one that is only read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kvcache.keys_values import KVCache

__all__ = ["Attend", "ReadOnlyContext", "append_and_attend", "attend_beside"]

# What attends: a layer's context, then query, key and value of the new tokens, each [B, H, n, D], and a mask.
Attend = Callable[[Any, Tensor, Tensor, Tensor, Tensor | None], Tensor]


def append_and_attend(cache: KVCache, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Append new keys and values to a layer's context and attend to all of it.

    Args:
        cache: of the layer, ``size`` tokens in it; ``size + n`` afterwards.
        query: ``[B, H, n, D]``.
        key: likewise.
        value: likewise.
        mask: ``[B or 1, 1, n, size + n]``, bool: what may be attended to; None allows everything.

    Returns:
        ``[B, H, n, D]``.
    """
    cache.update(key, value)
    return F.scaled_dot_product_attention(query, *cache.get(), attn_mask=mask)


class _ReadOnlyLayer:
    """A layer's keys and values ``[B, H, T, D]``, which stay as they are, and new ones beside them."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.new_keys, self.new_values = keys[:, :, :0], values[:, :, :0]


class ReadOnlyContext:
    """The contexts of all layers as a compiled function takes them: it writes to none of its arguments.

    torch.compile would copy a whole batch to write two tokens to it.

    Args:
        layers: keys and values of each layer, ``[B, H, T, D]``.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.layers = [_ReadOnlyLayer(*layer) for layer in layers]

    def __getitem__(self, layer: int) -> _ReadOnlyLayer:
        return self.layers[layer]

    @property
    def size(self) -> int:
        """Tokens, new ones among them."""
        first = self.layers[0]
        return first.keys.shape[2] + first.new_keys.shape[2]

    @property
    def new(self) -> list[tuple[Tensor, Tensor]]:
        """New keys and values of each layer, ``[B, H, n, D]``."""
        return [(layer.new_keys, layer.new_values) for layer in self.layers]


def attend_beside(layer: _ReadOnlyLayer, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """As ``append_and_attend``, with new keys and values beside the others: one softmax over the products with both."""
    layer.new_keys = torch.cat([layer.new_keys, key], dim=2)
    layer.new_values = torch.cat([layer.new_values, value], dim=2)
    products = torch.cat([query @ layer.keys.transpose(2, 3), query @ layer.new_keys.transpose(2, 3)], dim=3)
    scores = products.float() * query.shape[3] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights, size = scores.softmax(dim=3).to(value.dtype), layer.keys.shape[2]
    attended: Tensor = weights[..., :size] @ layer.values + weights[..., size:] @ layer.new_values
    return attended
