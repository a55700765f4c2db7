"""Paged storage: tables of shared pages, and what is left of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conformance import (
    ENVS,
    GEOMETRY,
    CopyingStorageConformance,
    Twins,
    entry,
    live,
    run_script,
    same_bits,
    scripts,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from invariants import check_pages, pools_of

from kvcache.backend import MISS, Scope
from kvcache.config import CacheConfig
from kvcache.kernels import NULL_PAGE, ZERO_PAGE
from kvcache.manager import KVCacheManager
from kvcache.storage import page_arrays
from kvcache.storage import paged as paged_module

SMALL = st.integers(1, 6)


@pytest.fixture(scope="module", params=["compiled", "NumPy"], autouse=True)
def arithmetic(request):
    """Everything here holds with either."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "NumPy":
            patch.setattr(paged_module, "arrays", page_arrays)
        elif paged_module.arrays is page_arrays:
            pytest.skip("not compiled")
        yield


class TestPagedStorage(CopyingStorageConformance):
    storage = "paged"

    def check_memory_kept(self, pool, inserts):
        pages = pool.storage.memory
        assert pages.used == 2 + inserts * 4  # the zero page, the null page, and the tokens of entries
        assert pages.nbytes >= pages.used * pages.row_bytes
        # What is kept is free for other pools, but for what this one reserved: two tokens a slot.
        assert pool.bytes_reserved == inserts * 2 * pages.row_bytes


def charge(cache):
    return cache.recur_pool.storage.charge


def paged(geometry=GEOMETRY, **options):
    """A manager whose pools evict in a known order, if no other is given."""
    return KVCacheManager(CacheConfig(geometry, storage="paged", **({"eviction_strategy": "fifo"} | options)))


@pytest.mark.parametrize("strategy", ["fifo", "lru", "priority", "tree"])
@settings(max_examples=50)
@given(script=scripts(), init_size=SMALL, recur_size=SMALL, resident=st.booleans())
def test_no_page_is_lost_or_held_twice(strategy, script, init_size, recur_size, resident):
    cache = paged(
        init_pool_size=init_size, recur_pool_size=recur_size, eviction_strategy=strategy, resident_batch=resident
    )
    twins = Twins(cache, may_forget=True)
    for step in script:
        run_script(twins, [step])
        check_pages(cache)
    cache.clear_all()
    check_pages(cache)
    assert not any(len(pool) for pool in pools_of(cache))


@settings(max_examples=50)
@given(script=scripts(), tokens=st.integers(0, 12))
def test_bytes_are_a_limit_and_what_is_found_is_right(script, tokens):
    page = GEOMETRY.entry_bytes() // GEOMETRY.context_length
    limit = GEOMETRY.context_length + tokens
    cache = paged(recur_pool_bytes=limit * page + page - 1)
    twins = Twins(cache, may_forget=True)
    for step in script:
        run_script(twins, [step])
        check_pages(cache)
        # Nobody but the pool's own entries holds its pages: a root is not stored under a node's context.
        assert charge(cache) <= limit


@pytest.mark.parametrize("positions", ["rotary", "absolute"])
def test_a_child_owns_its_own_tokens_and_nothing_else(positions):
    cache = paged(replace(GEOMETRY, positions=positions))
    twins = Twins(cache)
    pages = cache.recur_pool.storage.memory
    twins.infer(Scope.NODE, [(0, 99, 1)])  # a miss: three tokens
    for key in range(1, 10):  # the window slides from the second on
        before = len(pages.free), pages.used
        twins.infer(Scope.NODE, [(0, key, key + 1)])
        assert (before[0] - len(pages.free)) + (pages.used - before[1]) == 2
    assert twins.look_up([0, 0], [10, 1], Scope.NODE) == [5, 3]
    twins.assemble()


def test_a_parent_may_go_and_its_children_stay():
    cache = paged(recur_pool_size=2)
    twins = Twins(cache, may_forget=True)
    for key in range(1, 4):
        twins.infer(Scope.NODE, [(0, key - 1 or None, key)])
    assert twins.look_up([0, 0, 0], [1, 2, 3], Scope.NODE) == [-1, 4, 6]
    check_pages(cache)


def test_a_parent_that_was_overwritten_meanwhile_is_copied_and_not_shared():
    cache = paged()
    twins = Twins(cache)
    twins.infer(Scope.NODE, [(0, None, 1)])
    twins.look_up([0], [1], Scope.NODE)
    twins.assemble()
    twins.append(2)
    cache.set_recur_cache(1, cache.get_recur_cache(1))  # the pool was written to
    charged = charge(cache)
    twins.store([0], [2], Scope.NODE)
    assert charge(cache) == charged + 4
    assert twins.infer(Scope.NODE, [(0, 2, 3)]) == [4]
    check_pages(cache)


def test_at_equal_bytes_paged_holds_more():
    found = {}
    for storage in ("slab", "paged"):
        cache = KVCacheManager(CacheConfig(GEOMETRY, storage=storage, recur_pool_bytes=4 * GEOMETRY.entry_bytes()))
        twins = Twins(cache, may_forget=True)
        twins.infer(Scope.NODE, [(0, None, 1)])
        for key in range(1, 12):
            twins.infer(Scope.NODE, [(0, key, key + 1)])
        found[storage] = len(cache.recur_pool)
    assert found["slab"] == 4
    assert found["paged"] >= 12


@pytest.mark.parametrize("positions", ["rotary", "absolute"])
@pytest.mark.parametrize("resident", [False, True])
def test_all_that_is_evicted_is_free_again(positions, resident):
    cache = paged(replace(GEOMETRY, positions=positions), recur_pool_size=4, resident_batch=resident)
    twins = Twins(cache, may_forget=True)
    pages = cache.recur_pool.storage.memory
    for key in range(1, 20):
        twins.infer(Scope.NODE, [(0, key - 1 or None, key)])
    # The last four contexts of a chain that slides: 5 tokens the oldest and 2 for each that grew from it.
    assert charge(cache) == 5 + 3 * 2
    for key in range(100, 104):
        twins.infer(Scope.NODE, [(0, None, key)])
    assert charge(cache) == 4 * 2
    assert pages.used - 2 - len(pages.free) == 4 * 2
    check_pages(cache)


@pytest.mark.parametrize("positions", ["rotary", "absolute"])
def test_siblings_share_their_parent_and_nothing_of_each_other(positions):
    cache = paged(replace(GEOMETRY, positions=positions))
    twins = Twins(cache)
    twins.infer(Scope.ROOT, [(0, None, 1)])
    twins.infer(Scope.ROOT, [(0, 1, 2)])
    twins.infer(Scope.NODE, [(0, 2, key) for key in (10, 11, 12)])
    assert charge(cache) == 3 * 2
    rows = [cache.recur_pool.storage.rows_of(cache.recur_pool.find(key)) for key in (10, 11, 12)]
    assert len({tuple(each[:4]) for each in rows}) == 1
    assert len({page for each in rows for page in each[4:]}) == 6
    twins.clear("clear_init_caches")
    assert twins.infer(Scope.NODE, [(0, 10, 20), (0, 11, 21), (0, 12, 22)]) == [6, 6, 6]
    check_pages(cache)


@pytest.mark.parametrize("clear", ["clear_recur_cache", "clear_init_caches"])
@pytest.mark.parametrize("slides", [False, True])
def test_parents_that_were_cleared_meanwhile_are_copied_and_not_shared(clear, slides):
    cache = paged()
    twins = Twins(cache)
    last = 4 if slides else 2  # after which 6 tokens are looked up, or 4
    for key in range(1, last):
        for scope in (Scope.ROOT, Scope.NODE):
            twins.infer(scope, [(0, key - 1 or None, key if scope is Scope.ROOT else 10 + key)])
    if clear == "clear_recur_cache":
        twins.infer(Scope.NODE, [(0, last - 1, 50)])
    parent = 50 if clear == "clear_recur_cache" else last - 1
    (size,) = twins.look_up([0], [parent], Scope.NODE)
    twins.assemble()
    twins.append(2)
    twins.clear(clear)
    before = charge(cache)
    twins.store([0], [99], Scope.NODE)
    _, stored = GEOMETRY.window(size + 2)
    assert charge(cache) == before + stored
    for key in range(99, 104):
        twins.infer(Scope.NODE, [(0, key, key + 1)])
    check_pages(cache)


_WHOLE = st.tuples(st.none() | st.integers(0, ENVS - 1), SMALL, st.integers(0, GEOMETRY.context_length), st.booleans())


@settings(max_examples=60)
@given(script=scripts(), whole=st.lists(_WHOLE, min_size=24, max_size=24), limited=st.booleans())
def test_no_page_is_lost_where_entries_are_set_and_got_one_by_one(script, whole, limited):
    """And whose pages are whose: a whole entry is its pool's own."""
    entry_bytes = GEOMETRY.entry_bytes()
    sizes = {"init_pool_bytes": 2 * entry_bytes, "recur_pool_bytes": 2 * entry_bytes}
    cache = paged(**(sizes if limited else {"init_pool_size": 3, "recur_pool_size": 4}))
    twins = Twins(cache, may_forget=True)
    for step, (env, key, size, sets) in zip(script, whole, strict=False):
        run_script(twins, [step])
        # Keys that no search looks up: the naive cache does not have them.
        if sets:
            content = entry(key, size, tokens=GEOMETRY.context_length)
            cache.set_recur_cache(-key, content) if env is None else cache.set_init_cache(env, -key, content)
        found = cache.get_recur_cache(-key) if env is None else cache.hierarchical_get(env, -key)
        assert found is not None or not sets
        if found is not None:
            assert same_bits(live(found), live(entry(key, found.size, tokens=GEOMETRY.context_length)))
        check_pages(cache)
    cache.clear_all()
    check_pages(cache)
    pages = cache.recur_pool.storage.memory
    assert len(pages.free) == pages.used - 2
    assert [pool.storage.charge for pool in pools_of(cache)] == [0] * (ENVS + 2)


def released(monkeypatch):
    """The length of each array of pages that is released from now on."""
    lengths, release = [], paged_module.arrays.release

    def counted(pages, *arguments):
        lengths.append(len(pages))
        return release(pages, *arguments)

    monkeypatch.setattr(paged_module.arrays, "release", counted)
    return lengths


def whole(key):
    return entry(key, 4, tokens=GEOMETRY.context_length)


def full(recur_size):
    cache = paged(init_pool_size=2, recur_pool_size=recur_size)
    for key in range(recur_size):
        cache.set_recur_cache(key, whole(key))
    return cache


CLEARS = {
    "recur": lambda cache: cache.clear_recur_cache(),
    "one environment": lambda cache: cache.clear_init_caches([0]),
    "all": lambda cache: cache.clear_all(),
}


@pytest.mark.parametrize("clear", CLEARS)
def test_a_clear_releases_no_page_however_many_are_held(clear, monkeypatch):
    cache = full(200)
    lengths = released(monkeypatch)
    CLEARS[clear](cache)
    assert lengths == []
    if clear != "one environment":
        assert charge(cache) == 0  # who asks has them counted
        assert sum(lengths) == 200 * 4
    check_pages(cache)


def test_pages_of_cleared_entries_are_used_before_memory_grows(monkeypatch):
    cache = full(600)
    pages = cache.recur_pool.storage.memory
    used, reserved = pages.used, pages.nbytes
    cache.clear_recur_cache()
    lengths = released(monkeypatch)
    cache.set_init_cache(0, 1, whole(1))
    assert sum(lengths) <= 256 * 4  # some of them, not all
    for key in range(600):
        cache.set_recur_cache(1000 + key, whole(key))
        check = cache.get_recur_cache(1000 + key)
        assert same_bits(live(check), live(whole(key)))
    assert pages.used <= used + 4  # one entry more than ever before
    cache.clear_recur_cache()
    used = pages.used
    for _ in range(3):
        for env in range(ENVS):
            for key in range(2):
                cache.set_init_cache(env, key, whole(key))
        cache.clear_all()
    assert (pages.used, pages.nbytes >= reserved) == (used, True)
    check_pages(cache)


def test_a_page_that_a_live_entry_shares_survives_the_clear_of_the_pool_that_made_it():
    cache = paged(init_pool_size=2, recur_pool_size=2)
    cache.set_recur_cache(1, whole(1))
    cache.lookup([0], [1], Scope.NODE)
    cache.assemble()
    cache.store([0], [2], Scope.ROOT)  # the init entry has the recurrent one's pages
    before = live(cache.get_init_cache(0, 2)).clone()
    cache.clear_recur_cache()
    assert charge(cache) == 4
    for key in range(3, 40):
        cache.set_recur_cache(key, whole(key))
        check_pages(cache)
    assert same_bits(live(cache.get_init_cache(0, 2)), before)
    cache.clear_init_caches([0])
    check_pages(cache)


@pytest.mark.parametrize("fails", ["scatter", "memory"])
@pytest.mark.parametrize("keys", [(3, 4), (1, 2), (3, 3), (2, 9)], ids=["new", "old", "one key", "old and new"])
@pytest.mark.parametrize("recur_size", [2, 10])
def test_a_store_that_fails_loses_no_page(fails, keys, recur_size, monkeypatch):
    cache = paged(recur_pool_size=recur_size)
    twins = Twins(cache, may_forget=True)
    twins.infer(Scope.NODE, [(0, None, 1), (1, None, 2)])
    twins.look_up([0, 1], [1, 2], Scope.NODE)
    twins.assemble()
    twins.append(2)

    def fail(*_):
        raise MemoryError("full")

    where = (
        (cache._batch._kernels, "scatter") if fails == "scatter" else (cache.recur_pool.storage.memory, "_make_free")
    )
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(*where, fail)
        cache.store([0, 1], keys, Scope.NODE)
    assert not len(cache.recur_pool)
    check_pages(cache)
    assert charge(cache) == 0
    twins.naive.recur.clear()
    for key in range(20, 26):
        twins.infer(Scope.NODE, [(0, key - 1 if key > 20 else None, key), (1, None, key + 10)])
        check_pages(cache)


def test_what_padding_is_gathered_from_stays_zero():
    cache = paged(recur_pool_size=3)
    twins = Twins(cache, may_forget=True)
    for key in range(30):
        twins.infer(Scope.NODE, [(0, key or None, key + 1), (1, None, 100 + key), (2, 500, 200)])
    assert not cache.recur_pool.storage.memory.rows[ZERO_PAGE].any()


@settings(max_examples=30)
@given(script=scripts(), recur_size=SMALL)
def test_a_serial_number_is_one_contents_for_ever(script, recur_size):
    cache = paged(recur_pool_size=recur_size)
    twins = Twins(cache, may_forget=True)
    pages, known = cache.recur_pool.storage.memory, {}
    for step in script:
        run_script(twins, [step])
        held = np.flatnonzero(pages.references[: pages.used])
        held = held[held > NULL_PAGE]
        for page, serial in zip(held, pages.serials[held].tolist(), strict=True):
            content = tuple(pages.rows[page].tolist())
            assert known.setdefault(serial, content) == content
        assert len(set(pages.serials[held].tolist())) == len(held)
    assert pages.serials[ZERO_PAGE] == 0
    assert 0 not in known


@pytest.mark.parametrize("limit_in_entries", [2, 4, 8])
def test_at_equal_bytes_paged_finds_more(limit_in_entries):
    """A search of a tree: each simulation grows from a node chosen at random among all so far."""
    hits, entries = {}, {}
    for storage in ("slab", "paged"):
        limit = limit_in_entries * GEOMETRY.entry_bytes()
        cache = KVCacheManager(CacheConfig(GEOMETRY, storage=storage, recur_pool_bytes=limit))
        assert cache.recur_pool.pool_size == limit_in_entries * (8 if storage == "paged" else 1)
        twins, random = Twins(cache, may_forget=True), np.random.default_rng(0)
        most = 0
        for step in range(1, 40):
            parents = [int(random.integers(max(0, step - 8), step)) for _ in range(ENVS)]
            if step == 1:
                twins.infer(Scope.NODE, [(env, None, 1000 * env + 1) for env in range(ENVS)])
                continue
            rows = [(env, 1000 * env + max(parent, 1), 1000 * env + step) for env, parent in enumerate(parents)]
            found = cache.lookup([row[0] for row in rows], [row[1] for row in rows], Scope.NODE)
            for row, size in enumerate(found):
                if size == MISS:
                    cache.supply(row, entry(step, 3, tokens=GEOMETRY.context_length))
            cache.assemble()
            for layer in cache.keys_values_wm:
                layer.update(torch.ones(ENVS, 2, 2, 3), torch.ones(ENVS, 2, 2, 3))
            cache.store([row[0] for row in rows], [row[2] for row in rows], Scope.NODE)
            most = max(most, len(cache.recur_pool))
            if storage == "paged":
                assert charge(cache) <= limit_in_entries * 8
        hits[storage], entries[storage] = cache.hierarchy_stats.hits, most
    assert entries["slab"] == limit_in_entries
    assert entries["paged"] > entries["slab"]
    assert hits["paged"] > hits["slab"]


def test_an_init_pool_of_bytes_is_charged_for_what_it_allocated():
    cache = paged(init_pool_bytes=2 * GEOMETRY.entry_bytes())
    twins = Twins(cache, may_forget=True)
    for key in range(1, 30):
        twins.infer(Scope.ROOT, [(0, key - 1 or None, key), (1, None, key)])
        for env in (0, 1):
            assert cache.init_pools[env].storage.charge <= 16
    assert len(cache.init_pools[0]) == 1 + (16 - 5) // 2  # the oldest, and steps of those that grew from it
    assert len(cache.init_pools[1]) == 8
    assert not len(cache.init_pools[2])
    check_pages(cache)


def test_reading_an_entry_corrects_it_as_the_batch_does():
    cache = paged()
    twins = Twins(cache)
    for key in range(6):
        twins.infer(Scope.NODE, [(0, key or None, key + 1)])
        stored, wanted = cache.get_recur_cache(key + 1), twins.naive.recur[key + 1]
        assert same_bits(live(stored)[0], torch.stack(wanted, dim=3))


def test_a_batch_that_is_too_large_for_the_limit_keeps_as_many_of_its_rows_as_fit():
    """Rows that gave way to later ones of their own batch hold nothing any more, and their parents neither."""
    geometry = replace(GEOMETRY, positions="rotary", env_num=8)
    kept = []
    cache = paged(geometry, recur_pool_bytes=4 * geometry.entry_bytes())
    for step in range(8):
        cache.lookup(range(8), [100 * env + step if step else None for env in range(8)], Scope.NODE)
        for row, size in enumerate(cache.keys_values_wm_size_list):
            if size == MISS:
                cache.supply(row, entry(1, 1, tokens=geometry.context_length))
        cache.assemble()
        for layer in cache.keys_values_wm:
            layer.update(torch.ones(8, 2, 2, 3), torch.ones(8, 2, 2, 3))
        cache.store(range(8), [100 * env + step + 1 for env in range(8)], Scope.NODE)
        kept.append(len(cache.recur_pool))
        assert charge(cache) <= 32
        check_pages(cache)
    assert kept == [8, 16, 5, 7, 6, 6, 6, 6]  # of five tokens each, some of which are shared: 4 at least


def test_an_init_pools_pages_are_not_held_by_others_where_its_bytes_are_limited():
    cache = paged(init_pool_bytes=GEOMETRY.entry_bytes())
    for key in range(1, 6):
        cache.set_init_cache(0, key, entry(key, 4, tokens=GEOMETRY.context_length))
        cache.lookup([0], [key], Scope.NODE)
        cache.assemble()
        cache.store([0], [50 + key], Scope.NODE)
        assert cache.init_pools[0].storage.charge <= 8
        assert same_bits(live(cache.get_recur_cache(50 + key)), live(entry(key, 4, tokens=GEOMETRY.context_length)))
    check_pages(cache)


def test_another_position_shift_frees_all_pages():
    cache = paged(recur_pool_bytes=GEOMETRY.entry_bytes())
    twins = Twins(cache, may_forget=True)
    for key in range(1, 4):
        twins.infer(Scope.NODE, [(0, key - 1 or None, key)])
    cache.position_shift = None
    assert charge(cache) == 0
    check_pages(cache)


def test_an_update_frees_its_own_pages_first_and_evicts_nothing():
    cache = paged(recur_pool_bytes=GEOMETRY.entry_bytes())
    for key in (1, 2, 2, 1):
        cache.set_recur_cache(key, entry(key, 4, tokens=GEOMETRY.context_length))
    assert set(cache.recur_pool) == {1, 2}
    assert cache.recur_pool.stats.evictions == 0
    check_pages(cache)


@pytest.mark.parametrize("options", [{}, {"recur_pool_bytes": GEOMETRY.entry_bytes()}], ids=["slots", "bytes"])
def test_of_two_rows_with_one_key_the_last_is_stored_and_the_firsts_pages_are_free(options):
    cache = paged(**options)
    cache.lookup([0, 0, 0], [None] * 3, Scope.NODE)
    cache.assemble()
    for layer in cache.keys_values_wm:
        tokens = torch.arange(3.0)[:, None, None, None].expand(3, 2, 2, 3)
        layer.update(tokens, tokens)
    cache.store([0, 0, 0], [1, 2, 1], Scope.NODE)
    check_pages(cache)
    assert charge(cache) == 2 * 2
    assert [live(cache.get_recur_cache(key)).unique().tolist() for key in (1, 2)] == [[2.0], [1.0]]


def test_a_batch_that_updates_entries_frees_their_pages_first_and_evicts_nothing():
    cache = paged(recur_pool_bytes=GEOMETRY.entry_bytes())
    for keys in ([1, 2], [2, 1], [1, 2]):
        cache.lookup([0, 0], [None, None], Scope.NODE)
        cache.assemble()
        for layer in cache.keys_values_wm:
            layer.update(torch.ones(2, 2, 4, 3), torch.ones(2, 2, 4, 3))
        cache.store([0, 0], keys, Scope.NODE)
        check_pages(cache)
    assert set(cache.recur_pool) == {1, 2}
    assert cache.recur_pool.stats.evictions == 0
