"""KV caches for transformer world models under MCTS, and what it takes to trust one: traces, replays, counts."""

from kvcache._version import __version__
from kvcache.backend import EMPTY, MISS, CacheBackend, CacheConfig, Scope
from kvcache.eviction import EvictionStrategy
from kvcache.geometry import GEOMETRIES, Geometry
from kvcache.hashing import hash_state, hash_states
from kvcache.keys_values import Cache, KeysValues, KVCache
from kvcache.legacy import LegacyCache, RecurrentMissError
from kvcache.manager import KVCacheManager
from kvcache.pool import KVCachePool
from kvcache.registry import BACKENDS, make_backend
from kvcache.stats import CacheStats

__all__ = [
    "BACKENDS",
    "EMPTY",
    "GEOMETRIES",
    "MISS",
    "Cache",
    "CacheBackend",
    "CacheConfig",
    "CacheStats",
    "EvictionStrategy",
    "Geometry",
    "KVCache",
    "KVCacheManager",
    "KVCachePool",
    "KeysValues",
    "LegacyCache",
    "RecurrentMissError",
    "Scope",
    "__version__",
    "hash_state",
    "hash_states",
    "make_backend",
]
