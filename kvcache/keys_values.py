"""The containers: one layer's keys or values, one layer's pair, and all layers of a batch.

The three levels are those of IRIS (eloialonso/iris, ``kv_caching.py``) and of LightZero. A LightZero 0.2.0 model reads
the attributes ``_keys_values``, ``_k_cache``, ``_v_cache``, ``_cache`` and ``_size``, so they have the same names here.
Here all layers are in one block of memory, and a whole sample is one copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvcache.journal import Journal
from kvcache.memory import check_sizes, check_tokens, memory, sample_mask, zeros

__all__ = ["Cache", "Journal", "KVCache", "KeysValues", "memory", "zeros"]

TOKENS_PER_PAIR = 2


class Cache:
    """The keys or the values of one layer: a tensor ``[B, H, T_max, D]`` and the number of its live tokens."""

    __slots__ = ("_cache", "_journal", "_noted", "_size")

    def __init__(self, cache: Tensor, size: int = 0, journal: Journal | None = None) -> None:
        check_tokens(cache, "B, H, T_max, D", size)
        self._cache = cache
        self._size = size
        self._journal = journal
        self._noted = cache  # the journal is about this tensor; a caller may replace it

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(B, H, live tokens, D)``."""
        samples, heads, _, head_dim = self._cache.shape
        return samples, heads, self._size, head_dim

    @property
    def size(self) -> int:
        return self._size

    def reset(self) -> None:
        """Forget all tokens; the memory stays."""
        self._size = 0

    def prune(self, mask: np.ndarray | Tensor | Sequence[bool]) -> None:
        """Keep the samples whose entry in ``mask`` ``[B]`` is true."""
        self._cache = self._cache[sample_mask(mask, self._cache)]

    def get(self) -> Tensor:
        """The live tokens, ``[B, H, size, D]``: a view."""
        return self._cache.narrow(2, 0, self._size)

    def update(self, x: Tensor) -> None:
        """Append ``x`` ``[B, H, n, D]`` along tokens.

        Stored tokens carry no autograd graph. When there is no room the oldest tokens are dropped, in even numbers, so
        that observation-action pairs stay whole.

        Raises:
            ValueError: ``x`` does not fit the cache's other dimensions, or has more tokens than the cache can hold.
        """
        samples, heads, capacity, head_dim = self._cache.shape
        shape = x.shape
        new = shape[2] if len(shape) == 4 else 0
        if shape != (samples, heads, new, head_dim):
            raise ValueError(f"cannot append {tuple(shape)} to a cache of [{samples}, {heads}, n, {head_dim}]")
        missing = self._size + new - capacity
        if missing > 0:
            self._drop_oldest(missing, new)
            if self._journal is not None:
                self._journal.dropped = True
        self._cache.narrow(2, self._size, new).copy_(x.detach() if x.requires_grad else x)
        if self._journal is not None and self._cache is self._noted:
            self._journal.note(self._size)
        self._size += new

    def _drop_oldest(self, missing: int, new: int) -> None:
        if new > self._cache.shape[2]:
            raise ValueError(f"cannot append {new} tokens to a cache of {self._cache.shape[2]}")
        dropped = min(missing + missing % TOKENS_PER_PAIR, self._size)
        kept = self._size - dropped
        # The two ranges overlap when few tokens are dropped: without a clone the copy would read what it wrote.
        self._cache[:, :, :kept, :] = self._cache[:, :, dropped : self._size, :].clone()
        self._size = kept


class KVCache:
    """One layer: a ``Cache`` of keys and one of values, of one size."""

    __slots__ = ("_k_cache", "_v_cache")

    def __init__(self, k_cache: Cache, v_cache: Cache) -> None:
        self._k_cache = k_cache
        self._v_cache = v_cache

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(B, H, live tokens, D)``."""
        return self._k_cache.shape

    @property
    def size(self) -> int:
        return self._k_cache._size

    def reset(self) -> None:
        self._k_cache.reset()
        self._v_cache.reset()

    def prune(self, mask: np.ndarray | Tensor | Sequence[bool]) -> None:
        self._k_cache.prune(mask)
        self._v_cache.prune(mask)

    def get(self) -> tuple[Tensor, Tensor]:
        """Live keys and live values, each a view ``[B, H, size, D]``."""
        return self._k_cache.get(), self._v_cache.get()

    def update(self, k: Tensor, v: Tensor) -> None:
        """Append keys and values ``[B, H, n, D]``, both or neither.

        Raises:
            ValueError: they differ in shape, or do not fit (see ``Cache.update``).
        """
        if k.shape != v.shape:
            raise ValueError(f"cannot append keys {tuple(k.shape)} with values {tuple(v.shape)}: a token has both")
        self._k_cache.update(k)
        self._v_cache.update(v)


class KeysValues:
    """The keys and values of all layers for ``num_samples`` rows, in one block ``[B, L, 2, H, T_max, D]``.

    Args:
        num_samples: rows, B.
        num_heads: attention heads, H.
        max_tokens: most tokens a row can hold, T_max.
        embed_dim: embedding width, E = H x D.
        num_layers: layers, L.
        device: where the block lives.
        dtype: of the elements.

    Raises:
        ValueError: a size is not positive, or ``embed_dim`` is no multiple of ``num_heads``.
    """

    # The arguments of LightZero's class of this name: its models call it.
    def __init__(
        self, num_samples: int, num_heads: int, max_tokens: int, embed_dim: int, num_layers: int,
        device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        check_sizes(num_samples, num_heads, max_tokens, embed_dim, num_layers)
        shape = (num_samples, num_layers, 2, num_heads, max_tokens, embed_dim // num_heads)
        self._adopt(zeros(shape, device, dtype), 0)

    @classmethod
    def from_block(cls, block: Tensor, size: int = 0, journal: Journal | None = None) -> KeysValues:
        """Containers around a block ``[B, L, 2, H, T_max, D]`` of any strides; nothing is copied.

        Args:
            block: the memory.
            size: live tokens.
            journal: records all appends.
        """
        keys_values = cls.__new__(cls)
        keys_values._adopt(block, size, journal)
        return keys_values

    @classmethod
    def from_layers(cls, layers: Sequence[tuple[Tensor, Tensor]], size: int = 0) -> KeysValues:
        """Containers around separate tensors, a K and a V ``[B, H, T_max, D]`` per layer; nothing is copied."""
        keys_values = cls.__new__(cls)
        keys_values._layers([(Cache(k, size), Cache(v, size)) for k, v in layers])
        keys_values._block = None
        keys_values._views = ()
        return keys_values

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle holds the block or the layers: of both it would make unrelated tensors."""
        if self.holds_block:
            return KeysValues.from_block, (self._block, self.size)
        return KeysValues.from_layers, ([(each._k_cache._cache, each._v_cache._cache) for each in self], self.size)

    def _adopt(self, block: Tensor, size: int, journal: Journal | None = None) -> None:
        check_tokens(block, "B, L, 2, H, T, D", size)
        self._block: Tensor | None = block
        pairs = [layer.unbind(1) for layer in block.unbind(1)]  # several times as fast as indexing layer by layer
        self._views: tuple[Tensor, ...] = tuple(view for pair in pairs for view in pair)
        self._layers([(Cache(k, size, journal), Cache(v, size, journal)) for k, v in pairs])

    def _layers(self, pairs: Sequence[tuple[Cache, Cache]]) -> None:
        self._keys_values = tuple(KVCache(*pair) for pair in pairs)
        self._caches = tuple(cache for pair in pairs for cache in pair)

    def __getitem__(self, layer: int) -> KVCache:
        return self._keys_values[layer]

    def __len__(self) -> int:
        """Number of layers."""
        return len(self._keys_values)

    def __iter__(self) -> Iterator[KVCache]:
        return iter(self._keys_values)

    @property
    def size(self) -> int:
        """Live tokens (of the first layer, as LightZero reads it)."""
        return self._keys_values[0]._k_cache._size

    @size.setter
    def size(self, size: int) -> None:
        check_tokens(self._caches[0]._cache, "B, H, T_max, D", size)
        self.resize(size)

    def resize(self, size: int) -> None:
        """Set the size, for callers that know that there is room."""
        for cache in self._caches:
            cache._size = size

    def note_appended(self, count: int) -> None:
        """Count tokens that a write past torch, such as a CUDA graph's, put behind the live ones of all layers."""
        first = self._caches[0]
        torch.autograd.graph.increment_version(first._cache)
        if first._journal is not None:
            first._journal.note(first._size)
        self.resize(first._size + count)

    @property
    def sizes_agree(self) -> bool:
        """Whether all layers have equally many live tokens."""
        sizes = [cache._size for cache in self._caches]
        return sizes.count(sizes[0]) == len(sizes)

    @property
    def num_samples(self) -> int:
        return self._keys_values[0]._k_cache._cache.shape[0]

    @property
    def entry_shape(self) -> tuple[int, int, int, int, int]:
        """``(L, 2, H, T_max, D)``: the shape of one row."""
        _, heads, tokens, head_dim = self._keys_values[0]._k_cache._cache.shape
        return len(self._keys_values), 2, heads, tokens, head_dim

    @property
    def device(self) -> torch.device:
        return self._keys_values[0]._k_cache._cache.device

    @property
    def dtype(self) -> torch.dtype:
        return self._keys_values[0]._k_cache._cache.dtype

    @property
    def holds_block(self) -> bool:
        """Whether all layers are still views of one block.

        False where they were made from separate tensors, and where a caller has replaced a layer's tensors, as
        LightZero's ``trim_and_pad_kv_cache`` does.
        """
        return self._block is not None and all(map(is_, self.layer_tensors(), self._views))

    def is_view_of(self, block: Tensor) -> bool:
        """Whether this was made of ``block`` and all layers are still views of it."""
        return self._block is block and self.holds_block

    @property
    def block(self) -> Tensor:
        """All layers as ``[B, L, 2, H, T_max, D]``: a view where ``holds_block``, else a stacked copy."""
        if self.holds_block:
            assert self._block is not None
            return self._block
        caches = self.layer_tensors()
        samples, heads, tokens, head_dim = caches[0].shape
        return torch.stack(caches, dim=1).view(samples, len(self._keys_values), 2, heads, tokens, head_dim)

    def reset(self) -> None:
        """Forget all tokens; the memory stays."""
        self.size = 0

    def prune(self, mask: np.ndarray | Tensor | Sequence[bool]) -> None:
        """Keep the rows whose entry in ``mask`` ``[B]`` is true. Raises ValueError for a mask of another length."""
        block = self.block
        self._adopt(block[sample_mask(mask, block)], self.size)

    def clone(self) -> KeysValues:
        """An independent copy of the live tokens, without their graph; memory beyond them is zero."""
        size, block = self.size, self.block.detach()
        copy = zeros(block.shape, block.device, block.dtype)
        copy[..., :size, :].copy_(block[..., :size, :])
        return KeysValues.from_block(copy, size)

    def layer_tensors(self) -> list[Tensor]:
        """K and V of every layer in turn, each ``[B, H, T_max, D]``."""
        return [cache._cache for cache in self._caches]
