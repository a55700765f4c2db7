"""What LightZero's own cache does not say of itself: its stale hits, which it takes for hits, and its bytes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

__all__ = ["StaleHits", "own_cache_bytes"]


class _Slots(defaultdict[str, Any]):
    """A dict from keys to slots that counts the lookups whose slot was overwritten by another key."""

    def __init__(self, *content: Any) -> None:
        self.stale_hits = 0
        self._owners: dict[int, str] = {}
        super().__init__(*content)

    def get(self, key: str, default: Any = None) -> Any:
        slot = super().get(key, default)
        self.stale_hits += slot is not None and self._owners[slot] != key
        return slot

    def __setitem__(self, key: str, slot: int) -> None:
        super().__setitem__(key, slot)
        self._owners[slot] = key


class StaleHits:
    """Counts those of a world model, from now on.

    Args:
        world_model: LightZero's, with LightZero's own cache, in which nothing is stored yet.
    """

    def __init__(self, world_model: Any) -> None:
        self._dicts = [_Slots(dict) for _ in world_model.past_kv_cache_init_infer_envs]
        self._recur = _Slots(dict)
        world_model.past_kv_cache_init_infer_envs = self._dicts
        world_model.past_kv_cache_recurrent_infer = self._recur

    @property
    def count(self) -> int:
        """So far."""
        return sum(each.stale_hits for each in (*self._dicts, self._recur))


def own_cache_bytes(model: Any) -> int:
    """Of all contexts that LightZero's own cache holds, and of its batch."""
    pools = (*model.shared_pool_init_infer, model.shared_pool_recur_infer, model.shared_pool_wm, [model.keys_values_wm])
    return sum(
        cache._cache.nbytes
        for pool in pools
        for context in pool
        if context is not None
        for layer in context._keys_values
        for cache in (layer._k_cache, layer._v_cache)
    )
