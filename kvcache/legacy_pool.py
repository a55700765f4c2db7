"""A pool of the legacy caches: a dict of keys, and slots that are written in a circle."""

from __future__ import annotations

from typing import Any

import torch

from kvcache.eviction import EntryInfo
from kvcache.geometry import is_whole
from kvcache.keys_values import KeysValues, memory
from kvcache.stats import CacheStats
from kvcache.threads import OneThread

__all__ = ["LegacyPool", "empty_entry"]

_HALF_WRITTEN: Any = object()  # owns the slot of a write that was cut off: no key is equal to it


class LegacyPool:
    """A dict from key to slot, and slots that are written in a circle, whether or not the dict still names them.

    Args:
        pool_size: number of slots.
        evicts: whether a write first removes the key that owned the slot.
        copies: whether an entry is copied into its slot's own memory, as in LightZero; otherwise the slot holds the
            object that was stored, of any type.

    Raises:
        ValueError: ``pool_size`` is not positive.
    """

    def __init__(self, pool_size: int, evicts: bool, *, copies: bool = True) -> None:
        if not is_whole(pool_size) or pool_size <= 0:
            raise ValueError(f"a legacy pool needs a positive number of slots, got {pool_size!r}")
        self.pool_size = pool_size
        self.evicts = evicts
        self.copies = copies
        self.index: dict[int, int] = {}
        self.slots: list[Any | None] = [None] * pool_size
        self.owners: list[int | None] = [None] * pool_size
        self.position = 0
        self.stats = CacheStats()
        self.thread = OneThread()

    def get(self, key: int) -> Any | None:
        """The present content of the slot that the dict names for ``key``: after an overwrite, another key's."""
        self.thread.take()
        slot = self.index.get(key)
        if slot is None:
            self.stats.count(0, 1)
            return None
        self.stats.count(1, 0)
        return self.slots[slot]

    def lengthen(self, slots: int) -> None:
        """Add slots, where there are fewer than so many."""
        more = slots - self.pool_size
        if more > 0:
            self.slots += [None] * more
            self.owners += [None] * more
            self.pool_size = slots

    def owner(self, key: int) -> int | None:
        """The key whose content is in the slot that the dict names for ``key``; None where it names none."""
        self.thread.check()
        slot = self.index.get(key)
        return None if slot is None else self.owners[slot]

    def write(self, keys_values: Any) -> tuple[int, Any]:
        """Write the next slot of the circle, allocated on first use. Returns its number and its content."""
        slot, self.position = self.position, (self.position + 1) % self.pool_size
        if not self.copies:
            self.slots[slot] = keys_values
            return slot, keys_values
        target = self.slots[slot]
        if target is None:
            target = self.slots[slot] = _empty_like(keys_values)
        for source_layer, target_layer in zip(keys_values, target, strict=True):
            target_layer._k_cache._cache.copy_(source_layer._k_cache._cache)
            target_layer._v_cache._cache.copy_(source_layer._v_cache._cache)
            target_layer._k_cache._size = source_layer._k_cache._size
            target_layer._v_cache._size = source_layer._v_cache._size
        return slot, target

    def set(self, key: int, value: Any, priority: float | None = None, info: EntryInfo | None = None) -> None:
        """Store ``value`` in the next slot of the circle. The priority has no effect, nor what is known of it."""
        self.thread.take()
        hash(key)  # a key without one would be found out after the slot was written
        owner = self.owners[self.position]
        if owner is not None and owner != key and owner in self.index:
            if self.evicts:
                # The key is removed wherever it points by now: one that was updated since is in another slot, and is
                # lost all the same.
                del self.index[owner]
                self.stats.evictions += 1
            elif self.index[owner] == self.position:
                self.stats.evictions += 1
        self.owners[self.position] = _HALF_WRITTEN  # should this be cut off, the content is of no key
        slot, _ = self.write(value)
        self.index[key] = slot
        self.owners[slot] = key

    def __len__(self) -> int:
        """Keys in the dict: more than there are slots where overwritten keys are kept."""
        return len(self.index)

    def clear(self) -> None:
        """Remove the keys; slots and the write position stay as they are."""
        self.thread.check()
        self.index.clear()

    @property
    def bytes_reserved(self) -> int:
        return sum(cache.nbytes for slot in self.slots if slot is not None for cache in slot.layer_tensors())


def empty_entry(
    rows: int, heads: int, tokens: int, head_dim: int, layers: int, device: torch.device | str, dtype: torch.dtype
) -> KeysValues:
    """Separate, uninitialised tensors for each layer's keys and values, as LightZero allocates them."""
    shape = (rows, heads, tokens, head_dim)
    return KeysValues.from_layers([(memory(shape, device, dtype), memory(shape, device, dtype)) for _ in range(layers)])


def _empty_like(keys_values: KeysValues) -> KeysValues:
    layers, _, heads, tokens, head_dim = keys_values.entry_shape
    return empty_entry(keys_values.num_samples, heads, tokens, head_dim, layers, keys_values.device, keys_values.dtype)
