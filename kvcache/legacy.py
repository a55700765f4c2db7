"""The caches that the new one is measured against, faults included.

They are written anew from the behaviour of LightZero: 0.2.0 as released on PyPI
(``lzero/model/unizero_world_models/world_model.py``), the later state in which init writes evict actively, and main of
2026-08 (commit 9f717c80), in which recurrent writes do so too.
The costs are the same too: one ``copy_`` per layer and per K/V at full ``context_length``, row by row.

Three things differ from 0.2.0 on purpose. A root row is stored by its own size, without its front padding;
0.2.0 keeps the padding and uses the batch's size. The positional correction does not change the batch cache, at the
same cost; 0.2.0 writes it through where no padding is cut. A batch may have more rows than there are environments, as
in a search of several leaves: the scratch pool gets a slot for each, where 0.2.0 would overwrite the first rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kvcache.backend import EMPTY, MISS, CacheBackend, Scope
from kvcache.checks import (
    OrderError,
    check_environments,
    check_hashable,
    check_info,
    check_position_shift,
    check_priorities,
    check_rows,
    check_supplied,
)
from kvcache.config import CacheConfig
from kvcache.eviction import SearchInfo
from kvcache.geometry import check_row
from kvcache.hashing import hash_state
from kvcache.keys import KeyVerifier
from kvcache.keys_values import KeysValues
from kvcache.legacy_pool import LegacyPool, empty_entry
from kvcache.stats import CacheStats
from kvcache.storage.base import check_entry
from kvcache.threads import make_thread_safe

__all__ = ["LEGACY", "LEGACY_0_2_0", "LEGACY_MAIN", "LegacyCache", "LegacyVariant", "RecurrentMissError"]


@dataclass(frozen=True)
class LegacyVariant:
    """How one state of the legacy code differs from another.

    Attributes:
        name: of the backend.
        evicts_on_init: an init write first deletes the key that owned the slot.
        fails_on_recurrent_miss: a recurrent miss indexes a list with None.
        init_pool_size: slots per environment where the code fixes them; None follows the configuration.
        evicts_on_recur: a recurrent write does so too.
    """

    name: str
    evicts_on_init: bool
    fails_on_recurrent_miss: bool
    init_pool_size: int | None
    evicts_on_recur: bool = False


LEGACY = LegacyVariant("legacy", evicts_on_init=True, fails_on_recurrent_miss=False, init_pool_size=None)
LEGACY_0_2_0 = LegacyVariant("legacy-0.2.0", evicts_on_init=False, fails_on_recurrent_miss=True, init_pool_size=2)
LEGACY_MAIN = LegacyVariant(
    "legacy-main", True, fails_on_recurrent_miss=False, init_pool_size=None, evicts_on_recur=True
)


class RecurrentMissError(TypeError):
    """A recurrent miss in LightZero 0.2.0, which ends the run; the rows that missed are in ``rows``."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows
        super().__init__(
            f"rows {rows} of a recurrent lookup missed: LightZero 0.2.0 raises TypeError here "
            "(list indices must be integers or slices, not NoneType)"
        )


class LegacyCache(CacheBackend):
    """The legacy cache of one variant; see the module's first lines.

    Args:
        config: what to build for; eviction strategy and storage have no meaning here.
        variant: which state of the legacy code.
    """

    stats_enabled = True
    init_pools: list[LegacyPool]
    recur_pool: LegacyPool
    wm_pool: LegacyPool

    def __init__(self, config: CacheConfig, variant: LegacyVariant = LEGACY) -> None:
        self.name = variant.name
        self.config = config
        self.variant = variant
        geometry = config.geometry
        given = config.init_pool_size is not None or config.init_pool_bytes is not None
        init_pool_size = config.init_entries if given else variant.init_pool_size or config.init_entries
        self.init_pools = [LegacyPool(init_pool_size, variant.evicts_on_init) for _ in range(geometry.env_num)]
        self.recur_pool = LegacyPool(config.recur_entries, variant.evicts_on_recur)
        self.wm_pool = LegacyPool(geometry.env_num, evicts=False)
        self.hierarchy_stats = CacheStats()
        self.verifier = KeyVerifier() if config.verify_keys else None
        self._batch = self._empty_batch(geometry.env_num)
        self._shift: Tensor | None = None
        self.keys_values_wm_list = []
        self.keys_values_wm_size_list: list[int] = []
        for pool in (*self.init_pools, self.recur_pool, self.wm_pool):
            pool.thread = self.thread
        if config.thread_safe:
            make_thread_safe(self)

    def _empty_batch(self, rows: int) -> KeysValues:
        geometry = self.config.geometry
        return empty_entry(
            rows,
            geometry.num_heads,
            geometry.context_length,
            geometry.head_dim,
            geometry.num_layers,
            self.config.device,
            self.config.dtype,
        )

    @property
    def keys_values_wm(self) -> KeysValues:
        """As in ``CacheBackend``."""
        return self._batch

    @keys_values_wm.setter
    def keys_values_wm(self, batch: KeysValues) -> None:
        self._batch = batch

    @property
    def position_shift(self) -> Tensor | None:
        """As in ``CacheBackend``."""
        return self._shift

    @position_shift.setter
    def position_shift(self, shift: Tensor | None) -> None:
        self.thread.check()
        check_position_shift(self.config.geometry, shift)
        self._shift = shift

    def renew_batch(self) -> None:
        self._batch = self._empty_batch(self.config.geometry.env_num)

    def hash_states(self, latents: Tensor | np.ndarray) -> Sequence[int]:
        """Row by row, as the legacy code does: on a GPU one transfer and one synchronisation each."""
        keys = [hash_state(latents[row]) for row in range(len(latents))]
        return keys if self.verifier is None else self.verifier.verified(keys, latents)

    def lookup(self, envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> list[int]:
        self.thread.take()
        check_rows(scope, len(envs), keys=keys)
        check_environments(envs, len(self.init_pools))
        self.wm_pool.lengthen(len(envs))
        rows: list[KeysValues | None] = []
        sizes = []
        missed = []
        for row, (env, key) in enumerate(zip(envs, keys, strict=True)):
            found = None if key is None else self._find(env, key, scope)
            if found is None:
                rows.append(None)
                sizes.append(EMPTY if key is None else MISS)
                if key is not None:
                    missed.append(row)
            else:
                _, copy = self.wm_pool.write(found)
                rows.append(copy)
                sizes.append(found.size)
        self.keys_values_wm_list = rows
        self.keys_values_wm_size_list = sizes
        if missed and scope is Scope.NODE and self.variant.fails_on_recurrent_miss:
            raise RecurrentMissError(missed)
        return sizes.copy()

    def _find(self, env: int, key: int, scope: Scope) -> Any | None:
        found = self.init_pools[env].get(key)
        if scope is Scope.ROOT:
            return found
        if found is None:
            found = self.recur_pool.get(key)
        self.hierarchy_stats.count(found is not None, found is None)
        return found

    def is_stale(self, env: int, key: int, scope: Scope) -> bool:
        """As in ``CacheBackend``: the key's slot was overwritten since it was stored."""
        found = self.init_pools[env].owner(key)
        if found is None and scope is Scope.NODE:
            found = self.recur_pool.owner(key)
        return found is not None and found != key

    @property
    def stale_hits(self) -> int | None:
        """None: the legacy code takes a stale hit for a hit."""
        return None

    def supply(self, row: int, keys_values: KeysValues) -> None:
        self.thread.check()
        check_row(row, len(self.keys_values_wm_list))
        check_entry(keys_values)
        self.keys_values_wm_list[row] = keys_values
        self.keys_values_wm_size_list[row] = keys_values.size

    def assemble(self) -> list[int]:
        self.thread.check()
        sizes = self.keys_values_wm_size_list
        if not sizes:
            raise OrderError("there is no batch to assemble: call lookup with one row or more first")
        check_supplied(sizes)
        longest = max(sizes)
        if longest == EMPTY:  # the first step of all environments: LightZero starts from a fresh batch cache
            self.keys_values_wm = self._empty_batch(len(sizes))
            return sizes
        rows = [row if row is not None else self._empty_batch(1) for row in self.keys_values_wm_list]
        for layer, batch in enumerate(self.keys_values_wm):
            keys, values = [], []
            for row, size in zip(rows, sizes, strict=True):
                keys.append(_pad_front(row[layer]._k_cache._cache, longest - size))
                values.append(_pad_front(row[layer]._v_cache._cache, longest - size))
            batch._k_cache._cache = torch.stack(keys, dim=0).squeeze(1)
            batch._v_cache._cache = torch.stack(values, dim=0).squeeze(1)
            batch._k_cache._size = longest
            batch._v_cache._size = longest
        return sizes

    def store(
        self,
        envs: Sequence[int],
        keys: Sequence[int],
        scope: Scope,
        priorities: Sequence[float] | None = None,
        info: SearchInfo | None = None,
    ) -> None:
        self.thread.check()
        geometry = self.config.geometry
        if not geometry.keeps_past:
            return
        sizes = self.keys_values_wm_size_list
        check_rows(scope, len(sizes), envs=envs, keys=keys)
        check_environments(envs, len(self.init_pools))
        check_hashable(keys)
        check_priorities(scope, len(sizes), priorities)
        if info is not None:
            check_info(info, len(sizes), "store")
        longest = max(sizes)
        appended = self.keys_values_wm.size - longest
        for row, (env, key, size) in enumerate(zip(envs, keys, sizes, strict=True)):
            single = self._take_row(row, longest - size, size + appended)
            pool = self.recur_pool if scope is Scope.NODE else self.init_pools[env]
            pool.set(key, single)

    def _take_row(self, row: int, padding: int, size: int) -> KeysValues:
        """One row without its front padding, its window slid where it is full."""
        first, count = self.config.geometry.window(size)
        layers = []
        for layer, batch in enumerate(self.keys_values_wm):
            pair = []
            for kind, cache in enumerate((batch._k_cache._cache[row], batch._v_cache._cache[row])):
                single = F.pad(cache[:, padding:, :], (0, 0, 0, padding)) if padding > 0 else cache
                if first:
                    kept = single[:, first : first + count, :]
                    single = F.pad(kept, (0, 0, 0, self.config.geometry.context_length - count))
                    if self.position_shift is not None:
                        single[:, :count, :] += self.position_shift[layer, kind]
                pair.append(single.unsqueeze(0))
            layers.append((pair[0], pair[1]))
        return KeysValues.from_layers(layers, count)

    def clear_all(self) -> None:
        super().clear_all()
        self.keys_values_wm_list = []

    @property
    def batch_bytes(self) -> int:
        return sum(cache.nbytes for cache in self._batch.layer_tensors())


def _pad_front(cache: Tensor, padding: int) -> Tensor:
    """``cache`` ``[1, H, T, D]`` moved ``padding`` positions back, zeros in front."""
    return F.pad(cache[:, :, :-padding, :], (0, 0, padding, 0)) if padding > 0 else cache
