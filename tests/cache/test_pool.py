"""Pools: which key owns which slot, who gives way, what is counted."""

import itertools
import logging
import random
from pathlib import Path

import cachetools
import pytest
import torch
from conformance import HEAD_DIM, HEADS, LAYERS, TOKENS, entry, live, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvcache.batch import Found
from kvcache.eviction import DEFAULT_PRIORITY, EvictionStrategy
from kvcache.pool import KVCachePool
from kvcache.stats import CacheStats
from kvcache.storage import STORAGES, EntrySpec, PagedStorage

libcachesim = pytest.importorskip("libcachesim", reason="libcachesim has no wheel for this Python")

STRATEGIES = [each.value for each in EvictionStrategy]
WITH_NAIVE_VICTIMS = ["fifo", "lru", "priority"]
NAN = float("nan")


def pool_of_anything(size, strategy="fifo", **options):
    return KVCachePool(size, strategy, storage="reference", **options)


class HostileKey:
    """A key that cannot be printed: any formatting of it fails."""

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return self.number % 3

    def __eq__(self, other):
        return self.number == other.number

    def __repr__(self):
        raise AssertionError("a key was formatted")

    __str__ = __repr__

    def __format__(self, spec):
        raise AssertionError("a key was formatted")


# Against implementations that are not ours.

requests = st.lists(st.integers(0, 12), max_size=120)
capacities = st.integers(1, 8)


def request(key):
    made = libcachesim.Request()
    made.obj_id, made.obj_size = key, 1
    return made


def ask(pool, key):
    """Whether ``key`` hits; one that misses is stored, as every simulator does."""
    if pool.get(key) is not None:
        return True
    pool.set(key, key)
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "reference"),
    [("fifo", libcachesim.FIFO), ("lru", libcachesim.LRU), ("sieve", libcachesim.Sieve)],
)
@settings(max_examples=30)  # libcachesim takes 70 ms to make a cache
@given(capacity=capacities, keys=requests)
def test_hits_are_those_of_libcachesim(strategy, reference, capacity, keys):
    pool, simulator = pool_of_anything(capacity, strategy), reference(cache_size=capacity)
    assert [ask(pool, key) for key in keys] == [simulator.get(request(key)) for key in keys]
    assert len(pool) == simulator.get_n_obj()
    for key in range(13):
        assert (key in pool) == (simulator.find(request(key), update_cache=False) is not None)


@pytest.mark.parametrize("capacity", [20, 29, 64])
def test_hits_are_those_of_libcachesims_s3_fifo(capacity):
    """It aborts the process for the smallest caches."""
    pool, simulator = pool_of_anything(capacity, "s3-fifo"), libcachesim.S3FIFO(capacity)
    choose = random.Random(capacity)
    keys = [min(int(choose.paretovariate(0.7)), 500) for _ in range(5000)]
    hits = [ask(pool, key) for key in keys]
    assert hits == [simulator.get(request(key)) for key in keys]
    assert 4000 < sum(hits) < 4800


@pytest.mark.parametrize(("strategy", "reference"), [("fifo", cachetools.FIFOCache), ("lru", cachetools.LRUCache)])
@given(capacity=capacities, keys=requests)
def test_hits_are_those_of_cachetools(strategy, reference, capacity, keys):
    pool, cache = pool_of_anything(capacity, strategy), reference(maxsize=capacity)
    for key in keys:
        hit = cache.get(key) is not None
        assert ask(pool, key) == hit
        if not hit:
            cache[key] = key
        assert set(pool) == set(cache)


@pytest.mark.parametrize(("strategy", "reference"), [("fifo", cachetools.FIFOCache), ("lru", cachetools.LRUCache)])
@given(capacity=capacities, calls=st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=120))
def test_writes_without_lookups_evict_as_in_cachetools(strategy, reference, capacity, calls):
    pool, cache = pool_of_anything(capacity, strategy), reference(maxsize=capacity)
    for writes, key in calls:
        if not writes:
            assert (pool.get(key) is None) == (cache.get(key) is None)
        else:
            pool.set(key, key)
            # FIFOCache makes a key that is set again the youngest. In a pool an update keeps slot and place, so a
            # present key is not set again here. LRU makes it the most recent in both.
            if strategy == "lru" or key not in cache:
                cache[key] = key
        assert set(pool) == set(cache)


# Against a model of a few lines.


class NaiveEntry:
    def __init__(self, value, slot, priority, now):
        self.value, self.slot, self.priority, self.inserted, self.used = value, slot, priority, now, now


class NaivePool:
    """Lists and a clock; every victim is looked for among all entries."""

    def __init__(self, size, strategy):
        self.size, self.strategy = size, strategy
        self.entries = {}
        self.clock = itertools.count()
        self.hits = self.misses = self.evictions = 0

    def victim(self):
        order = {
            "fifo": lambda key: self.entries[key].inserted,
            "lru": lambda key: self.entries[key].used,
            "priority": lambda key: (self.entries[key].priority, self.entries[key].inserted),
        }[self.strategy]
        return min(self.entries, key=order)

    def get(self, key):
        found = self.entries.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        found.used = next(self.clock)
        return found.value


class PoolMachine(RuleBasedStateMachine):
    """A pool and the naive one, side by side."""

    strategy: str
    storage: str
    keys = st.integers(0, 9)
    priorities = st.sampled_from([-1.0, 0.0, 0, 0.5, 1.0, float("inf")])

    @initialize(size=st.integers(1, 5))
    def start(self, size):
        self.pool = KVCachePool(size, self.strategy, storage=self.storage)
        self.naive = NaivePool(size, self.strategy)
        self.serial = itertools.count(1)

    @rule(key=keys)
    def get(self, key):
        found, wanted = self.pool.get(key), self.naive.get(key)
        assert (found is None) == (wanted is None)
        if found is not None:
            assert same_bits(live(found), live(entry(*wanted)))

    @rule(key=keys, size=st.integers(0, TOKENS), priority=st.none() | priorities)
    def set(self, key, size, priority):
        naive, value = self.naive, (next(self.serial), size)
        victim = None
        known = naive.entries.get(key)
        if known is None and len(naive.entries) == naive.size:
            victim = naive.victim()
            victims_slot = naive.entries.pop(victim).slot
            naive.evictions += 1
        slot = self.pool.set(key, entry(*value), priority)
        if known is not None:
            assert slot == known.slot
            known.value, known.used = value, next(naive.clock)
            known.priority = known.priority if priority is None else priority
            return
        if victim is not None:
            assert slot == victims_slot
            assert victim not in self.pool
        else:
            assert 0 <= slot < naive.size
            assert slot not in {owned.slot for owned in naive.entries.values()}
        naive.entries[key] = NaiveEntry(
            value, slot, DEFAULT_PRIORITY if priority is None else priority, next(naive.clock)
        )

    @precondition(lambda self: self.strategy == "priority")
    @rule(key=keys, priority=priorities)
    def set_priority(self, key, priority):
        if key in self.naive.entries:
            self.pool.set_priority(key, priority)
            self.naive.entries[key].priority = priority
        else:
            with pytest.raises(KeyError):
                self.pool.set_priority(key, priority)

    @rule()
    def clear(self):
        self.pool.clear()
        self.naive.entries.clear()

    @invariant()
    def agree(self):
        pool, naive = self.pool, self.naive
        assert len(pool) == len(naive.entries)
        assert set(pool) == set(naive.entries)
        assert all((key in pool) == (key in naive.entries) for key in range(10))
        stats = pool.stats
        assert (stats.hits, stats.misses, stats.evictions) == (naive.hits, naive.misses, naive.evictions)
        assert stats.total_queries == naive.hits + naive.misses

    def teardown(self):
        for key in list(self.naive.entries):
            self.get(key)


for _strategy, _storage in itertools.product(WITH_NAIVE_VICTIMS, STORAGES):
    _machine = type(f"PoolMachine_{_strategy}_{_storage}", (PoolMachine,), {"strategy": _strategy, "storage": _storage})
    _case = f"TestPoolAgainstTheNaiveOne_{_strategy}_{_storage}"
    globals()[_case] = _machine.TestCase
    globals()[_case].settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
del _machine, PoolMachine  # the class without a strategy is not to be collected


# What a strategy promises, by example.


def test_an_update_is_no_eviction_and_keeps_its_place_in_fifo():
    pool = pool_of_anything(2)
    pool.set("a", 1)
    pool.set("b", 2)
    pool.set("a", 3)
    assert pool.stats.evictions == 0
    pool.set("c", 4)
    assert set(pool) == {"b", "c"}


def test_an_update_makes_a_key_the_most_recent_in_lru():
    pool = pool_of_anything(2, "lru")
    pool.set("a", 1)
    pool.set("b", 2)
    pool.set("a", 3)
    pool.set("c", 4)
    assert set(pool) == {"a", "c"}


def test_asking_whether_a_key_is_there_is_no_use_of_it():
    pool = pool_of_anything(2, "lru")
    pool.set("a", 1)
    pool.set("b", 2)
    assert "a" in pool
    assert list(pool)
    pool.set("c", 3)
    assert set(pool) == {"b", "c"}
    assert pool.stats.total_queries == 0


class TestPriorityAtCapacity:
    def test_the_lowest_goes_and_the_oldest_among_equals(self):
        pool = pool_of_anything(3, "priority")
        for key, priority in (("high", 2.0), ("old", 1.0), ("young", 1.0)):
            pool.set(key, key, priority)
        pool.set("x", "x", 9.0)
        assert set(pool) == {"high", "young", "x"}
        pool.set("y", "y", 9.0)
        assert set(pool) == {"high", "x", "y"}
        assert pool.stats.evictions == 2

    def test_the_newcomer_is_stored_even_when_its_priority_is_lowest(self):
        pool = pool_of_anything(2, "priority")
        pool.set("a", 1, 5.0)
        pool.set("b", 2, 6.0)
        pool.set("c", 3, 0.0)
        assert set(pool) == {"b", "c"}

    def test_without_any_priority_it_is_fifo(self):
        pool = pool_of_anything(2, "priority")
        for key in "abc":
            pool.set(key, key)
        assert set(pool) == {"b", "c"}

    def test_an_update_changes_the_priority_when_one_is_given(self):
        pool = pool_of_anything(2, "priority")
        pool.set("a", 1, 1.0)
        pool.set("b", 2, 2.0)
        pool.set("a", 3)
        pool.set("a", 4, 3.0)
        pool.set("a", 5)
        pool.set("c", 6, 2.5)
        assert set(pool) == {"a", "c"}
        assert pool.get("a") == 5

    def test_a_raised_key_stays_and_keeps_its_age(self):
        pool = pool_of_anything(3, "priority")
        for key in "abc":
            pool.set(key, key, 1.0)
        pool.set_priority("a", 2.0)
        pool.set_priority("a", 1.0)
        pool.set_priority("b", 2.0)
        pool.set("d", "d", 2.0)
        assert set(pool) == {"b", "c", "d"}

    def test_a_raised_key_is_no_longer_the_lowest(self):
        pool = pool_of_anything(2, "priority")
        pool.set("a", 1, priority=1.0)
        pool.set("b", 2, priority=2.0)
        pool.set_priority("a", 3.0)
        pool.set("c", 3, priority=9.0)
        assert set(pool) == {"a", "c"}

    def test_a_key_that_comes_back_is_new(self):
        pool = pool_of_anything(2, "priority")
        pool.set("a", 1, 1.0)
        pool.set("b", 2, 1.0)
        pool.set("c", 3, 1.0)
        pool.set("a", 4)  # the default priority, not what "a" once had
        pool.set("d", 5, 9.0)
        assert set(pool) == {"c", "d"}

    def test_infinite_priorities_have_their_place(self):
        pool = pool_of_anything(2, "priority")
        pool.set("first to go", 1, float("-inf"))
        pool.set("last to go", 2, float("inf"))
        pool.set("a", 3, 1.0)
        pool.set("b", 4, 2.0)
        assert set(pool) == {"last to go", "b"}

    @pytest.mark.parametrize("strategy", ["fifo", "lru"])
    def test_other_strategies_take_a_priority_and_make_no_use_of_it(self, strategy):
        pool = pool_of_anything(2, strategy)
        pool.set("a", 1, priority=9.0)
        pool.set("b", 2, priority=0.0)
        pool.set("c", 3)
        assert set(pool) == {"b", "c"}
        with pytest.raises(ValueError, match=f"'default' evicts by {strategy.upper()}"):
            pool.set_priority("b", 1.0)


# Errors.


@pytest.mark.parametrize("size", [0, -1, True, False, 2.0, "2", None])
def test_a_pool_size_must_be_a_positive_integer(size):
    with pytest.raises(ValueError, match=r"'mine'.*pool_size must be a positive integer"):
        KVCachePool(size, name="mine")


def test_an_unknown_strategy_lists_the_choices():
    with pytest.raises(ValueError, match=r"choose one of .*fifo"):
        KVCachePool(1, "random")


def test_an_unknown_storage_lists_the_choices():
    with pytest.raises(ValueError, match="private, reference"):
        KVCachePool(1, storage="paper")


def test_defaults():
    pool = KVCachePool(1)
    assert pool.eviction_strategy is EvictionStrategy.FIFO
    assert pool.stats_enabled
    assert pool.name == "default"
    pool.set("key", entry(1))
    assert pool.get("key") is not pool.get("key")


BAD_PRIORITIES = [("fifo", NAN, ValueError), ("lru", NAN, ValueError), ("priority", NAN, ValueError)] + [
    ("priority", priority, TypeError) for priority in ("high", [1.0], 1j)
]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("key", ["old", "new"])
@pytest.mark.parametrize(("strategy", "priority", "error"), BAD_PRIORITIES)
def test_a_priority_without_a_place_in_any_order_changes_nothing(strategy, storage, key, priority, error):
    pool = KVCachePool(2, strategy, storage=storage)
    pool.set("old", entry(1), 1.0)
    pool.set("other", entry(2), 2.0)
    with pytest.raises(error):
        pool.set(key, entry(3), priority)
    assert set(pool) == {"old", "other"}
    assert pool.stats.to_dict() == CacheStats().to_dict()
    pool.set("third", entry(3), 3.0)
    assert set(pool) == {"other", "third"}
    assert same_bits(live(pool.get("other")), live(entry(2)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_after_a_bad_priority_the_old_content_is_there(strategy):
    pool = KVCachePool(1, strategy)
    pool.set("key", entry(1), 1.0)
    with pytest.raises(ValueError, match="NaN"):
        pool.set("key", entry(2), NAN)
    assert same_bits(live(pool.get("key")), live(entry(1)))


@pytest.mark.parametrize(("priority", "error"), [(NAN, ValueError), ("high", TypeError)])
def test_a_bad_change_of_priority_changes_nothing(priority, error):
    pool = pool_of_anything(2, "priority")
    pool.set("a", 1, 1.0)
    pool.set("b", 2, 2.0)
    with pytest.raises(error):
        pool.set_priority("a", priority)
    pool.set("c", 3, 3.0)
    assert set(pool) == {"b", "c"}


@pytest.mark.parametrize("storage", STORAGES)
def test_an_unhashable_key_changes_nothing(storage):
    pool = KVCachePool(1, storage=storage)
    pool.set("key", entry(1))
    with pytest.raises(TypeError):
        pool.set([], entry(2))
    assert set(pool) == {"key"}
    assert pool.stats.evictions == 0
    assert same_bits(live(pool.get("key")), live(entry(1)))


# Counting and talking.


def test_statistics_survive_a_clear_and_can_be_reset():
    pool = pool_of_anything(1)
    pool.set("a", 1)
    pool.set("b", 2)
    pool.get("a")
    pool.get("b")
    pool.clear()
    assert (pool.stats.hits, pool.stats.misses, pool.stats.evictions) == (1, 1, 1)
    pool.stats.reset()
    assert pool.stats.total_queries == pool.stats.evictions == 0


def test_disabled_statistics_count_nothing():
    pool = pool_of_anything(1, enable_stats=False)
    pool.set("a", 1)
    pool.set("b", 2)
    assert (pool.get("a"), pool.get("b")) == (None, 2)
    assert pool.stats == CacheStats()


def test_a_slot_can_be_found_without_its_content_and_counts_as_a_query():
    pool = pool_of_anything(2, "lru")
    slot = pool.set("a", 1)
    pool.set("b", 2)
    assert pool.find("a") == slot
    assert pool.find("x") is None
    assert (pool.stats.hits, pool.stats.misses) == (1, 1)
    pool.set("c", 3)
    assert set(pool) == {"a", "c"}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("storage", STORAGES)
def test_no_key_is_formatted_unless_someone_reads_the_log(strategy, storage, caplog):
    caplog.set_level(logging.INFO)
    pool = KVCachePool(2, strategy, storage=storage)
    for number in range(4):
        assert pool.get(HostileKey(number)) is None
        pool.set(HostileKey(number), entry(number))
        pool.save_tokens(HostileKey(number), entry(number).block[0], 0, 1, None)
        assert pool.get(HostileKey(number)) is not None
        assert HostileKey(number) in pool
    assert pool.stats.evictions == 2
    assert not caplog.records


def test_an_eviction_is_logged_for_debugging(caplog):
    caplog.set_level(logging.DEBUG, logger="kvcache.pool")
    pool = pool_of_anything(1, name="mine")
    pool.set("first", 1)
    assert not caplog.records
    slot = pool.set("second", 2)
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == f"pool mine: key first lost slot {slot}"


def test_the_repr_of_a_pool():
    pool = pool_of_anything(3, "lru", name="mine")
    pool.set("a", 1)
    assert repr(pool) == "KVCachePool('mine', 1/3 entries, LRU, ReferenceStorage)"


def test_tokens_are_saved_with_a_priority():
    pool = KVCachePool(2, "priority")
    row = torch.ones(1, 2, HEADS, TOKENS, HEAD_DIM)
    pool.save_tokens("low", row, 0, 1, None, priority=1.0)
    pool.save_tokens("high", row, 0, 1, None, priority=2.0)
    pool.save_tokens("low", row, 0, 1, None, priority=3.0)
    pool.save_tokens("new", row, 0, 1, None, priority=9.0)
    assert set(pool) == {"low", "new"}


def test_every_storage_has_its_own_tests():
    """They are where it meets the conformance suite."""
    for storage in STORAGES:
        tests = (Path(__file__).parent / "storage" / f"test_{storage}.py").read_text()
        assert f'storage = "{storage}"' in tests


ODD = {"shape": torch.zeros(1, HEADS, TOKENS + 1, HEAD_DIM), "dtype": torch.zeros(1, HEADS, TOKENS, HEAD_DIM).double()}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_entry_whose_layers_differ_evicts_nothing_and_is_refused(odd):
    pool = KVCachePool(1)
    pool.set("kept", entry(1))
    other = entry(2)
    other[1]._v_cache._cache = odd
    with pytest.raises(ValueError, match="layers of this entry differ"):
        pool.set("other", other)
    assert list(pool) == ["kept"]
    assert same_bits(live(pool.get("kept")), live(entry(1)))


# Where memory is limited.

SPEC = EntrySpec((LAYERS, 2, HEADS, TOKENS, HEAD_DIM), torch.float32, torch.device("cpu"))


def pool_of_pages(limit, size=4, strategy="fifo"):
    return KVCachePool(size, strategy, storage=PagedStorage(size, SPEC, page_limit=limit))


def test_a_pool_refuses_what_its_spec_does_not_allow():
    pool = KVCachePool(1, spec=SPEC)
    with pytest.raises(ValueError, match="this pool holds entries of"):
        pool.set("longer", entry(1, tokens=TOKENS + 1))
    pool.set("right", entry(2))
    assert same_bits(live(pool.get("right")), live(entry(2)))


@pytest.mark.parametrize("by", ["set", "save_tokens"])
def test_entries_are_evicted_for_the_tokens_of_a_new_one_and_no_more(by):
    pool = pool_of_pages(limit=6)
    for key, size in (("a", 2), ("b", 2), ("c", 2), ("d", 3)):
        if by == "set":
            pool.set(key, entry(1, size=size))
        else:
            pool.save_tokens(key, entry(1).block[0], 0, size, None)
    assert set(pool) == {"c", "d"}
    assert pool.stats.evictions == 2
    assert all(same_bits(live(pool.get(key)), live(entry(1, size=size))) for key, size in (("c", 2), ("d", 3)))


def test_an_entry_that_is_written_again_makes_room_for_itself_first():
    pool = pool_of_pages(limit=6)
    pool.set("b", entry(1, size=2))
    pool.set("a", entry(2, size=4))
    pool.set("a", entry(3, size=4))
    assert set(pool) == {"a", "b"}
    assert same_bits(live(pool.get("a")), live(entry(3)))


def test_a_claim_of_no_tokens_evicts_nothing_from_full_memory():
    pool = pool_of_pages(limit=4)
    pool.set("a", entry(1, size=4))
    pool.claim("b")
    assert set(pool) == {"a", "b"}


def test_an_entry_larger_than_the_limit_evicts_all_others():
    pool = pool_of_pages(limit=3)
    pool.set("a", entry(1, size=2))
    pool.set("b", entry(2, size=4))
    assert list(pool) == ["b"]
    assert not pool_of_pages(limit=3).evict_for(4)


def test_only_a_pool_with_a_limit_evicts_for_tokens():
    pool = KVCachePool(2)
    pool.set("a", entry(1))
    assert not pool.evict_for(100)
    limited = pool_of_pages(limit=5)
    limited.set("a", entry(1, size=4))
    assert not limited.evict_for(1)
    assert limited.evict_for(2)
    assert len(limited) == 0


CHANGES = {
    "set": lambda pool: pool.set("a", entry(2, size=2)),
    "clear": lambda pool: pool.clear(),
    "reset": lambda pool: pool.reset(),
    "evict_for": lambda pool: pool.evict_for(100),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("before", [1, 2, 3])
def test_after_any_change_a_row_found_before_is_out_of_date(change, before):
    pool = pool_of_pages(limit=50)
    pool.storage.lacks_room = lambda tokens: tokens == 100
    for _ in range(before):
        slot = pool.set("a", entry(1, size=2))
    found = Found(pool, slot, pool.writes)
    assert found.is_current
    change(pool)
    assert not found.is_current
