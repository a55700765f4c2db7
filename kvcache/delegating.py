"""A cache that leaves its work to another one: the common part of ``ObservedCache`` and ``ShadowCache``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from kvcache.backend import CacheBackend, Scope
from kvcache.keys_values import KeysValues

if TYPE_CHECKING:
    from kvcache.shadow import ShadowReport

__all__ = ["DelegatingCache"]


class DelegatingCache(CacheBackend):
    """Keys, batch, pools, counters and memory are those of another cache; subclasses pass on its other calls.

    Args:
        backend: the cache that does the work.
    """

    def __init__(self, backend: CacheBackend) -> None:
        self._backend = backend
        self.name, self.config, self.stats_enabled = backend.name, backend.config, backend.stats_enabled
        self.init_pools, self.recur_pool, self.wm_pool = backend.init_pools, backend.recur_pool, backend.wm_pool
        self.hierarchy_stats = backend.hierarchy_stats

    @property
    def keys_values_wm(self) -> KeysValues:  # type: ignore[override]  # it is never assigned here
        return self._backend.keys_values_wm

    @property
    def keys_values_wm_list(self) -> list[KeysValues | None]:  # type: ignore[override]
        return self._backend.keys_values_wm_list

    @property
    def keys_values_wm_size_list(self) -> list[int]:  # type: ignore[override]
        return self._backend.keys_values_wm_size_list

    @property
    def position_shift(self) -> Tensor | None:
        """As in ``CacheBackend``."""
        return self._backend.position_shift

    @position_shift.setter
    def position_shift(self, shift: Tensor | None) -> None:
        self._backend.position_shift = shift

    @property
    def report(self) -> ShadowReport | None:
        return self._backend.report

    @property
    def stale_hits(self) -> int | None:
        return self._backend.stale_hits

    @property
    def batch_bytes(self) -> int:
        return self._backend.batch_bytes

    def hash_states(self, latents: Tensor | np.ndarray) -> Sequence[int]:
        return self._backend.hash_states(latents)

    def is_stale(self, env: int, key: int, scope: Scope) -> bool:
        return self._backend.is_stale(env, key, scope)

    def row_start(self, row: int) -> int:
        return self._backend.row_start(row)
