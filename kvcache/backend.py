"""The one interface that everything above a cache sees: searches, recorders, replays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from kvcache.config import CacheConfig
from kvcache.eviction import SearchInfo
from kvcache.geometry import check_row, is_whole
from kvcache.keys import KeyVerifier
from kvcache.keys_values import KeysValues, zeros
from kvcache.stats import CacheStats
from kvcache.threads import OneThread

if TYPE_CHECKING:
    from kvcache.shadow import ShadowReport

__all__ = ["EMPTY", "MISS", "CacheBackend", "Scope"]

# What ``lookup`` reports instead of a size: nothing found; and a row that starts without any context.
MISS = -1
EMPTY = 0


class Scope(Enum):
    """The two kinds of inference."""

    ROOT = "root"  # initial inference: looks up and stores in the environment's own init pool
    NODE = "node"  # recurrent inference: looks up init, then recur; stores in recur


class Pool(Protocol):
    """The common part of all backends' pools.

    Attributes:
        pool_size: number of slots.
        stats: its counters.
    """

    pool_size: int
    stats: CacheStats

    def __len__(self) -> int:
        """Keys that a lookup finds something under."""

    def clear(self) -> None:
        """Remove all keys."""

    @property
    def bytes_reserved(self) -> int:
        """Bytes of tensor memory that the pool holds."""


class CacheBackend(ABC):
    """A cache as a world model's inference uses it, batch by batch.

    One inference is, in this order: ``hash_states`` of the parents, ``lookup``, ``supply`` for every row that missed,
    ``assemble``; then the model appends its new tokens to ``keys_values_wm``; then ``hash_states`` of the new latents
    and ``store``. Nothing is stored or cleared between a ``lookup`` and its ``assemble``. A backend never calls the
    model.

    A cache belongs to the thread that first looks something up or stores it. Calls of another one raise
    ``ThreadError``. With ``CacheConfig.thread_safe`` all threads may call it (see ``exclusive``).

    Attributes:
        name: the name it was built under.
        config: what it was built from.
        stats_enabled: whether queries and evictions are counted.
        init_pools: one of each environment.
        recur_pool: the one that all environments share.
        wm_pool: scratch, for a batch that is being assembled.
        hierarchy_stats: of recurrent lookups, init and recur taken together: one query a row.
        keys_values_wm: the batch cache, ``[B, H, T, D]`` per layer; its size is the longest row's.
        keys_values_wm_list: the context of each row of the batch, KeysValues of one row; None for a row that begins
            empty, or that missed and was not supplied yet.
        keys_values_wm_size_list: live tokens of each row of the batch, before the model appended any.
        position_shift: added to the kept tokens when a window slides, ``[L, 2, H, context_length - 3, D]``; None with
            rotary positions.
        wants_info: whether ``info`` of ``store`` is used. A caller may leave it out otherwise.
        verifier: makes keys that can be told apart although their numbers are one; None with plain numbers as keys.
    """

    name: str
    config: CacheConfig
    stats_enabled: bool
    init_pools: Sequence[Pool]
    recur_pool: Pool
    wm_pool: Pool
    hierarchy_stats: CacheStats
    keys_values_wm: KeysValues
    keys_values_wm_list: list[KeysValues | None]
    keys_values_wm_size_list: list[int]
    position_shift: Tensor | None = None
    wants_info: bool = False
    verifier: KeyVerifier | None = None

    @cached_property
    def thread(self) -> OneThread:
        """The thread that the cache belongs to."""
        return OneThread()

    def release_thread(self) -> None:
        """Let another thread have the cache: the next one that uses it.

        Raises:
            ThreadError: the cache belongs to another thread than the calling one, and that thread has not ended.
        """
        self.thread.release()

    def exclusive(self) -> AbstractContextManager[None]:
        """``with cache.exclusive():`` around one inference, or whatever else consists of several calls.

        With ``CacheConfig.thread_safe`` other threads wait meanwhile. A cache of one thread only checks which one
        that is. In ``with`` blocks the same thread may enter again.
        """
        self.thread.check()
        return nullcontext()

    def renew_batch(self) -> None:  # noqa: B027 - a batch may have no memory of its own
        """Give the next batch other memory: another thread may still write to the present one's."""

    @abstractmethod
    def hash_states(self, latents: Tensor | np.ndarray) -> Sequence[int]:
        """Cache keys of a batch of latents ``[B, ...]``; with ``CacheConfig.verify_keys`` each is a ``VerifiedKey``."""

    @abstractmethod
    def lookup(self, envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> list[int]:
        """Look up the context of each row; starts a new batch.

        Args:
            envs: the environment of each row.
            keys: the parent's key of each row; None for a row that starts empty and is no query.
            scope: ROOT looks into the environment's init pool; NODE then into the recurrent pool.

        Returns:
            Live tokens of each row's context; ``MISS``, ``EMPTY``.
        """

    def is_stale(self, env: int, key: int, scope: Scope) -> bool:
        """Whether a lookup would now return another key's content under ``key``; it counts as no query.

        False for backends that never do so.

        Args:
            env: the environment of the row.
            key: the parent's key.
            scope: as in ``lookup``.
        """
        return False

    @property
    def stale_hits(self) -> int | None:
        """Rows for which a lookup returned another key's content; None where they are not counted."""
        return 0

    @property
    def collisions(self) -> int | None:
        """Keys that met another latent's key of the same number (see ``KeyVerifier``); None where nobody looks."""
        return None if self.verifier is None else self.verifier.collisions

    @property
    def report(self) -> ShadowReport | None:
        """Results of a comparison of two caches; None for a single cache."""
        return None

    @abstractmethod
    def supply(self, row: int, keys_values: KeysValues) -> None:
        """Take the context that the model made for a row that missed: KeysValues of one row.

        Raises:
            IndexError: the batch has no such row.
            ValueError: it has more than one row, layers of unlike sizes, or another shape than the batch's rows (this
                last by new backends only).
        """

    @abstractmethod
    def assemble(self) -> list[int]:
        """Put all rows into ``keys_values_wm``, filled up with zeros to the longest, and return their sizes.

        The zeros are in front of a row's tokens; a resident batch has them behind (see ``row_start``).
        Until the rows are stored, a model only appends.

        Raises:
            OrderError: nothing was looked up, or a row that missed was not supplied.
        """

    @abstractmethod
    def store(
        self,
        envs: Sequence[int],
        keys: Sequence[int],
        scope: Scope,
        priorities: Sequence[float] | None = None,
        info: SearchInfo | None = None,
    ) -> None:
        """Store each row of the batch, as the model left it, under its new latent's key.

        Front padding is undone and a context about to overflow slides its window (``Geometry.window``). Nothing is
        stored when the geometry keeps no past. The batch cache is not modified.

        Args:
            envs: the environment of each row.
            keys: the new key of each row.
            scope: ROOT stores into the environment's init pool, NODE into the recurrent pool.
            priorities: of each row, for backends that evict by priority.
            info: what the search knows of the rows, for backends that want it (``wants_info``).

        Raises:
            OrderError: the batch is not assembled (new backends only). Nothing is changed then.
            TypeError, ValueError: an argument is not one for each row, or cannot be stored. Nothing is changed then.
        """

    def row_start(self, row: int) -> int:
        """Where the tokens of a row begin in ``keys_values_wm``; the positions before and behind them are zero."""
        sizes = self.keys_values_wm_size_list
        check_row(row, len(sizes))
        return max(sizes) - sizes[row]

    def row_context(self, row: int) -> KeysValues:
        """A copy of a row's context as it was assembled, without what the model appended."""
        self.thread.check()
        start, size = self.row_start(row), self.keys_values_wm_size_list[row]
        block = self.keys_values_wm.block[row : row + 1]
        copy = zeros(block.shape, block.device, block.dtype)
        copy[..., :size, :].copy_(block[..., start : start + size, :])
        return KeysValues.from_block(copy, size)

    def clear_recur_cache(self) -> None:
        """Clear the recurrent pool: a new search begins."""
        self.recur_pool.clear()

    def clear_init_caches(self, envs: Sequence[int] | None = None) -> None:
        """Clear the init pools of some environments, by their numbers; None clears all.

        Raises:
            ValueError: there is no such environment. Nothing is cleared then.
        """
        known = range(len(self.init_pools))
        chosen = list(known if envs is None else envs)  # an iterator can be read once
        unknown = [env for env in chosen if not is_whole(env) or env not in known]
        if unknown:
            raise ValueError(f"there are environments 0..{len(known) - 1}, got {unknown}")
        for env in chosen:
            self.init_pools[env].clear()

    def clear_all(self) -> None:
        """Clear all pools, and the batch."""
        self.clear_init_caches()
        self.clear_recur_cache()
        self.keys_values_wm_size_list = []

    def get_stats_summary(self) -> dict[str, Any]:
        """Counters: ``stats_enabled``, ``init_pools`` (``env_0`` ...), ``recur_pool``, ``wm_pool``, ``hierarchy``.

        And ``collisions``, where somebody looks for them.
        """
        summary = {
            "stats_enabled": self.stats_enabled,
            "init_pools": {f"env_{env}": pool.stats.to_dict() for env, pool in enumerate(self.init_pools)},
            "recur_pool": self.recur_pool.stats.to_dict(),
            "wm_pool": self.wm_pool.stats.to_dict(),
            "hierarchy": self.hierarchy_stats.to_dict(),
        }
        return summary if self.collisions is None else summary | {"collisions": self.collisions}

    def reset_stats(self) -> None:
        """Set all counters to zero."""
        for pool in (*self.init_pools, self.recur_pool, self.wm_pool):
            pool.stats.reset()
        self.hierarchy_stats.reset()
        if self.verifier is not None:
            self.verifier.collisions = 0

    @property
    def bytes_reserved(self) -> dict[str, int]:
        """Bytes of tensor memory held by ``init`` (all environments), ``recur``, ``wm`` (scratch) and ``batch``."""
        return {
            "init": sum(pool.bytes_reserved for pool in self.init_pools),
            "recur": self.recur_pool.bytes_reserved,
            "wm": self.wm_pool.bytes_reserved,
            "batch": self.batch_bytes,
        }

    @property
    @abstractmethod
    def batch_bytes(self) -> int:
        """Bytes of the memory for batches, and of shared memory that no pool has reserved yet."""
