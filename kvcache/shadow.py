"""Two caches on the same requests, compared at every retrieval: trust before a swap."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvcache.backend import EMPTY, MISS, CacheBackend, Scope
from kvcache.checks import OrderError, check_environments, check_hashable, check_info, check_priorities, check_rows
from kvcache.delegating import DelegatingCache
from kvcache.eviction import SearchInfo
from kvcache.keys_values import KeysValues
from kvcache.legacy import RecurrentMissError
from kvcache.threads import join_copies

__all__ = ["LOGGED_STALE_HITS", "CacheMismatchError", "ShadowCache", "ShadowReport"]

_log = logging.getLogger(__name__)

LOGGED_STALE_HITS = 5  # in full; the report counts them all

_ROUNDINGS = 8  # of a token corrected when it is read, against one corrected slide by slide


class CacheMismatchError(RuntimeError):
    """Two caches returned different contexts for one key."""


@dataclass
class ShadowReport:
    """Results of the comparisons.

    Attributes:
        lookups: rows that were looked up.
        compared: contexts that both caches found, and that are the same.
        largest_difference: between two elements of these contexts.
        stale_hits: rows for which one of the caches found another key's context.
        only_primary: contexts that only the primary found, stale hits left out.
        only_shadow: contexts that only the shadow found, stale hits left out.
    """

    lookups: int = 0
    compared: int = 0
    largest_difference: float = 0.0
    stale_hits: int = 0
    only_primary: int = 0
    only_shadow: int = 0


class ShadowCache(DelegatingCache):
    """One cache in use, and another that gets the same calls.

    The model gets the primary's contexts, stale hits included; the first stale hits are logged. Both caches store the
    primary's contexts. So where one cache misses and the other does not, later contexts are still the same.

    Args:
        primary: whose contexts are used.
        shadow: whose contexts are compared with them.

    Attributes:
        report: results so far.
        init_pools, recur_pool, wm_pool: of the primary, to be read; ``clear()`` reaches both caches.
    """

    _pools_are_only_read = True

    def __init__(self, primary: CacheBackend, shadow: CacheBackend) -> None:
        super().__init__(primary)
        self.primary, self.shadow = primary, shadow
        self.wants_info = primary.wants_info or shadow.wants_info
        join_copies(shadow, primary)
        self.name = f"{primary.name} shadowed by {shadow.name}"
        self._report = ShadowReport()
        self._asked: list[tuple[int, int | None]] = []  # environment and key of each row
        self._found: list[int] = []
        self._found_by_shadow: list[int] = []
        self._stale: set[int] = set()
        self._supplied: set[int] = set()
        self._is_assembled = False
        self._logged_infinite = False

    @property
    def report(self) -> ShadowReport:
        return self._report

    @property
    def stale_hits(self) -> int | None:
        """Those of the primary. The report counts them for a cache that does not."""
        own = self.primary.stale_hits
        return self._report.stale_hits if own is None else own

    @property
    def position_shift(self) -> Tensor | None:
        """As in ``CacheBackend``, of both."""
        return self.primary.position_shift

    @position_shift.setter
    def position_shift(self, shift: Tensor | None) -> None:
        self.primary.position_shift = self.shadow.position_shift = shift

    def release_thread(self) -> None:
        self.primary.release_thread()
        self.shadow.release_thread()

    def lookup(self, envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> list[int]:
        self.thread.take()
        check_rows(scope, len(envs), keys=keys)
        check_environments(envs, len(self.init_pools))
        self._is_assembled = False
        self._asked = list(zip(envs, keys, strict=True))
        self._supplied.clear()
        self._stale = {
            row
            for row, (env, key) in enumerate(self._asked)
            for cache in (self.primary, self.shadow)
            if key is not None and cache.is_stale(env, key, scope)
        }
        for row in sorted(self._stale):
            self._count_stale_hit(*self._asked[row])
        try:
            self._found_by_shadow = list(self.shadow.lookup(envs, keys, scope))
        except RecurrentMissError:
            self._found_by_shadow = list(self.shadow.keys_values_wm_size_list)
        self._found = [MISS] * len(self._asked)
        self._found = list(self.primary.lookup(envs, keys, scope))
        return self._found.copy()

    def _count_stale_hit(self, env: int, key: int | None) -> None:
        self.report.stale_hits += 1
        if self.report.stale_hits <= LOGGED_STALE_HITS:
            last = "; further ones are counted and not logged" * (self.report.stale_hits == LOGGED_STALE_HITS)
            _log.warning(
                "%s: stale hit: another key's context is found under key %#018x of environment %d%s",
                self.name,
                key,
                env,
                last,
            )

    def supply(self, row: int, keys_values: KeysValues) -> None:
        self.primary.supply(row, keys_values)
        self._supplied.add(row)

    def assemble(self) -> list[int]:
        """As in ``CacheBackend``.

        Raises:
            CacheMismatchError: both caches found a context, and the two differ.
        """
        sizes = self.primary.assemble()
        compared = [row for row in range(len(sizes)) if self._is_compared(row)]
        for row, size in enumerate(sizes):
            if row not in compared and size != EMPTY:  # both go on from the model's context
                self.shadow.supply(row, self.primary.row_context(row))
        self.shadow.assemble()
        self._is_assembled = True
        for row in compared:
            self._compare(row, sizes[row])
        return sizes

    def _is_compared(self, row: int) -> bool:
        found, by_shadow = self._found[row], self._found_by_shadow[row]
        if self._asked[row][1] is None:
            return False
        self.report.lookups += 1
        if row in self._stale:
            return False
        if MISS in (found, by_shadow):
            self.report.only_primary += found != MISS
            self.report.only_shadow += by_shadow != MISS
            return False
        if row in self._supplied:  # it replaced an empty context that both found: only the sizes can be compared
            self._compare_sizes(row, found)
            self.report.compared += 1
            return False
        return True

    def _compare(self, row: int, size: int) -> None:
        where = self._compare_sizes(row, size)
        ours, theirs = (
            cache.keys_values_wm.block[row].narrow(3, cache.row_start(row), size)
            for cache in (self.primary, self.shadow)
        )
        equal = (ours == theirs) | (ours.isnan() & theirs.isnan())  # an overflow of the model's is in both
        by_layer = (ours - theirs).abs().masked_fill(equal, 0).amax(dim=(1, 2, 3, 4)) if size else torch.zeros(1)
        largest = float(by_layer.max())
        finite = ours.masked_fill(~self._finite(ours, where), 0)
        allowed = float(torch.finfo(ours.dtype).eps) * _ROUNDINGS * float(finite.abs().max()) if size else 0.0
        if self.position_shift is None:
            allowed = 0.0  # no token is ever corrected
        if not largest <= allowed:
            layer = int(by_layer.argmax())
            raise CacheMismatchError(
                f"{where}, layer {layer}: contexts of {self.primary.name} and {self.shadow.name} differ by "
                f"{largest:.3g} at most; rounding explains {allowed:.3g}"
            )
        self.report.compared += 1
        self.report.largest_difference = max(self.report.largest_difference, largest)

    def _finite(self, context: Tensor, where: str) -> Tensor:
        """Which elements are finite; the first others are logged, once."""
        finite = context.isfinite()
        if not self._logged_infinite and not finite.all():
            self._logged_infinite = True
            _log.warning("%s: contexts of the model hold NaN or infinity: this and further ones are not logged", where)
        return finite

    def _compare_sizes(self, row: int, size: int) -> str:
        """Raise CacheMismatchError unless both found equally many tokens. Returns the context's name for errors."""
        env, key = self._asked[row]
        where = f"key {key:#018x} of environment {env}"
        if self._found_by_shadow[row] != size:
            raise CacheMismatchError(
                f"{where}: {self.primary.name} has a context of {size} tokens, {self.shadow.name} one of "
                f"{self._found_by_shadow[row]}"
            )
        return where

    def store(
        self,
        envs: Sequence[int],
        keys: Sequence[int],
        scope: Scope,
        priorities: Sequence[float] | None = None,
        info: SearchInfo | None = None,
    ) -> None:
        self.thread.check()
        sizes = self.keys_values_wm_size_list
        if not self._is_assembled or not sizes:  # one of both might not look
            raise OrderError("the batch is not assembled: call lookup and assemble, then store")
        check_rows(scope, len(sizes), envs=envs, keys=keys)
        check_environments(envs, len(self.init_pools))
        check_hashable(keys)
        check_priorities(scope, len(sizes), priorities)
        self.shadow.keys_values_wm.size = longest = max(sizes)  # a store before may have been refused, or was another
        for ours, theirs in zip(self.shadow.keys_values_wm, self.primary.keys_values_wm, strict=True):
            ours.update(*(each[:, :, longest:] for each in theirs.get()))
        if info is not None:
            check_info(info, len(sizes), "store")
        for cache in (self.primary, self.shadow):
            cache.store(envs, keys, scope, priorities, *(() if info is None else (info,)))

    def clear_recur_cache(self) -> None:
        self.primary.clear_recur_cache()
        self.shadow.clear_recur_cache()

    def clear_init_caches(self, envs: Sequence[int] | None = None) -> None:
        self.primary.clear_init_caches(envs)
        self.shadow.clear_init_caches(envs)

    def clear_all(self) -> None:
        self.primary.clear_all()
        self.shadow.clear_all()

    def _clear_scratch(self) -> None:
        self.primary.wm_pool.clear()
        self.shadow.wm_pool.clear()

    def reset_stats(self) -> None:
        self.thread.check()
        self.primary.reset_stats()
        self.shadow.reset_stats()
        self._report = ShadowReport()
