"""The cache of one world model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from kvcache.backend import EMPTY, MISS, CacheBackend, Scope
from kvcache.integrations.lightzero.chaining import SearchChain, Traversals
from kvcache.integrations.lightzero.settings import Settings
from kvcache.keys_values import KeysValues, zeros
from kvcache.legacy import LegacyCache, LegacyVariant
from kvcache.registry import make_backend
from kvcache.shadow import ShadowCache
from kvcache.world_model.log import cache_line

__all__ = ["Attachment", "own_keys_values"]

_log = logging.getLogger("kvcache.lightzero")

_LOGGED_EVERY = 100  # searches


class Attachment:
    """The new cache of one world model, built at its first inference. A copy has a new, empty one.

    Args:
        settings: of the model.
        legacy: LightZero's own cache, for a validation.

    Attributes:
        searches: roots so far.
        traversals: of LightZero's searches, those of all models.
        depths: of the new nodes of the recurrent inference in progress, below their roots.
        chain: the keys of contexts by their histories; None where a latent's key is its context's.
        position_shift_of: LightZero's object from which the backend's position shift was taken.
    """

    traversals = Traversals()
    _backend: CacheBackend

    def __init__(self, settings: Settings, legacy: LegacyVariant) -> None:
        self.settings, self.legacy = settings, legacy
        rotary = settings.cache.geometry.positions == "rotary"
        self.chain = SearchChain(self.traversals, rotary) if settings.chains else None
        self.searches = 0
        self.depths: Sequence[int] = ()
        self.position_shift_of: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        return Attachment(self.settings, self.legacy)

    def __reduce__(self) -> tuple[Any, ...]:
        return Attachment, (self.settings, self.legacy)

    @property
    def is_built(self) -> bool:
        return "_backend" in self.__dict__

    @property
    def backend(self) -> CacheBackend:
        if not self.is_built:
            self.__dict__.setdefault("_backend", self._build())  # of two threads that build one at once, one is kept
        return self._backend

    def _build(self) -> CacheBackend:
        backend = make_backend("new", self.settings.cache)
        if self.settings.validates:
            backend = ShadowCache(backend, LegacyCache(self.settings.cache, self.legacy))
        return backend

    def observe(self, wrap: Callable[[CacheBackend], CacheBackend]) -> None:
        """Put ``wrap(backend)`` in the backend's place: an ``ObservedCache`` of it, or again the cache in one."""
        self._backend = wrap(self.backend)

    def begin_search(self) -> None:
        """Count a root, and log the counters now and then."""
        self.searches += 1
        if self.settings.logs and self.searches % _LOGGED_EVERY == 0:
            _log.info("%d searches: %s", self.searches, cache_line(self.backend))

    def retrieve(
        self, envs: Sequence[int], keys: Sequence[int | None], scope: Scope, generate: Callable[[int], Any]
    ) -> list[int]:
        """Look up a context for each row, and supply one for each that has none.

        Args:
            envs: the environment of each row.
            keys: of each row; None for a row that is not looked up.
            scope: as in ``CacheBackend.lookup``.
            generate: makes the context of a row: LightZero's ``KeysValues``.

        Returns:
            The rows for which one was found.
        """
        sizes = self.backend.lookup(envs, keys, scope)
        missing = {row for row, size in enumerate(sizes) if size in (MISS, EMPTY)}
        for row in sorted(missing):
            self.backend.supply(row, own_keys_values(generate(row)))
        return [row for row in range(len(sizes)) if row not in missing]

    def pad_in_front(self) -> None:
        """Make all rows as long as the longest one, by zeros in front that count as tokens."""
        backend = self.backend
        sizes = backend.keys_values_wm_size_list
        longest, contexts = max(sizes), backend.keys_values_wm_list
        for row, size in enumerate(sizes):
            context = contexts[row]
            if size < longest and context is not None:
                block = zeros(context.block.shape, context.device, context.dtype)
                block[..., longest - size : longest, :].copy_(context.block[..., :size, :])
                backend.supply(row, KeysValues.from_block(block, longest))


def own_keys_values(theirs: Any) -> KeysValues:
    """LightZero's ``KeysValues`` as ours, without a copy."""
    layers: list[tuple[Tensor, Tensor]] = [(each._k_cache._cache, each._v_cache._cache) for each in theirs._keys_values]
    return KeysValues.from_layers(layers, theirs.size)
