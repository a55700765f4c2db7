"""Paged storage: tables of shared pages, and what is left of them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conformance import ENVS, GEOMETRY, CopyingStorageConformance, Twins, run_script, scripts
from hypothesis import given, settings
from hypothesis import strategies as st

from kvcache.backend import CacheConfig, Scope
from kvcache.kernels import TRASH, ZERO
from kvcache.manager import KVCacheManager

SMALL = st.integers(1, 6)


class TestPagedStorage(CopyingStorageConformance):
    storage = "paged"

    def check_memory_kept(self, pool, inserts):
        pages = pool.storage.memory
        assert pages.used == 2 + inserts * 4  # nobody's two, and the tokens of an entry
        assert pages.nbytes >= pages.used * pages.row_bytes
        # What is kept is free for other pools, but for what this one reserved: two tokens a slot.
        assert pool.bytes_reserved == inserts * 2 * pages.row_bytes


def pools_of(cache):
    return [*cache.init_pools, cache.recur_pool, cache.wm_pool]


def check_pages(cache):
    """Every page is free, once, or held as often as it is counted."""
    pages = cache.recur_pool.storage.memory
    pages._collect()
    held = Counter()
    for pool in pools_of(cache):
        for key in pool:
            held.update(pool.storage.rows_of(pool._slots[key]).tolist())
        live = {pool._slots[key] for key in pool}
        assert all(pool.storage.size(slot) == 0 for slot in range(pool.pool_size) if slot not in live)
    assert not {ZERO, TRASH} & (set(held) | set(pages._free))
    assert len(set(pages._free)) == len(pages._free)
    assert sorted([*held, *pages._free]) == list(range(2, pages.used))
    assert {page: int(pages.references[page]) for page in held} == dict(held)
    assert not pages.references[pages._free].any()
    charged = np.bincount(pages._owners[list(held)], minlength=len(pools_of(cache))) if held else [0] * ENVS
    assert [pages.charge(pool.storage.owner) for pool in pools_of(cache)][: len(charged)] == list(charged)[: ENVS + 2]


def paged(geometry=GEOMETRY, **options):
    return KVCacheManager(CacheConfig(geometry, storage="paged", **options))


@pytest.mark.parametrize("strategy", ["fifo", "lru", "priority"])
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
        # What a batch's rows share stays until they are stored: no more than a batch can be beyond the limit.
        held = cache.recur_pool.storage.memory.charge(cache.recur_pool.storage.owner)
        assert held <= max(limit, ENVS * GEOMETRY.context_length)


@pytest.mark.parametrize("positions", ["rotary", "absolute"])
def test_a_child_owns_its_own_tokens_and_nothing_else(positions):
    cache = paged(replace(GEOMETRY, positions=positions))
    twins = Twins(cache)
    pages = cache.recur_pool.storage.memory
    twins.infer(Scope.NODE, [(0, 99, 1)])  # a miss: three tokens
    for key in range(1, 10):  # the window slides from the second on
        before = len(pages._free), pages.used
        twins.infer(Scope.NODE, [(0, key, key + 1)])
        assert (before[0] - len(pages._free)) + (pages.used - before[1]) == 2
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
    pages = cache.recur_pool.storage.memory
    charged = pages.charge(cache.recur_pool.storage.owner)
    twins.store([0], [2], Scope.NODE)
    assert pages.charge(cache.recur_pool.storage.owner) == charged + 4
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
