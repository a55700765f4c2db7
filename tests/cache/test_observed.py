"""An observed cache keeps the whole contract, and its observer sees every call."""

import pytest
import test_registry
import torch
from conformance import GEOMETRY, BackendConformance, entry

from kvcache import BACKENDS, MISS, CacheConfig, ObservedCache, Scope, ShadowCache, make_backend


def passes(operation, call, *args):
    return call(*args)


def named(backend, name):
    cache = ObservedCache(backend, passes)
    cache.name = name
    return cache


@pytest.fixture(autouse=True, scope="module")
def observed_backends():
    """Observed caches by name, for the conformance suite."""
    names = {f"observed {name}": name for name in ("legacy", "new:paged")}
    for observed, name in names.items():
        BACKENDS[observed] = lambda config, name=name, observed=observed: named(make_backend(name, config), observed)
    yield
    for observed in names:
        del BACKENDS[observed]


class TestObservedLegacy(BackendConformance):
    backend = "observed legacy"


class TestObservedPaged(BackendConformance):
    backend = "observed new:paged"
    check_reserved_bytes = test_registry.TestNewPaged.check_reserved_bytes


class Notes:
    """An observer that notes operations and the number of their arguments."""

    def __init__(self):
        self.calls = []

    def __call__(self, operation, call, *args):
        self.calls.append((operation, len(args)))
        return call(*args)


def infer(cache, key, new_key, scope=Scope.ROOT):
    if cache.lookup([0], [key], scope) == [MISS]:
        cache.supply(0, entry(7, 1, tokens=GEOMETRY.context_length))
    cache.assemble()
    for layer in cache.keys_values_wm:
        tokens = torch.ones(1, GEOMETRY.num_heads, 1, GEOMETRY.head_dim)
        layer.update(tokens, tokens)
    cache.store([0], [new_key], scope)


def test_the_observer_sees_every_call_once_and_in_order():
    notes = Notes()
    cache = ObservedCache(make_backend("legacy", CacheConfig(GEOMETRY)), notes)
    cache.hash_states(torch.ones(1, 1, 4))
    infer(cache, 5, 6)
    cache.clear_recur_cache()
    cache.clear_init_caches()
    cache.clear_all()  # its own two clears are not seen: they are calls within the cache
    assert notes.calls == [
        ("hash_states", 1), ("lookup", 3), ("supply", 2), ("assemble", 0), ("store", 4),
        ("clear_recur_cache", 0), ("clear_init_caches", 1), ("clear_all", 0),
    ]  # fmt: skip


def test_observers_nest_and_may_change_a_call():
    def misses(operation, call, *args):
        return call(args[0], [-1], args[2]) if operation == "lookup" else call(*args)

    notes = Notes()
    inner = make_backend("new", CacheConfig(GEOMETRY))
    infer(inner, None, 5)
    assert inner.lookup([0], [5], Scope.ROOT) == [1]
    assert ObservedCache(ObservedCache(inner, misses), notes).lookup([0], [5], Scope.ROOT) == [MISS]
    assert notes.calls == [("lookup", 3)]


def test_everything_else_is_the_caches_own():
    config = CacheConfig(GEOMETRY, recur_pool_size=1)
    inner = ShadowCache(make_backend("legacy", config), make_backend("new", config))
    cache = ObservedCache(inner, passes)
    cache.position_shift = torch.zeros(2, 2, 2, GEOMETRY.slid_size, 3)
    assert inner.position_shift is cache.position_shift
    for key in (5, 6):
        infer(cache, None, key, Scope.NODE)
    assert cache.is_stale(0, 5, Scope.NODE)
    assert not cache.is_stale(0, 6, Scope.NODE)
    cache.lookup([0], [5], Scope.NODE)
    assert cache.stale_hits == cache.report.stale_hits == inner.report.stale_hits == 1
    assert cache.get_stats_summary() == inner.get_stats_summary()
    assert cache.bytes_reserved == inner.bytes_reserved
    assert cache.row_start(0) == inner.row_start(0) == 0
    assert cache.name == inner.name
    cache.reset_stats()
    assert inner.report.lookups == inner.hierarchy_stats.total_queries == 0


def test_a_single_cache_has_no_report_and_says_what_it_knows_of_stale_hits():
    caches = {name: make_backend(name, CacheConfig(GEOMETRY)) for name in ("legacy", "new")}
    assert all(cache.report is None for cache in caches.values())
    assert {name: cache.stale_hits for name, cache in caches.items()} == {"legacy": None, "new": 0}
    assert not caches["new"].is_stale(0, 5, Scope.NODE)


def test_the_observer_sees_pools_that_are_cleared_directly():
    notes = Notes()
    cache = ObservedCache(make_backend("legacy", CacheConfig(GEOMETRY)), notes)
    for key in (5, 6):
        infer(cache, None, key)
    notes.calls.clear()
    cache.init_pools[0].clear()
    cache.recur_pool.clear()
    cache.wm_pool.clear()  # scratch: no call of a cache
    assert notes.calls == [("clear_init_caches", 1), ("clear_recur_cache", 0)]
    assert len(cache.init_pools[0]) == 0
