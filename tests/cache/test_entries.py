"""What a policy is told of an entry, by each way to store one."""

from typing import ClassVar

import numpy as np
import pytest
from conformance import HEAD_DIM, HEADS, LAYERS, TOKENS, entry

from kvcache import (
    STORAGES,
    CacheConfig,
    EntryInfo,
    EvictionStrategy,
    Geometry,
    KVCachePool,
    ObservedCache,
    SearchInfo,
    ShadowCache,
    make_backend,
)
from kvcache.backend import Scope
from kvcache.eviction import LruPolicy

GEOMETRY = Geometry(
    num_layers=LAYERS, num_heads=HEADS, embed_dim=HEADS * HEAD_DIM, context_length=TOKENS, env_num=2, num_simulations=4
)


class Spy(LruPolicy):
    """LRU that remembers what it was told."""

    sees_entries = True
    told: ClassVar[list] = []

    def insert(self, slot, info):
        super().insert(slot, info)
        Spy.told.append(("insert", info))

    def update(self, slot, info):
        super().update(slot, info)
        Spy.told.append(("update", info))

    def victim(self, incoming):
        Spy.told.append(("victim", incoming))
        return super().victim(incoming)


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr("kvcache.eviction._POLICIES", {EvictionStrategy.LRU: Spy})
    monkeypatch.setattr(Spy, "told", [])
    return Spy.told


def stored(cache, keys, scope, info=None, priorities=None, appended=2):
    """One inference of two rows, which start at keys 0 and 1 (None: from nothing)."""
    cache.assemble()
    for layer in cache.keys_values_wm:
        block = cache.keys_values_wm.block
        new = block.new_ones(len(block), HEADS, appended, HEAD_DIM)
        layer.update(new, new)
    cache.store([0, 1], keys, scope, priorities, info)


def cache_of(storage, **options):
    return make_backend("new", CacheConfig(GEOMETRY, storage=storage, eviction_strategy="lru", **options))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_pool_hands_over_what_its_caller_knows_and_fills_in_the_rest(told, storage):
    pool = KVCachePool(1, "lru", storage=storage)
    known = EntryInfo("another key", 9.0, 99, 99, "parent", depth=2, env=1, visits=5, prior=0.25, actions=3)
    pool.set("a", entry(1, 4), 0.5, known)
    pool.set("a", entry(2, 2))
    pool.set("b", entry(3, 3), info=EntryInfo(depth=0))
    whole = known._replace(key="a", priority=0.5, tokens=4, new_tokens=4)
    newcomer = EntryInfo("b", None, 3, 3, depth=0)
    assert told == [
        ("insert", whole), ("update", EntryInfo("a", None, 2, 2)), ("victim", newcomer), ("insert", newcomer),
    ]  # fmt: skip


@pytest.mark.parametrize("storage", [name for name in STORAGES if name != "reference"])
def test_a_batch_hands_over_what_the_search_knows(told, storage):
    cache = cache_of(storage)
    cache.lookup([0, 1], [None, None], Scope.ROOT)
    stored(cache, [10, 11], Scope.ROOT, appended=1)
    cache.lookup([0, 1], [10, 11], Scope.NODE)
    info = SearchInfo(np.array([1, 2]), [0, None], (0.5, 0.25), 2)
    stored(cache, [20, 21], Scope.NODE, info, [1.0, 2.0])
    new = 2 if storage == "paged" else 3
    assert [info for _, info in told] == [
        EntryInfo(10, None, 1, 1, None, env=0),
        EntryInfo(11, None, 1, 1, None, env=1),
        EntryInfo(20, 1.0, 3, new, 10, 1, 0, 0, 0.5, 2),
        EntryInfo(21, 2.0, 3, new, 11, 2, 1, None, 0.25, 2),
    ]


def test_the_victims_of_limited_bytes_are_chosen_for_their_entry(told):
    page = GEOMETRY.entry_bytes(4) // TOKENS
    cache = cache_of("paged", recur_pool_bytes=TOKENS * page)
    for number in range(3):
        cache.lookup([0, 1], [None, None], Scope.NODE)
        stored(cache, [10 * number, 10 * number + 1], Scope.NODE)
    victims = [incoming.key for what, incoming in told if what == "victim"]
    assert victims == [11, 20, 21]


def test_nothing_is_collected_where_the_policy_does_not_look():
    cache = cache_of("paged")
    assert not cache.wants_info
    cache.lookup([0, 1], [None, None], Scope.ROOT)
    stored(cache, [10, 11], Scope.ROOT, SearchInfo(actions=2))
    assert 10 in cache.init_pools[0]


BAD = [
    (SearchInfo([1]), ValueError, "one of depths for each of 2 rows, got 1"),
    (SearchInfo([1, -1]), ValueError, "depths must be an integer from 0 on, or None, got -1"),
    (SearchInfo(visits=[1, 1.5]), ValueError, "visits must be an integer from 0 on, or None, got 1.5"),
    (SearchInfo(priors=[1, float("nan")]), ValueError, "a prior must be a number from 0 to 1, or None, got nan"),
    (SearchInfo(priors=[1, "1"]), ValueError, "a prior must be a number from 0 to 1, or None, got '1'"),
    (SearchInfo(actions=0), ValueError, "actions must be an integer from 1 on, or None, got 0"),
    ({"depths": [1, 1]}, TypeError, "what a search knows is a SearchInfo, got dict"),
]


@pytest.mark.parametrize("backend", ["new", "legacy"])
@pytest.mark.parametrize(("info", "error", "message"), BAD)
def test_what_no_search_can_know_is_refused_and_nothing_stored(backend, info, error, message):
    cache = make_backend(backend, CacheConfig(GEOMETRY))
    cache.lookup([0, 1], [None, None], Scope.ROOT)
    with pytest.raises(error, match=f"^store: .*{message}$"):
        stored(cache, [10, 11], Scope.ROOT, info)
    assert not len(cache.init_pools[0])


@pytest.mark.parametrize(
    ("known", "error"),
    [
        (EntryInfo(parent=[]), TypeError), (EntryInfo(depth=-1), ValueError), (EntryInfo(prior=2), ValueError),
        (EntryInfo(env=True), ValueError), ((), TypeError),
    ],
)  # fmt: skip
def test_a_pool_refuses_it_too(known, error):
    pool = KVCachePool(1, "priority", name="mine")
    with pytest.raises(error, match=r"^pool 'mine': "):
        pool.set("a", entry(1), info=known)
    assert not len(pool)


def test_it_reaches_both_caches_of_a_shadow_and_passes_an_observer(told):
    config = CacheConfig(GEOMETRY, eviction_strategy="lru")
    shadow = ShadowCache(make_backend("legacy", config), make_backend("new", config))
    calls = []

    def observer(operation, call, *args):
        calls.append((operation, args))
        return call(*args)

    cache = ObservedCache(shadow, observer)
    assert cache.wants_info
    assert shadow.wants_info
    cache.lookup([0, 1], [None, None], Scope.ROOT)
    info = SearchInfo([0, 0], actions=3)
    stored(cache, [10, 11], Scope.ROOT, info)
    assert [(entry.depth, entry.actions) for _, entry in told] == [(0, 3), (0, 3)]
    assert calls[-1] == ("store", ([0, 1], [10, 11], Scope.ROOT, None, info))


def test_an_observer_of_a_cache_that_does_not_ask_gets_four_arguments():
    calls = []

    def observer(operation, call, *args):
        calls.append((operation, args))
        return call(*args)

    cache = ObservedCache(cache_of("paged"), observer)
    assert not cache.wants_info
    cache.lookup([0, 1], [None, None], Scope.ROOT)
    stored(cache, [10, 11], Scope.ROOT)
    assert calls[-1] == ("store", ([0, 1], [10, 11], Scope.ROOT, None))
