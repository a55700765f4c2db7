"""Backends by name: the one place where a name becomes a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kvcache.backend import CacheBackend
from kvcache.config import CacheConfig
from kvcache.layout import AUTO
from kvcache.legacy import LEGACY, LEGACY_0_2_0, LegacyCache, LegacyVariant
from kvcache.manager import KVCacheManager
from kvcache.storage import STORAGES

__all__ = ["BACKENDS", "make_backend"]

Factory = Callable[[CacheConfig], CacheBackend]


def _legacy(variant: LegacyVariant) -> Factory:
    return lambda config: LegacyCache(config, variant)


def _named(storage: str, resident_batch: bool = False, exact: bool = False) -> Factory:
    def build(config: CacheConfig) -> CacheBackend:
        is_exact = exact or config.exact
        cache = KVCacheManager(replace(config, storage=storage, resident_batch=resident_batch, exact=is_exact))
        cache.name = f"new:{storage}{'-resident' * resident_batch}{'-exact' * exact}"
        return cache

    return build


BACKENDS: dict[str, Factory] = {
    "legacy": _legacy(LEGACY),
    "legacy-0.2.0": _legacy(LEGACY_0_2_0),
    "new": KVCacheManager,
    **{f"new:{storage}": _named(storage) for storage in (*STORAGES, AUTO)},
    "new:paged-resident": _named("paged", resident_batch=True),
    "new:paged-exact": _named("paged", exact=True),
}


def make_backend(name: str, config: CacheConfig) -> CacheBackend:
    """A fresh backend of that name.

    Raises:
        ValueError: no backend has that name (the message lists those there are), or the configuration is bad.
        TypeError: ``config`` is no ``CacheConfig``.
    """
    try:
        factory = BACKENDS[name]
    except KeyError:
        raise ValueError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}") from None
    if not isinstance(config, CacheConfig):
        raise TypeError(f"config must be a CacheConfig, such as CacheConfig.from_object makes, got {config!r}")
    return factory(config)
