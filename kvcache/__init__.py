"""KV caches for transformer world models under MCTS, and the legacy caches that they are measured against."""

from kvcache._version import __version__
from kvcache.backend import EMPTY, MISS, CacheBackend, Scope
from kvcache.build import BuildInfo, build_info
from kvcache.checks import OrderError
from kvcache.config import AUTO_EVICTION, CacheConfig
from kvcache.eviction import EntryInfo, EvictionStrategy, SearchInfo
from kvcache.geometry import GEOMETRIES, POSITIONS, TOKENS_PER_STEP, Geometry
from kvcache.hashing import hash_state, hash_states
from kvcache.kernels import kernel_observers
from kvcache.keys import VerifiedKey
from kvcache.keys_values import Cache, KeysValues, KVCache
from kvcache.layout import AUTO
from kvcache.legacy import LEGACY, LegacyCache, RecurrentMissError
from kvcache.legacy_pool import LegacyPool
from kvcache.manager import KVCacheManager
from kvcache.observed import ObservedCache, Observer
from kvcache.pool import KVCachePool
from kvcache.registry import BACKENDS, make_backend
from kvcache.shadow import LOGGED_STALE_HITS, CacheMismatchError, ShadowCache, ShadowReport
from kvcache.stats import CacheStats
from kvcache.storage import STORAGES, Storage
from kvcache.threads import ThreadError

__all__ = [
    "AUTO",
    "AUTO_EVICTION",
    "BACKENDS",
    "EMPTY",
    "GEOMETRIES",
    "LEGACY",
    "LOGGED_STALE_HITS",
    "MISS",
    "POSITIONS",
    "STORAGES",
    "TOKENS_PER_STEP",
    "BuildInfo",
    "Cache",
    "CacheBackend",
    "CacheConfig",
    "CacheMismatchError",
    "CacheStats",
    "EntryInfo",
    "EvictionStrategy",
    "Geometry",
    "KVCache",
    "KVCacheManager",
    "KVCachePool",
    "KeysValues",
    "LegacyCache",
    "LegacyPool",
    "ObservedCache",
    "Observer",
    "OrderError",
    "RecurrentMissError",
    "Scope",
    "SearchInfo",
    "ShadowCache",
    "ShadowReport",
    "Storage",
    "ThreadError",
    "VerifiedKey",
    "__version__",
    "build_info",
    "hash_state",
    "hash_states",
    "make_backend",
    "kernel_observers",
]
