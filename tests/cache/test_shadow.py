"""Two caches side by side: what is the same, what is reported, what raises."""

import copy
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from conformance import GEOMETRY, entry

from kvcache import LegacyPool, OrderError
from kvcache.backend import EMPTY, MISS, Scope
from kvcache.config import CacheConfig
from kvcache.legacy import RecurrentMissError
from kvcache.registry import make_backend
from kvcache.shadow import LOGGED_STALE_HITS, CacheMismatchError, ShadowCache

NEW = ["new:private", "new:slab", "new:paged", "new:paged-resident"]
pairs = pytest.mark.parametrize("names", [*(("legacy", name) for name in NEW), *((name, "legacy") for name in NEW)])


def shadowed(names, positions="absolute", **options):
    config = CacheConfig(replace(GEOMETRY, positions=positions), **options)
    cache = ShadowCache(*(make_backend(name, config) for name in names))
    if positions == "absolute":
        generator = torch.Generator().manual_seed(0)
        cache.position_shift = torch.randn(2, 2, 2, GEOMETRY.slid_size, 3, generator=generator)
    return cache


def infer(cache, scope, rows, value=1.0):
    """Rows are (environment, parent, key)."""
    envs, parents, keys = map(list, zip(*rows, strict=True))
    for row, size in enumerate(cache.lookup(envs, parents, scope)):
        if size == MISS:
            cache.supply(row, entry(7, 1, tokens=GEOMETRY.context_length))
    sizes = cache.assemble()
    for number, layer in enumerate(cache.keys_values_wm):
        tokens = torch.arange(len(rows) * 12.0).view(len(rows), 2, 2, 3) * value + number
        layer.update(tokens, -tokens)
    cache.store(envs, keys, scope)
    return sizes


def search(cache, steps=6, searches=4):
    for number in range(searches):
        infer(cache, Scope.ROOT, [(env, 100 * number or None, 100 * (number + 1)) for env in range(3)], number + 0.3)
        cache.clear_recur_cache()
        nodes = [[100 * (number + 1)] for _ in range(3)]
        for step in range(steps):
            # Every other step goes down, the others go back to a node of long ago.
            parents = [of_env[-1] if step % 2 else of_env[step // 2] for of_env in nodes]
            for env, of_env in enumerate(nodes):
                of_env.append(10_000 * (env + 1) + 100 * number + step)
            infer(cache, Scope.NODE, [(env, parents[env], nodes[env][-1]) for env in range(3)])


@pairs
@pytest.mark.parametrize("positions", ["rotary", "absolute"])
def test_caches_that_agree(names, positions):
    cache = shadowed(names, positions)
    search(cache)
    report = cache.report
    assert report.compared == report.lookups > 50
    assert (report.stale_hits, report.only_primary, report.only_shadow) == (0, 0, 0)
    if positions == "rotary" or "paged" not in "".join(names):
        assert report.largest_difference == 0
    else:
        assert 0 < report.largest_difference < 1e-3


@pairs
def test_legacys_stale_hits_are_reported_as_such(names, caplog):
    cache = shadowed(names, recur_pool_size=4)
    with caplog.at_level(logging.WARNING, logger="kvcache.shadow"):
        search(cache)
    assert cache.report.stale_hits > LOGGED_STALE_HITS
    assert cache.report.compared > 0
    assert len(caplog.messages) == LOGGED_STALE_HITS
    assert all(
        f"{cache.name}: stale hit: another key's context is found under key 0x" in each for each in caplog.messages
    )
    assert ["not logged" in each for each in caplog.messages] == [False] * (LOGGED_STALE_HITS - 1) + [True]


@pairs
@pytest.mark.parametrize("which", ["primary", "shadow"])
def test_another_content_raises_and_says_where(names, which):
    cache = shadowed(names)
    infer(cache, Scope.ROOT, [(env, None, 5) for env in range(3)])
    spoilt = getattr(cache, which)
    if spoilt.name == "legacy":
        spoilt.init_pools[1].slots[0][1]._v_cache._cache[..., 0, 0] += 0.5
    else:
        content = spoilt.hierarchical_get(1, 5)
        content[1]._v_cache._cache[..., 0, 0] += 0.5
        spoilt.set_init_cache(1, 5, content)
    with pytest.raises(CacheMismatchError, match=r"key 0x0000000000000005 of environment 1, layer 1: .* differ by 0.5"):
        infer(cache, Scope.ROOT, [(env, 5, 6) for env in range(3)])


@pairs
@pytest.mark.parametrize(("roundings", "raises"), [(7, False), (9, True)])
def test_rounding_explains_a_difference_of_eight_roundings_and_no_more(names, roundings, raises):
    cache = shadowed(names)
    infer(cache, Scope.ROOT, [(env, None, 5) for env in range(3)])
    new = cache.primary if cache.primary.name != "legacy" else cache.shadow
    content = new.hierarchical_get(0, 5)
    assert content.block[0, 0, 0, 0, 0, 0] == 0
    largest = float(content.block[..., :2, :].abs().max())
    content.block[0, 0, 0, 0, 0, 0] = roundings * torch.finfo(torch.float32).eps * largest
    new.set_init_cache(0, 5, content)
    if raises:
        with pytest.raises(CacheMismatchError, match="environment 0, layer 0"):
            infer(cache, Scope.ROOT, [(env, 5, 6) for env in range(3)])
    else:
        infer(cache, Scope.ROOT, [(env, 5, 6) for env in range(3)])
        assert cache.report.compared == 3


@pairs
def test_stale_hits_are_not_compared_nor_counted_for_one_cache_only(names):
    """Legacy finds key 2's content under key 1, and the new cache evicted key 1: no difference, and not one's alone."""
    cache = shadowed(names, recur_pool_size=1)
    for key in (1, 2):
        infer(cache, Scope.NODE, [(0, None, key)])
    infer(cache, Scope.NODE, [(0, 1, 3)])
    report = cache.report
    assert (report.lookups, report.stale_hits) == (1, 1)
    assert (report.compared, report.only_primary, report.only_shadow) == (0, 0, 0)
    assert cache.stale_hits == (1 if names[0] == "legacy" else 0)


def test_a_stale_hit_that_the_other_cache_finds_too_raises_nothing():
    """The other cache is larger and finds the right content: it differs, since legacy's is another key's."""
    small, large = (CacheConfig(GEOMETRY, recur_pool_size=size) for size in (1, 4))
    cache = ShadowCache(make_backend("legacy", small), make_backend("new", large))
    for key, value in ((1, 1.0), (2, 2.0)):
        infer(cache, Scope.NODE, [(0, None, key)], value)
    infer(cache, Scope.NODE, [(0, 1, 3)])
    assert (cache.report.stale_hits, cache.report.compared) == (1, 0)


@pairs
def test_another_size_raises(names):
    cache = shadowed(names)
    infer(cache, Scope.ROOT, [(env, None, 5) for env in range(3)])
    new = cache.primary if cache.primary.name != "legacy" else cache.shadow
    new.set_init_cache(2, 5, entry(1, 3, tokens=GEOMETRY.context_length))
    with pytest.raises(CacheMismatchError, match=r"environment 2: .* a context of [23] tokens, .* one of [23]"):
        infer(cache, Scope.ROOT, [(env, 5, 6) for env in range(3)])


@pairs
def test_what_only_one_finds_is_counted_and_both_go_on_from_the_same(names):
    cache = shadowed(names)
    infer(cache, Scope.ROOT, [(env, None, 5) for env in range(3)])
    cache.shadow.clear_all()
    infer(cache, Scope.ROOT, [(env, 5, 6) for env in range(3)])
    assert (cache.report.only_primary, cache.report.only_shadow, cache.report.compared) == (3, 0, 0)
    cache.primary.clear_all()
    infer(cache, Scope.ROOT, [(env, 6, 7) for env in range(3)])
    assert (cache.report.only_primary, cache.report.only_shadow, cache.report.compared) == (3, 3, 0)
    infer(cache, Scope.ROOT, [(env, 7, 8) for env in range(3)])
    assert cache.report.compared == 3


def test_what_a_model_sees_is_the_primarys():
    cache = shadowed(("new:slab", "legacy"))
    search(cache)
    alone = make_backend("new:slab", cache.config)
    alone.position_shift = cache.position_shift
    search(alone)
    assert cache.get_stats_summary() == alone.get_stats_summary()
    assert cache.bytes_reserved == alone.bytes_reserved
    cache.reset_stats()
    assert cache.report.lookups == cache.shadow.hierarchy_stats.total_queries == 0
    cache.clear_all()
    assert np.array_equal(cache.lookup([0], [400], Scope.ROOT), [MISS])


@pairs
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_equal_contents_that_are_not_finite_are_no_difference(names, bad, caplog):
    cache = shadowed(names)
    infer(cache, Scope.ROOT, [(env, None, 5) for env in range(3)], bad)
    with caplog.at_level("WARNING"):
        for key in range(5, 9):
            infer(cache, Scope.ROOT, [(env, key, key + 1) for env in range(3)], bad)
    assert caplog.text.count("hold NaN or infinity") == 1


@pairs
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_beside_infinity_another_difference_is_still_one(names, bad):
    cache = shadowed(names)
    infer(cache, Scope.ROOT, [(env, None, 5) for env in range(3)], bad)
    new = cache.primary if cache.primary.name != "legacy" else cache.shadow
    content = new.hierarchical_get(0, 5)
    content.block[0, 1, 1, 0, 0, 0] = 3.0
    new.set_init_cache(0, 5, content)
    with pytest.raises(CacheMismatchError, match="environment 0, layer 1"):
        infer(cache, Scope.ROOT, [(env, 5, 6) for env in range(3)])


def test_it_is_named_after_both():
    assert shadowed(("legacy", "new:slab")).name == "legacy shadowed by new:slab"


@pytest.mark.parametrize("names", [("legacy-0.2.0", "new"), ("new", "legacy-0.2.0")])
def test_a_recurrent_miss_that_is_an_error_in_one_of_them_is_a_miss(names):
    cache = shadowed(names)
    infer(cache, Scope.ROOT, [(env, None, 5) for env in range(3)])
    if names[0] == "new":
        sizes = cache.lookup([0, 1], [5, 6], Scope.NODE)
        assert sizes == [2, MISS]
    else:
        with pytest.raises(RecurrentMissError):
            cache.lookup([0, 1], [5, 6], Scope.NODE)
    cache.supply(1, entry(7, 1, tokens=GEOMETRY.context_length))
    assert cache.assemble() == [2, 1]
    # What 0.2.0 found in the other row is unknown where its lookup ended in the error.
    only_shadow = 1 if names[0] == "legacy-0.2.0" else 0
    report = cache.report
    assert (report.lookups, report.compared, report.only_primary) == (2, 1 - only_shadow, 0)
    assert report.only_shadow == only_shadow


@pairs
def test_empty_contexts_that_the_model_replaces_are_compared_by_size(names):
    """At context_length 3 a slid window is empty, and LightZero's model fills it."""
    config = CacheConfig(replace(GEOMETRY, context_length=3, positions="rotary"))
    cache = ShadowCache(*(make_backend(name, config) for name in names))
    for batch in range(3):
        sizes = cache.lookup([0, 1, 2], [batch or None] * 3, Scope.ROOT)
        assert sizes == [EMPTY] * 3
        if batch != 1:
            for row in range(3):
                cache.supply(row, entry(row, 1, tokens=3))
        cache.assemble()
        for layer in cache.keys_values_wm:
            layer.update(torch.ones(3, 2, 2, 3), torch.ones(3, 2, 2, 3))
        cache.store([0, 1, 2], [batch + 1] * 3, Scope.ROOT)
    assert (cache.report.lookups, cache.report.compared) == (6, 6)


@pairs
def test_without_corrections_no_difference_is_explained_by_rounding(names):
    cache = shadowed(names, "rotary")
    infer(cache, Scope.ROOT, [(env, None, 5) for env in range(3)])
    new = cache.primary if cache.primary.name != "legacy" else cache.shadow
    content = new.hierarchical_get(0, 5)
    content.block[0, 0, 0, 0, 0, 0] += 1e-7
    new.set_init_cache(0, 5, content)
    with pytest.raises(CacheMismatchError, match="environment 0, layer 0"):
        infer(cache, Scope.ROOT, [(env, 5, 6) for env in range(3)])


@pairs
def test_infinite_elements_explain_no_rounding(names):
    """The other elements are small, and so is the rounding that they explain."""
    cache = shadowed(names)
    cache.lookup([0], [None], Scope.ROOT)
    cache.assemble()
    for layer in cache.keys_values_wm:
        tokens = torch.full((1, 2, 2, 3), 1e-3)
        tokens[..., 0] = torch.inf
        layer.update(tokens, tokens)
    cache.store([0], [5], Scope.ROOT)
    new = cache.primary if cache.primary.name != "legacy" else cache.shadow
    content = new.hierarchical_get(0, 5)
    content.block[0, 0, 0, 0, 0, 1] += 1e-7
    new.set_init_cache(0, 5, content)
    with pytest.raises(CacheMismatchError, match="environment 0, layer 0"):
        infer(cache, Scope.ROOT, [(0, 5, 6)])


def test_both_store_with_the_priorities():
    cache = shadowed(("new:slab", "new:private"), eviction_strategy="priority", init_pool_size=2)
    for key, priority in ((5, 3.0), (6, 1.0), (7, 2.0)):
        cache.lookup([0], [None], Scope.ROOT)
        cache.assemble()
        for layer in cache.keys_values_wm:
            layer.update(torch.ones(1, 2, 2, 3), torch.ones(1, 2, 2, 3))
        cache.store([0], [key], Scope.ROOT, [priority])
    for each in (cache.primary, cache.shadow):
        assert set(each.init_pools[0]) == {5, 7}


def test_one_environment_is_cleared_in_both():
    cache = shadowed(("new:slab", "new:private"))
    infer(cache, Scope.ROOT, [(env, None, 5) for env in range(3)])
    cache.clear_init_caches([1])
    for each in (cache.primary, cache.shadow):
        assert [len(pool) for pool in each.init_pools] == [1, 0, 1]


POOLS = [*(f"init_pools[{env}]" for env in range(3)), "recur_pool", "wm_pool"]


@pairs
@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("pool", POOLS)
def test_clearing_a_pool_directly_reaches_both_caches(names, pool, copied):
    cache = shadowed(names)
    search(cache, searches=2)
    if copied:
        cache = copy.deepcopy(cache)
    for each in (cache.primary, cache.shadow):
        if pool == "wm_pool" and each.name.startswith("new"):
            each.wm_pool.set(5, entry(7, 1, tokens=GEOMETRY.context_length))

    def sizes(each):
        return {name: len(eval(f"each.{name}", {"each": each})) for name in POOLS}

    before = sizes(cache.primary), sizes(cache.shadow)
    eval(f"cache.{pool}", {"cache": cache}).clear()
    assert (sizes(cache.primary), sizes(cache.shadow)) == tuple({**each, pool: 0} for each in before)
    search(cache)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("change", ["get", "set", "set_priority", "reset", "claim", "empty", "write", "no_such_thing"])
def test_what_would_reach_one_of_two_caches_is_refused_by_name(pool, change):
    cache = shadowed(["legacy", "new:paged"])
    with pytest.raises(AttributeError, match=f"{change} of a pool would reach one of two caches: call"):
        getattr(eval(f"cache.{pool}", {"cache": cache}), change)
    assert not hasattr(cache.recur_pool, "__wrapped__")


def test_pools_of_two_caches_can_be_read():
    cache = shadowed(["new:paged", "legacy"])
    search(cache, searches=1)
    assert (len(cache.init_pools[0]), 100 in cache.init_pools[0], list(cache.init_pools[0])) == (1, True, [100])
    assert cache.recur_pool.pool_size == cache.primary.recur_pool.pool_size
    assert cache.recur_pool.stats is cache.primary.recur_pool.stats
    assert cache.recur_pool.bytes_reserved == cache.primary.recur_pool.bytes_reserved > 0
    assert repr(cache.recur_pool) == repr(cache.primary.recur_pool)


BAD_STORES = {
    "fewer keys": ([0, 1], [11], Scope.NODE),
    "fewer environments": ([0], [11, 12], Scope.NODE),
    "another environment": ([0, 7], [11, 12], Scope.ROOT),
    "True": ([0, True], [11, 12], Scope.ROOT),
    "no scope": ([0, 1], [11, 12], "node"),
    "unhashable": ([0, 1], [11, [12]], Scope.NODE),
    "None": ([0, 1], [11, None], Scope.NODE),
    "NaN": ([0, 1], [11, 12], Scope.NODE, [1.0, float("nan")]),
    "no number": ([0, 1], [11, 12], Scope.NODE, [1.0, "x"]),
    "too large": ([0, 1], [11, 12], Scope.NODE, [1.0, 10**400]),
    "fewer priorities": ([0, 1], [11, 12], Scope.NODE, [1.0]),
}


def appended(cache, parents=(None, None)):
    cache.lookup([0, 1], parents, Scope.NODE)
    cache.assemble()
    for layer in cache.keys_values_wm:
        layer.update(torch.ones(2, 2, 2, 3), torch.ones(2, 2, 2, 3))
    return cache


@pairs
@pytest.mark.parametrize("bad", BAD_STORES)
def test_a_refused_store_is_refused_by_both_and_leaves_the_batch_as_it_is(names, bad):
    cache = appended(shadowed(names, eviction_strategy="priority"))
    with pytest.raises((TypeError, ValueError)):
        cache.store(*BAD_STORES[bad])
    cache.store([0, 1], [3, 4], Scope.NODE)
    assert len(cache.primary.recur_pool) == len(cache.shadow.recur_pool) == 2
    assert appended(cache, [3, 4]).keys_values_wm_size_list == [2, 2]  # and both have the same contents
    assert cache.report.compared == 2


@pairs
def test_a_batch_can_be_stored_in_two_places(names):
    cache = appended(shadowed(names))
    cache.store([0, 1], [3, 4], Scope.ROOT)
    cache.store([0, 1], [5, 6], Scope.NODE)
    appended(cache, [3, 4])
    appended(cache, [5, 6])
    assert cache.report.compared == 4


@pairs
def test_a_store_out_of_order_reaches_neither(names):
    cache = shadowed(names)
    for prepare in (lambda: None, lambda: cache.lookup([0, 1], [None, None], Scope.NODE), cache.clear_all):
        prepare()
        with pytest.raises(OrderError, match="call lookup and assemble"):
            cache.store([0, 1], [3, 4], Scope.NODE)
    assert len(cache.primary.recur_pool) == len(cache.shadow.recur_pool) == 0


@pairs
def test_a_bad_lookup_says_what_is_wrong_and_counts_nothing(names):
    cache = shadowed(names)
    for arguments, fault in ((([0], [1, 2], Scope.NODE), "2 keys"), (([-1], [1], Scope.NODE), "0..2")):
        with pytest.raises(ValueError, match=fault):
            cache.lookup(*arguments)
    assert not cache.report.stale_hits


def test_what_an_interrupted_legacy_write_leaves_is_no_keys_content():
    class Interrupted:
        def __iter__(self):
            raise KeyboardInterrupt

    pool = LegacyPool(1, evicts=False)
    pool.set(1, entry(1))
    with pytest.raises(KeyboardInterrupt):
        pool.set(2, Interrupted())
    assert pool.owner(1) != 1  # a stale hit, and reported as such
    pool.set(2, entry(2))
    assert (pool.owner(1), pool.owner(2)) == (2, 2)
