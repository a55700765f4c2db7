"""All sizes of LRU in one pass are what the library's own pools, one size after the other, count."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_curves import any_steps
from traces import TINY, steps_of, synthetic

from kvbench.capacity.curves import most_entries
from kvbench.capacity.lines import JUDGED, count_outcomes, follow
from kvbench.capacity.stacks import NEVER, LruLine, LruStack
from kvbench.capacity.symbols import PooledCache
from kvcache import Geometry, KVCachePool

KEYS = st.integers(1, 9)
REQUESTS = st.one_of(
    st.tuples(st.just("store"), KEYS), st.tuples(st.just("find"), KEYS), st.tuples(st.just("clear"), st.none())
)
LIMIT = 6


def lru_outcomes(steps, geometry, capacities, pool):
    line = LruLine(geometry, capacities, pool)
    for _ in follow(steps, [line]):
        pass
    return [+Counter(dict(zip(JUDGED, counts.sum(axis=0).tolist(), strict=True))) for counts in line.table()]


def point_by_point(steps, geometry, capacities, pool):
    return [count_outcomes(steps, PooledCache(geometry, "lru", {pool: each})) for each in capacities]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["store", "store", "find", "find"]).flatmap(
    lambda kind: st.tuples(st.just(kind), KEYS)), max_size=60), st.sets(st.integers(0, 60), max_size=2))  # fmt: skip
def test_a_stack_finds_what_pools_of_every_size_find(requests, clears):
    stack, pools = LruStack(LIMIT), [KVCachePool(size, "lru", storage="reference") for size in range(1, LIMIT + 1)]
    for number, (kind, key) in enumerate(requests):
        if number in clears:
            for each in (stack, *pools):
                each.clear()
        if kind == "store":
            stack.store(key)
            for pool in pools:
                pool.set(key, key)
        else:
            slots = stack.find(key)
            assert [pool.get(key) is not None for pool in pools] == [size >= slots for size in range(1, LIMIT + 1)]


def test_a_key_that_no_pool_holds_is_never_found():
    stack = LruStack(2)
    assert stack.find(1) == NEVER
    for key in (1, 2, 3):
        stack.store(key)
    assert [stack.find(key) for key in (1, 2, 3)] == [NEVER, 2, 1]
    stack.clear()
    assert stack.find(3) == NEVER


def test_a_lookup_makes_a_key_younger_where_it_is_found_and_moves_it_in_no_pool():
    stack = LruStack(3)
    for key in (1, 2, 3):
        stack.store(key)
    assert stack.find(1) == 3
    stack.store(4)  # a pool of three evicts key 2, one of two as well
    assert [stack.find(key) for key in (4, 3, 1, 2)] == [1, 2, 3, NEVER]


@settings(max_examples=150)
@given(any_steps(), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.sampled_from(["recur", "init"]))
def test_whatever_is_asked_and_cleared_outcomes_are_those_of_pools(steps, capacities, pool):
    assert lru_outcomes(steps, TINY, capacities, pool) == point_by_point(steps, TINY, capacities, pool)


@pytest.mark.parametrize("pool", ["recur", "init"])
def test_on_a_search_with_transpositions_and_ends_of_episodes(tmp_path, pool):
    path = synthetic(tmp_path / "trace", searches=8, episode_length=3, transpositions=0.3, clear_ended=True)
    steps, capacities = steps_of(path), [1, 2, 3, 5, 8, 13]
    found = lru_outcomes(steps, TINY, capacities, pool)
    assert found == point_by_point(steps, TINY, capacities, pool)
    assert len({tuple(each.items()) for each in found}) > (3 if pool == "recur" else 0)


def test_where_recurrent_pools_evict_the_init_pools_sizes_are_not_one_pass(tmp_path):
    small = Geometry("few simulations", 1, 1, 2, 8, 2, 1)  # a recurrent pool of two slots
    steps = steps_of(synthetic(tmp_path / "trace", searches=3))
    assert most_entries(steps) > 2
    assert not LruLine.can_tell(small, "init", most_entries(steps))
    assert LruLine.can_tell(small, "init", 2)
    assert LruLine.can_tell(small, "recur", most_entries(steps))
    assert lru_outcomes(steps, small, [1, 2], "recur") == point_by_point(steps, small, [1, 2], "recur")


def test_keys_that_fell_off_are_forgotten():
    stack, pool = LruStack(3), KVCachePool(3, "lru", storage="reference")
    for number in range(500):
        key = 7 * number % 150  # some come again, long after they fell off
        stack.store(key)
        pool.set(key, key)
        assert [each in stack for each in range(150)] == [each in pool for each in range(150)]
    assert len(stack._numbers) < 100
