"""Two latents with one key: served to each other, unless keys are verified."""

import copy
import logging
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xxhash
from conformance import live, same_bits

from kvcache import (
    BACKENDS,
    CacheConfig,
    Geometry,
    KeysValues,
    KVCacheManager,
    Scope,
    ShadowCache,
    hash_states,
    make_backend,
)
from kvcache.keys import KeyVerifier, VerifiedKey
from kvcache.world_model.log import cache_line

GEOMETRY = Geometry("tiny", num_layers=1, num_heads=1, embed_dim=2, context_length=8, env_num=3, num_simulations=60)
BITS = 8
each_backend = pytest.mark.parametrize("backend", list(BACKENDS))


@pytest.fixture
def short_keys(monkeypatch):
    """Keys of 8 bits: among 60 latents some always share one."""
    whole = xxhash.xxh64_intdigest
    short = SimpleNamespace(xxh64_intdigest=lambda data: whole(data) % (1 << BITS))
    monkeypatch.setattr("kvcache.hashing.xxhash", short)  # a replay's checks need theirs whole


def make(backend, verify_keys, **options):
    return make_backend(backend, CacheConfig(GEOMETRY, verify_keys=verify_keys, **options))


def latent(number):
    return np.random.default_rng(number).standard_normal((1, 4)).astype(np.float32)


def context(number):
    made = KeysValues(1, 1, 8, 2, 1)
    made.block.fill_(float(number))
    made.size = 3
    return made


def fill(cache, numbers, scope=Scope.NODE):
    """Store a context of its own for each latent, in batches of three environments."""
    for first in range(0, len(numbers), 3):
        rows = numbers[first : first + 3]
        envs = list(range(len(rows)))
        cache.lookup(envs, [None] * len(rows), Scope.ROOT)
        for row, number in enumerate(rows):
            cache.supply(row, context(number))
        cache.assemble()
        cache.store(envs, cache.hash_states(np.stack([latent(each) for each in rows])), scope)


def found(cache, numbers, scope=Scope.NODE, env=0):
    """Of each latent, the number whose context is found; None for a miss."""
    results = []
    for number in numbers:
        (key,) = cache.hash_states(latent(number)[None])
        try:
            (size,) = cache.lookup([env], [key], scope)
        except TypeError:  # LightZero 0.2.0
            size = -1
        results.append(int(cache.keys_values_wm_list[0].block[0, 0, 0, 0, 0, 0]) if size > 0 else None)
    return results


class TestCollisions:
    @each_backend
    def test_without_verification_latents_get_one_another_s_context(self, backend, short_keys):
        cache = make(backend, verify_keys=False)
        fill(cache, range(60))
        wrong = [each for number, each in enumerate(found(cache, range(60))) if each not in (number, None)]
        assert wrong
        assert cache.collisions is None

    @each_backend
    def test_with_it_never(self, backend, short_keys):
        cache = make(backend, verify_keys=True)
        fill(cache, range(60))
        assert found(cache, range(60)) == list(range(60))
        before = cache.collisions
        assert before > 0
        assert found(cache, range(1000, 1200)) == [None] * 200
        assert cache.collisions > before

    @each_backend
    def test_nor_in_the_init_pools(self, backend, short_keys):
        cache = make(backend, verify_keys=True, init_pool_size=30)
        fill(cache, range(60), Scope.ROOT)
        assert found(cache, range(0, 60, 3), Scope.ROOT) == list(range(0, 60, 3))
        assert found(cache, range(1000, 1200), Scope.ROOT) == [None] * 200

    @pytest.mark.parametrize("storage", ["private", "slab", "paged", "reference"])
    @pytest.mark.parametrize("eviction", ["fifo", "lru", "priority"])
    def test_nor_when_entries_are_evicted(self, storage, eviction, short_keys):
        cache = make(f"new:{storage}", True, recur_pool_size=7, eviction_strategy=eviction)
        for first in range(0, 300, 3):
            fill(cache, range(first, first + 3))
            got = found(cache, range(first + 3))
            assert all(each in (number, None) for number, each in enumerate(got))
        assert len(cache.recur_pool) == 7

    def test_the_first_one_is_logged_and_all_are_counted(self, short_keys, caplog):
        cache = make("new", verify_keys=True)
        with caplog.at_level(logging.WARNING, logger="kvcache.keys"):
            fill(cache, range(60))
            found(cache, range(100, 200))
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "two latents have the key 0x" in caplog.text
        assert cache.get_stats_summary()["collisions"] == cache.collisions > 1
        cache.reset_stats()
        assert cache.collisions == 0

    def test_one_lookup_is_one_collision(self, short_keys):
        cache = make("new", verify_keys=True)
        numbers = range(1 << 12)
        keys = {}
        for number in numbers:
            keys.setdefault(int(cache.hash_states(latent(number)[None])[0]), []).append(number)
        one, other = next(each for each in keys.values() if len(each) > 1)[:2]
        fill(cache, [one], Scope.ROOT)
        fill(cache, [one])  # in both pools that a node's lookup asks
        assert found(cache, [other]) == [None]
        assert cache.collisions == 1

    def test_none_are_found_among_whole_keys(self):
        cache = make("new", verify_keys=True)
        fill(cache, range(60))
        assert found(cache, range(60)) == list(range(60))
        assert cache.collisions == 0

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
    @each_backend
    def test_copies_verify_too(self, backend, duplicate, short_keys):
        cache = make(backend, verify_keys=True)
        fill(cache, range(30))
        twin = duplicate(cache)
        before = cache.collisions, twin.collisions
        fill(twin, range(30, 60))
        assert found(twin, range(60)) == list(range(60))
        assert found(twin, range(1000, 1200)) == [None] * 200
        assert cache.collisions == before[0]
        assert twin.collisions > before[1]

    @pytest.mark.parametrize(("primary", "shadow"), [("new", "legacy"), ("legacy", "new:slab")])
    def test_a_shadow_compares_what_both_verified(self, primary, shadow, short_keys):
        config = CacheConfig(GEOMETRY, verify_keys=True)
        cache = ShadowCache(make_backend(primary, config), make_backend(shadow, config))
        fill(cache, range(60))
        assert found(cache, range(60)) == list(range(60))
        assert found(cache, range(1000, 1100)) == [None] * 100
        assert cache.report.stale_hits == 0
        assert cache.collisions > 0


class TestKeys:
    def keys(self, *latents):
        verifier = KeyVerifier()
        return [verifier.verified(hash_states(each[None]), each[None])[0] for each in latents]

    def test_a_key_is_the_number_but_for_equality(self):
        (key,) = self.keys(latent(0))
        (number,) = hash_states(latent(0)[None])
        assert (int(key), hash(key), f"{key:016x}", np.uint64(key)) == (
            number, hash(number), f"{number:016x}", np.uint64(number),
        )  # fmt: skip

    def test_equal_latents_have_equal_keys(self):
        one, other = self.keys(latent(0), latent(0))
        assert one == other
        assert (one != other) is False
        assert {one: 1}[other] == 1

    @pytest.mark.parametrize("held", [torch.from_numpy, np.float64, lambda each: torch.from_numpy(each).double()])
    def test_however_they_are_held(self, held):
        one, other = self.keys(latent(0), held(latent(0)))
        assert one == other

    def test_half_precision_is_the_equal_float32(self):
        half = torch.from_numpy(latent(0)).half()
        one, other = self.keys(half, half.float())
        assert one == other

    def test_latents_of_one_number_are_two(self, short_keys):
        keys = self.keys(*map(latent, range(600)))
        assert len(set(map(int, keys))) <= 1 << BITS
        assert len(set(keys)) == 600

    def test_the_same_bytes_in_another_shape_are_another_latent(self):
        flat, square = self.keys(np.ones(4, np.float32), np.ones((2, 2), np.float32))
        assert int(flat) == int(square)
        assert flat != square

    def test_a_plain_number_is_no_latent_s_key(self):
        """Else a number could stand for two latents, and one's entry be found under the other's key."""
        cache = KVCacheManager(CacheConfig(GEOMETRY, verify_keys=True))
        (key,) = cache.hash_states(latent(0)[None])
        cache.set_recur_cache(key, context(1))
        cache.set_recur_cache(int(key), context(2))
        assert same_bits(live(cache.get_recur_cache(key)), live(context(1)))
        assert same_bits(live(cache.get_recur_cache(int(key))), live(context(2)))
        assert len(cache.recur_pool) == 2
        assert key != int(key)
        assert int(key) != key
        assert cache.collisions == 0  # nobody says that they are two latents

    def test_type_of_keys(self):
        assert type(make("new", True).hash_states(latent(0)[None])[0]) is VerifiedKey
        assert type(make("new", False).hash_states(latent(0)[None])[0]) is int


class TestSetting:
    def test_it_is_read_from_any_configuration(self):
        assert CacheConfig.from_object({"verify_keys": True}, 2).verify_keys
        assert not CacheConfig.from_object({}, 2).verify_keys

    @pytest.mark.parametrize("value", ["yes", 1, None])
    def test_it_is_a_truth_value(self, value):
        with pytest.raises(ValueError, match="verify_keys must be True or False"):
            CacheConfig(GEOMETRY, verify_keys=value)


def test_the_line_that_is_logged_says_how_many_there_were(short_keys):
    cache = make("new", verify_keys=True)
    fill(cache, range(60))
    assert cache_line(cache).endswith(f"MB reserved; {cache.collisions} collisions of keys")
    assert "collisions" not in cache_line(make("new", verify_keys=False))
