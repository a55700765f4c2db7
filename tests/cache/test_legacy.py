"""The legacy caches' own faults, each shown; what they do right is in the conformance suite."""

import pytest
import torch
from conformance import ENVS, GEOMETRY, Twins, entry, live, same_bits

from kvcache.backend import EMPTY, MISS, Scope
from kvcache.config import CacheConfig
from kvcache.legacy import LEGACY, LEGACY_0_2_0, LEGACY_MAIN, LegacyCache, RecurrentMissError
from kvcache.legacy_pool import LegacyPool

VARIANTS = [LEGACY, LEGACY_0_2_0]
each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)


def cache(variant=LEGACY, **options):
    return LegacyCache(CacheConfig(GEOMETRY, **options), variant)


def store(backend, key, value, scope=Scope.ROOT, env=0):
    """One inference of one row that starts empty and whose two tokens are all ``value``."""
    backend.lookup([env], [None], scope)
    backend.assemble()
    for layer in backend.keys_values_wm:
        tokens = torch.full((1, GEOMETRY.num_heads, 2, GEOMETRY.head_dim), float(value))
        layer.update(tokens, tokens)
    backend.store([env], [key], scope)


def content(backend, key, scope=Scope.ROOT, env=0):
    """The one value of the tokens found under ``key``; None for a miss."""
    try:
        sizes = backend.lookup([env], [key], scope)
    except RecurrentMissError:
        sizes = [MISS]
    if sizes == [MISS]:
        return None
    backend.assemble()
    (value,) = live(backend.keys_values_wm).unique().tolist()
    return value


@each_variant
def test_a_recurrent_slot_that_is_overwritten_answers_for_its_former_key(variant):
    backend = cache(variant, recur_pool_size=2)
    for key in (1, 2, 3):
        store(backend, key, 10 * key, Scope.NODE)
    assert content(backend, 1, Scope.NODE) == 30  # stale: the content of key 3
    assert content(backend, 2, Scope.NODE) == 20
    assert content(backend, 3, Scope.NODE) == 30
    assert (backend.recur_pool.stats.hits, backend.recur_pool.stats.misses) == (3, 0)  # it does not know


@each_variant
def test_a_hit_is_stale_only_while_the_keys_slot_holds_another_keys_content(variant):
    backend = cache(variant, init_pool_size=2, recur_pool_size=2)
    for key in (1, 2, 3):
        store(backend, key, 10 * key, Scope.NODE)
    assert [backend.is_stale(0, key, Scope.NODE) for key in (1, 2, 3, 4)] == [True, False, False, False]
    assert not any(backend.is_stale(0, key, Scope.ROOT) for key in (1, 2, 3))  # roots do not ask the recurrent pool
    store(backend, 1, 11)  # the init pool is asked first
    assert not backend.is_stale(0, 1, Scope.NODE)
    assert (backend.recur_pool.stats.total_queries, backend.hierarchy_stats.total_queries) == (0, 0)


@pytest.mark.parametrize(("variant", "found"), [(LEGACY, None), (LEGACY_0_2_0, 30)], ids=["legacy", "legacy-0.2.0"])
def test_only_the_later_legacy_evicts_on_init(variant, found):
    backend = cache(variant, init_pool_size=2)
    for key in (1, 2, 3):
        store(backend, key, 10 * key)
    assert content(backend, 1) == found
    assert (content(backend, 2), content(backend, 3)) == (20, 30)


@each_variant
@pytest.mark.parametrize("scope", Scope)
def test_an_entry_that_lost_its_slot_counts_as_one_eviction(variant, scope):
    backend = cache(variant, init_pool_size=2, recur_pool_size=2)
    for key in (1, 2, 3, 4, 5):
        store(backend, key, key, scope)
    pool = backend.recur_pool if scope is Scope.NODE else backend.init_pools[0]
    assert pool.stats.evictions == 3


@pytest.mark.parametrize(
    ("variant", "options", "size"),
    [
        (LEGACY, {}, 256),
        (LEGACY, {"game_segment_length": 20}, 20),
        (LEGACY, {"init_pool_size": 5, "game_segment_length": 20}, 5),
        (LEGACY_0_2_0, {}, 2),
        (LEGACY_0_2_0, {"game_segment_length": 20}, 2),
        (LEGACY_0_2_0, {"init_pool_size": 5}, 5),
    ],
)
def test_slots_of_the_init_pools(variant, options, size):
    backend = cache(variant, **options)
    assert [pool.pool_size for pool in backend.init_pools] == [size] * GEOMETRY.env_num
    assert backend.recur_pool.pool_size == GEOMETRY.num_simulations * GEOMETRY.env_num


def test_active_eviction_deletes_a_key_that_lives_on_in_another_slot():
    """A spurious miss: the key was stored again in the meantime, and its content is still there."""
    backend = cache(init_pool_size=3)
    for key, value in ((1, 10), (2, 20), (1, 11)):  # key 1 moved from slot 0 to slot 2
        store(backend, key, value)
    assert content(backend, 1) == 11
    store(backend, 3, 30)  # slot 0, which key 1 owned once
    assert content(backend, 1) is None
    slot = backend.init_pools[0].slots[2]
    assert slot.size == 2
    assert (slot[0].get()[0] == 11).all()


def test_where_nothing_is_evicted_a_key_that_was_stored_again_is_found_in_its_new_slot():
    backend = cache(LEGACY_0_2_0, init_pool_size=3)
    for key, value in ((1, 10), (2, 20), (1, 11), (3, 30)):
        store(backend, key, value)
    assert [content(backend, key) for key in (1, 2, 3)] == [11, 20, 30]
    assert backend.init_pools[0].stats.evictions == 0  # slot 0 was nobody's any more


def test_an_update_takes_another_slot():
    backend = cache(recur_pool_size=3)
    for value in (1, 2):
        store(backend, 7, value, Scope.NODE)
    assert backend.recur_pool.index == {7: 1}
    assert backend.recur_pool.position == 2


@each_variant
@pytest.mark.parametrize("clear", ["clear_recur_cache", "clear_init_caches", "clear_all"])
def test_a_clear_forgets_keys_but_not_slots_nor_the_write_position(variant, clear):
    backend = cache(variant, init_pool_size=4, recur_pool_size=4)
    scope = Scope.NODE if clear == "clear_recur_cache" else Scope.ROOT
    pool = backend.recur_pool if scope is Scope.NODE else backend.init_pools[0]
    for key in (1, 2, 3):
        store(backend, key, key, scope)
    slots, reserved = list(pool.slots), pool.bytes_reserved
    getattr(backend, clear)()
    assert not pool.index
    assert pool.position == 3
    assert all(now is then for now, then in zip(pool.slots, slots, strict=True))
    assert pool.bytes_reserved == reserved == 3 * GEOMETRY.entry_bytes()
    store(backend, 4, 4, scope)
    assert pool.index == {4: 3}
    assert pool.position == 0


def test_after_a_clear_a_pool_goes_on_to_slots_it_never_used():
    """Why a legacy pool grows to its full size however little of it one search needs."""
    backend = cache(recur_pool_size=6)
    for search in range(3):
        for key in (1, 2):
            store(backend, 10 * search + key, key, Scope.NODE)
        backend.clear_recur_cache()
    assert backend.bytes_reserved["recur"] == 6 * GEOMETRY.entry_bytes()


def test_a_key_cleared_away_costs_the_slots_next_owner_nothing():
    backend = cache(init_pool_size=2)
    for key in (1, 2):
        store(backend, key, key)
    backend.clear_all()
    store(backend, 2, 20)  # slot 0, owned by key 1 before the clear
    store(backend, 3, 30)  # slot 1, owned by key 2 before the clear: key 2 goes, though it lives in slot 0 now
    assert content(backend, 2) is None
    assert content(backend, 3) == 30


def test_a_recurrent_miss_is_a_type_error_in_0_2_0_only():
    backend = cache(LEGACY_0_2_0)
    store(backend, 1, 10, Scope.NODE)
    with pytest.raises(TypeError, match="NoneType") as raised:
        backend.lookup([0, 1, 2, 0], [1, 8, None, 9], Scope.NODE)
    assert type(raised.value) is RecurrentMissError
    assert raised.value.rows == [1, 3]
    assert backend.keys_values_wm_size_list == [2, MISS, EMPTY, MISS]  # a replay goes on from here
    assert backend.lookup([0], [8], Scope.ROOT) == [MISS]

    assert cache(LEGACY).lookup([0, 1], [8, None], Scope.NODE) == [MISS, EMPTY]


@each_variant
def test_without_an_overwrite_both_variants_are_right_at_full_capacity(variant):
    twins = Twins(
        cache(variant, init_pool_size=4, recur_pool_size=4), RecurrentMissError if variant is LEGACY_0_2_0 else None
    )
    for key in range(4):
        twins.infer(Scope.NODE, [(0, None, key)])
    for key in range(4):
        assert twins.look_up([0], [key], Scope.NODE) == [2]


class TestPool:
    def test_needs_slots(self):
        for size in (0, -1):
            with pytest.raises(ValueError, match="positive number of slots"):
                LegacyPool(size, evicts=False)

    def test_writes_in_a_circle_whatever_the_keys(self):
        pool = LegacyPool(3, evicts=False)
        written = []
        for value in range(7):
            pool.set(5, entry(value))
            written.append(pool.index[5])
        assert written == [0, 1, 2, 0, 1, 2, 0]

    def test_a_slot_is_allocated_once_and_copied_into_afterwards(self):
        pool = LegacyPool(1, evicts=True)
        pool.set(1, entry(1))
        first = pool.slots[0]
        pool.set(2, entry(2, size=3))
        assert pool.slots[0] is first
        assert same_bits(live(first), live(entry(2, size=3)))

    def test_the_whole_context_is_copied_dead_positions_too(self):
        pool, kv = LegacyPool(1, evicts=True), entry(1, size=2)
        pool.set(1, kv)
        assert same_bits(pool.slots[0].block, kv.block)

    def test_what_is_found_is_the_slot_itself(self):
        pool = LegacyPool(2, evicts=True)
        pool.set(1, entry(1))
        assert pool.get(1) is pool.slots[0]
        assert pool.get(2) is None

    def test_holds_any_object_itself_where_it_does_not_copy(self):
        pool, value = LegacyPool(1, evicts=False, copies=False), object()
        pool.set(1, value)
        assert pool.get(1) is value
        pool.set(2, None)
        assert pool.owner(1) == 2

    def test_an_owner_that_is_written_again_into_its_own_slot_is_not_evicted(self):
        pool = LegacyPool(1, evicts=True)
        for value in range(3):
            pool.set(1, entry(value))
        assert pool.stats.evictions == 0
        assert list(pool.index) == [1]


@pytest.mark.parametrize("variant", [LEGACY, LEGACY_0_2_0], ids=lambda each: each.name)
def test_a_batch_with_more_hits_than_environments_has_a_scratch_slot_for_each_row(variant):
    """LightZero's scratch pool is a circle of env_num slots: several leaves would overwrite their own rows."""
    cache = LegacyCache(CacheConfig(GEOMETRY, init_pool_size=50), variant)
    for key in range(ENVS + 1):
        cache.lookup([0], [None], Scope.ROOT)
        cache.assemble()
        tokens = torch.full((1, GEOMETRY.num_heads, 1, GEOMETRY.head_dim), float(key))
        for layer in cache.keys_values_wm:
            layer.update(tokens, tokens)
        cache.store([0], [key], Scope.ROOT)
    cache.lookup([0] * (ENVS + 1), list(range(ENVS + 1)), Scope.ROOT)
    cache.assemble()
    found = cache.keys_values_wm[0].get()[0][:, 0, 0, 0].tolist()
    assert found == [*map(float, range(ENVS + 1))]


@each_variant
def test_a_negative_environment_is_no_other_one(variant):
    backend = cache(variant)
    with pytest.raises(ValueError, match=r"there are environments 0\..\d+, got \[-1\]"):
        backend.lookup([-1], [1], Scope.ROOT)
    backend.lookup([0], [None], Scope.ROOT)
    backend.assemble()
    with pytest.raises(ValueError, match=r"there are environments 0\..\d+, got \[-1\]"):
        backend.store([-1], [1], Scope.ROOT)


def test_the_variants_are_told_apart_by_their_names():
    assert [cache(each).name for each in (LEGACY, LEGACY_0_2_0, LEGACY_MAIN)] == [
        "legacy", "legacy-0.2.0", "legacy-main",
    ]  # fmt: skip


@pytest.mark.parametrize("scope", Scope)
def test_main_evicts_on_writes_of_both_scopes_and_a_miss_is_no_error(scope):
    backend = cache(LEGACY_MAIN, init_pool_size=3, recur_pool_size=3)
    for key in (1, 2, 3, 4):
        store(backend, key, 10 * key, scope)
    pool = backend.recur_pool if scope is Scope.NODE else backend.init_pools[0]
    assert list(pool.index) == [2, 3, 4]
    assert pool.stats.evictions == 1
    assert backend.lookup([0, 0], [1, 2], scope) == [MISS, 2]


def test_a_lookup_that_finds_nothing_counts_as_one_miss():
    pool = LegacyPool(1, evicts=True)
    pool.get(1)
    assert (pool.stats.hits, pool.stats.misses) == (0, 1)
    pool.set(1, entry(1))
    pool.get(1)
    assert (pool.stats.hits, pool.stats.misses) == (1, 1)


@pytest.mark.parametrize("variant", [LEGACY, LEGACY_0_2_0, LEGACY_MAIN], ids=lambda each: each.name)
def test_slots_and_batches_have_the_configured_element_type(variant):
    backend = cache(variant, dtype=torch.float64)
    assert backend.stats_enabled is True
    store(backend, 1, 10)
    backend.lookup([0], [1], Scope.ROOT)
    backend.assemble()
    tensors = [*backend.keys_values_wm.layer_tensors(), *backend.init_pools[0].slots[0].layer_tensors()]
    assert {each.dtype for each in tensors} == {torch.float64}


def test_a_lookup_of_other_lengths_and_a_shift_of_another_shape_are_refused():
    backend = cache()
    with pytest.raises(ValueError, match="there must be one of keys for each of 2 rows, got 1 keys"):
        backend.lookup([0, 1], [None], Scope.ROOT)
    with pytest.raises(ValueError, match="a position shift of this geometry is"):
        backend.position_shift = torch.zeros(1)
    assert backend.position_shift is None


def test_what_a_cleared_or_new_cache_has_no_row_for_is_not_supplied():
    backend = cache()
    context = entry(1, 1, tokens=GEOMETRY.context_length)
    for _ in range(2):
        with pytest.raises(IndexError, match="the batch has rows"):
            backend.supply(0, context)
        backend.lookup([0], [1], Scope.ROOT)
        backend.supply(0, context)
        backend.clear_all()


def test_a_key_without_a_hash_is_found_before_a_slot_is_written():
    pool = LegacyPool(2, evicts=True)
    pool.set(1, entry(1))
    with pytest.raises(TypeError, match="unhashable"):
        pool.set([2], entry(2))
    assert (pool.position, pool.index, pool.slots[1]) == (1, {1: 0}, None)
