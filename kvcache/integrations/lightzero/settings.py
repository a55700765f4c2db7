"""What a user sets in ``world_model_cfg``, read and checked when the world model is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kvcache.config import CacheConfig, eviction_name
from kvcache.layout import chosen_storage

__all__ = ["SETTINGS", "Settings"]

# Name -> meaning. The pool sizes and ``eviction_strategy`` are those of ``CacheConfig``.
SETTINGS = {
    "use_new_cache_manager": (
        "whether the world model uses the new cache; False by default. LightZero main has a manager of its own by this "
        "name: after install() the name means the new cache"
    ),
    "cache_storage": 'where contents are kept: "paged" (default), "slab", "private" or "auto"',
    "cache_resident_batch": "whether the batch keeps its content between inferences (paged only)",
    "cache_exact_layout": "whether contents have LightZero's bits also where windows have slid",
    "cache_thread_safe": "whether all threads may use the model: an inference has the cache to itself",
    "cache_validation_mode": "whether LightZero's own cache runs beside it and every retrieval is compared",
    "eviction_strategy": '"auto" (default), "fifo", "lru", "priority", "s3-fifo", "sieve" or "tree"',
    "init_pool_size": "entries of each environment's init pool; LightZero's own number by default",
    "recur_pool_size": "entries of the recurrent pool; LightZero's own number by default",
    "init_pool_bytes": "instead of init_pool_size",
    "recur_pool_bytes": "instead of recur_pool_size",
    "verify_keys": (
        "whether keys carry a fingerprint of their latents: two latents with one key are noticed, counted, and never "
        "take each other's contexts"
    ),
    "chained_keys": (
        "whether a context's key is of its whole history: the same latent with another history has another key. It "
        "needs LightZero's search in C++ (mcts_ctree=True)"
    ),
    "enable_cache_logging": "whether a line of counters is logged, every 100 searches",
}

_PREFIX = "cache_"


@dataclass(frozen=True)
class Settings:
    """The settings of one world model.

    Attributes:
        cache: what its cache is built from.
        validates: whether a legacy cache runs beside it.
        logs: whether counters are logged.
        chains: whether keys are chained.
    """

    cache: CacheConfig
    validates: bool
    logs: bool
    chains: bool = False

    @classmethod
    def read(cls, config: Any, env_num: int, pool_sizes: Mapping[str, int]) -> Settings | None:
        """The settings in a ``world_model_cfg``; None where it does not ask for the new cache.

        Args:
            config: a dict, or any object with attributes.
            env_num: most rows of a batch.
            pool_sizes: ``init`` and ``recur``: LightZero's own numbers of entries.

        Raises:
            ValueError: a value is out of range, or a name that begins with ``cache_`` is unknown.
        """
        values = config if isinstance(config, Mapping) else vars(config)
        unknown = sorted(name for name in values if str(name).startswith(_PREFIX) and name not in SETTINGS)
        if unknown:
            raise ValueError(
                f"world_model_cfg has unknown settings {', '.join(unknown)}: "
                f"choose from {', '.join(name for name in SETTINGS if name.startswith(_PREFIX))}"
            )
        if not _switch(values, "use_new_cache_manager"):
            return None
        for name in ("cache_exact_layout", "cache_resident_batch", "cache_thread_safe", "verify_keys"):
            _switch(values, name)
        cache = chosen_storage(CacheConfig.from_object(config, env_num))
        eviction_name(cache.eviction_strategy)
        if not cache.geometry.keeps_past:
            raise ValueError(
                f"context_length is {cache.geometry.context_length}: so short a context keeps no past, and LightZero "
                "itself ends such a search with an error. Leave use_new_cache_manager out"
            )
        if cache.init_pool_size is None and cache.init_pool_bytes is None:
            cache = replace(cache, init_pool_size=pool_sizes["init"])
        if cache.recur_pool_size is None and cache.recur_pool_bytes is None:
            cache = replace(cache, recur_pool_size=pool_sizes["recur"])
        return cls(
            cache,
            validates=_switch(values, "cache_validation_mode"),
            logs=_switch(values, "enable_cache_logging"),
            chains=_switch(values, "chained_keys"),
        )


def _switch(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value
