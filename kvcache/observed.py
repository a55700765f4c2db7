"""A cache whose calls can be seen, timed or changed from outside, without touching the cache itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
from torch import Tensor

from kvcache.backend import CacheBackend, Scope
from kvcache.delegating import DelegatingCache
from kvcache.eviction import SearchInfo
from kvcache.keys_values import KeysValues

__all__ = ["ObservedCache", "Observer"]


class Observer(Protocol):
    """Makes each call of an observed cache, and may do something before and after it."""

    def __call__(self, operation: str, call: Callable[..., Any], /, *args: Any) -> Any:
        """Return ``call(*args)``.

        Args:
            operation: the method's name: ``hash_states``, ``lookup``, ``supply``, ``assemble``, ``store``,
                ``clear_recur_cache``, ``clear_init_caches`` or ``clear_all``.
            call: the cache's own method.
            args: its arguments, all by position. ``store`` has the first four, and ``info`` where it is given.
        """


class ObservedCache(DelegatingCache):
    """A cache whose calls go through an observer; results, counters and memory are the cache's own.

    An observed cache can be observed again.

    Args:
        backend: the cache that does the work.
        observer: makes each call.
    """

    def __init__(self, backend: CacheBackend, observer: Observer) -> None:
        super().__init__(backend)
        self._observer = observer

    def hash_states(self, latents: Tensor | np.ndarray) -> Sequence[int]:
        return cast(Sequence[int], self._observer("hash_states", self._backend.hash_states, latents))

    def lookup(self, envs: Sequence[int], keys: Sequence[int | None], scope: Scope) -> list[int]:
        self.thread.take()
        return cast(list[int], self._observer("lookup", self._backend.lookup, envs, keys, scope))

    def supply(self, row: int, keys_values: KeysValues) -> None:
        self.thread.check()
        self._observer("supply", self._backend.supply, row, keys_values)

    def assemble(self) -> list[int]:
        self.thread.check()
        return cast(list[int], self._observer("assemble", self._backend.assemble))

    def store(
        self,
        envs: Sequence[int],
        keys: Sequence[int],
        scope: Scope,
        priorities: Sequence[float] | None = None,
        info: SearchInfo | None = None,
    ) -> None:
        self.thread.check()
        known = () if info is None else (info,)
        self._observer("store", self._backend.store, envs, keys, scope, priorities, *known)

    def clear_recur_cache(self) -> None:
        self.thread.check()
        self._observer("clear_recur_cache", self._backend.clear_recur_cache)

    def clear_init_caches(self, envs: Sequence[int] | None = None) -> None:
        self.thread.check()
        self._observer("clear_init_caches", self._backend.clear_init_caches, envs)

    def clear_all(self) -> None:
        self.thread.check()
        self._observer("clear_all", self._backend.clear_all)

    def reset_stats(self) -> None:
        self._backend.reset_stats()
