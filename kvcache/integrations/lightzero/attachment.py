"""The cache of one world model, and the stand-ins for the dicts that LightZero's policies clear."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from kvcache.backend import EMPTY, MISS, CacheBackend, Scope
from kvcache.integrations.lightzero.settings import Settings
from kvcache.keys_values import KeysValues, zeros
from kvcache.registry import make_backend
from kvcache.shadow import ShadowCache
from kvcache.world_model.log import cache_line

__all__ = ["Attachment", "ClearsInit", "ClearsRecur", "own_keys_values"]

_log = logging.getLogger("kvcache.lightzero")

_LOGGED_EVERY = 100  # searches


class Attachment:
    """The new cache of one world model, built at its first inference. A copy has a new, empty one.

    Args:
        settings: of the model.

    Attributes:
        searches: roots so far.
        position_shift_of: LightZero's object from which the backend's position shift was taken.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.searches = 0
        self.position_shift_of: Any = None
        self._backend: CacheBackend | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        return Attachment(self.settings)

    def __reduce__(self) -> tuple[Any, ...]:
        return Attachment, (self.settings,)

    @property
    def is_built(self) -> bool:
        return self._backend is not None

    @property
    def backend(self) -> CacheBackend:
        if self._backend is None:
            self._backend = _build(self.settings)
        return self._backend

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
    ) -> int:
        """Look up a context for each row, and supply one for each that has none.

        Args:
            envs: the environment of each row.
            keys: of each row; None for a row that is not looked up.
            scope: as in ``CacheBackend.lookup``.
            generate: makes the context of a row: LightZero's ``KeysValues``.

        Returns:
            The number of rows for which one was found.
        """
        sizes = self.backend.lookup(envs, keys, scope)
        missing = [row for row, size in enumerate(sizes) if size in (MISS, EMPTY)]
        for row in missing:
            self.backend.supply(row, own_keys_values(generate(row)))
        return len(sizes) - len(missing)

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


class ClearsInit:
    """Stands where LightZero keeps an environment's keys: policies clear it."""

    def __init__(self, attachment: Attachment, env: int) -> None:
        self._attachment, self._env = attachment, env

    def clear(self) -> None:
        if self._attachment.is_built:
            self._attachment.backend.clear_init_caches([self._env])


class ClearsRecur:
    """Stands where LightZero keeps the recurrent keys: inferences and policies clear it."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment

    def clear(self) -> None:
        if self._attachment.is_built:
            self._attachment.backend.clear_recur_cache()


def _build(settings: Settings) -> CacheBackend:
    backend = make_backend("new", settings.cache)
    if settings.validates:
        backend = ShadowCache(backend, make_backend("legacy-0.2.0", settings.cache))
    return backend


def own_keys_values(theirs: Any) -> KeysValues:
    """LightZero's ``KeysValues`` as ours, without a copy."""
    layers: list[tuple[Tensor, Tensor]] = [(each._k_cache._cache, each._v_cache._cache) for each in theirs._keys_values]
    return KeysValues.from_layers(layers, theirs.size)
