"""Where the time of whole searches goes: forward passes, cache, trees, and the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from kvcache import ObservedCache
from kvcache.world_model import Search, SearchConfig, SearchResult, WorldModel

__all__ = ["PARTS", "SplitClock", "split_search"]

FORWARD, CACHE, TREE, REST = PARTS = ("forward", "cache", "tree", "rest")


class SplitClock:
    """Adds up seconds by part: each moment belongs to the innermost part that is running.

    Args:
        now: seconds, monotonic. On a device it waits for the device first: work is counted where it was asked for.

    Attributes:
        seconds: of each part: ``forward`` is inferences without their calls of the cache, ``cache`` is those calls,
            ``tree`` is the search without its inferences, ``rest`` is what is around it.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._part = REST
        self.start()

    def start(self) -> None:
        """Begin anew: nothing is counted yet."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._since = self._now()

    def __call__(self, part: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make the call, which belongs to a part."""
        outer = self._switch(part)
        try:
            return call(*args, **kwargs)
        finally:
            self._switch(outer)

    def observe_cache(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        """As an observer of a cache."""
        return self(CACHE, call, *args)

    def _switch(self, part: str) -> str:
        now = self._now()
        self.seconds[self._part] += now - self._since
        self._since, self._part, before = now, part, self._part
        return before


class _SplitSearch(Search):
    """A search that is timed."""

    def __init__(self, model: WorldModel, config: SearchConfig, clock: SplitClock) -> None:
        super().__init__(model, config)
        self._clock = clock

    def run(self, *args: Any, **kwargs: Any) -> SearchResult:
        result: SearchResult = self._clock(TREE, super().run, *args, **kwargs)
        return result


def split_search(model: WorldModel, config: SearchConfig, clock: SplitClock) -> Search:
    """A search of ``model`` that is timed, as are the model's inferences and its cache from now on.

    Args:
        model: its cache becomes an ``ObservedCache``.
        config: of the search.
        clock: that times. What is called around the search, ``play`` with it for example, belongs to ``rest``.
    """
    model.cache = ObservedCache(model.cache, clock.observe_cache)
    for name in ("forward_initial_inference", "forward_recurrent_inference"):
        setattr(model, name, partial(clock, FORWARD, getattr(model, name)))
    return _SplitSearch(model, config, clock)
