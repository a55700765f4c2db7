"""A cache whose batch has contiguous layers, as LightZero's has: its attention then computes the same bits."""

from __future__ import annotations

from collections.abc import Sequence

from kvcache.backend import CacheBackend, Scope
from kvcache.delegating import DelegatingCache
from kvcache.keys_values import KeysValues, zeros

__all__ = ["ContiguousCache"]


class ContiguousCache(DelegatingCache):
    """Another cache's contents in a batch of contiguous layers ``[B, H, T, D]``.

    The batches of the new cache are strided views. torch multiplies strided matrices in another order than contiguous
    ones, and the last bits differ. This costs one more copy of a batch's live tokens.

    Args:
        backend: the cache that does the work.
    """

    def __init__(self, backend: CacheBackend) -> None:
        super().__init__(backend)
        self._batches: dict[int, KeysValues] = {}
        self._batch = self._contiguous(backend.config.geometry.env_num)

    def _contiguous(self, rows: int) -> KeysValues:
        """A batch of so many rows; each number of rows has memory of its own, since a part of one is strided."""
        batch = self._batches.get(rows)
        if batch is None or not batch.holds_block:  # a caller may have replaced its tensors
            geometry, config = self.config.geometry, self.config
            sizes = rows, geometry.num_heads, geometry.context_length, geometry.head_dim
            layers = zeros((geometry.num_layers, 2, *sizes), config.device, config.dtype)
            self._batches[rows] = KeysValues.from_block(layers.permute(2, 0, 1, 3, 4, 5))
        return self._batches[rows]

    @property
    def keys_values_wm(self) -> KeysValues:  # type: ignore[override]  # it is never assigned here
        return self._batch

    def renew_batch(self) -> None:
        self._batches.clear()
        super().renew_batch()

    def lookup(self, envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> list[int]:
        return self._backend.lookup(envs, keys, scope)

    def supply(self, row: int, keys_values: KeysValues) -> None:
        self._backend.supply(row, keys_values)

    def assemble(self) -> list[int]:
        sizes = self._backend.assemble()
        strided = self._backend.keys_values_wm
        self._batch = self._contiguous(len(sizes))
        self._batch.size = longest = strided.size
        ours, theirs = self._batch.block, strided.block
        if all(self._backend.row_start(row) == longest - size for row, size in enumerate(sizes)):
            ours[..., :longest, :].copy_(theirs[..., :longest, :])
        else:  # a resident batch: its zeros are behind the tokens
            ours[..., :longest, :].zero_()
            for row, size in enumerate(sizes):
                start = self._backend.row_start(row)
                ours[row, ..., longest - size : longest, :].copy_(theirs[row, ..., start : start + size, :])
        return sizes

    def row_start(self, row: int) -> int:
        return CacheBackend.row_start(self, row)

    def store(
        self, envs: Sequence[int], keys: Sequence[int], scope: Scope, priorities: Sequence[float] | None = None
    ) -> None:
        self.thread.check()
        strided = self._backend.keys_values_wm
        if self._batch.holds_block:
            strided.extend(self._batch, strided.size)
        else:  # the backend stores the tensors that a caller has put in
            for given, own in zip(self._batch, strided, strict=True):
                for ours, theirs in ((given._k_cache, own._k_cache), (given._v_cache, own._v_cache)):
                    theirs._cache, theirs._size = ours._cache, ours._size
        self._backend.store(envs, keys, scope, priorities)

    def clear_recur_cache(self) -> None:
        self._backend.clear_recur_cache()

    def clear_init_caches(self, envs: Sequence[int] | None = None) -> None:
        self._backend.clear_init_caches(envs)

    def clear_all(self) -> None:
        self._backend.clear_all()

    def reset_stats(self) -> None:
        self._backend.reset_stats()

    @property
    def batch_bytes(self) -> int:
        return self._backend.batch_bytes + sum(batch.block.nbytes for batch in self._batches.values())
