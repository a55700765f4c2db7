"""The order in which slots give way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcache.eviction import (
    DEFAULT_PRIORITY,
    EntryInfo,
    EvictionStrategy,
    FifoPolicy,
    LruPolicy,
    PriorityPolicy,
    make_policy,
)

SLOTS = 10

STRATEGIES = {
    EvictionStrategy.FIFO: FifoPolicy,
    EvictionStrategy.LRU: LruPolicy,
    EvictionStrategy.PRIORITY: PriorityPolicy,
}


def occupied(policy, *slots, priorities=None):
    for index, slot in enumerate(slots):
        policy.insert(slot, EntryInfo(priority=None if priorities is None else priorities[index]))
    return policy


def drain(policy, count):
    """The next ``count`` victims, each removed."""
    victims = []
    for _ in range(count):
        victims.append(policy.victim(EntryInfo()))
        policy.remove(victims[-1])
    return victims


@pytest.mark.parametrize("strategy", EvictionStrategy)
def test_every_strategy_has_its_policy_and_its_name(strategy):
    assert type(make_policy(strategy, SLOTS)) is STRATEGIES[strategy]
    assert make_policy(strategy, SLOTS) is not make_policy(strategy, SLOTS)
    for name in (strategy, strategy.value, strategy.name, strategy.name.title()):
        assert EvictionStrategy.parse(name) is strategy


@pytest.mark.parametrize("name", ["mru", "", None, 1])
def test_an_unknown_strategy_is_a_value_error_that_lists_those_there_are(name):
    with pytest.raises(ValueError, match=r"choose one of fifo, lru, priority$"):
        EvictionStrategy.parse(name)


@pytest.mark.parametrize("strategy", EvictionStrategy)
def test_without_lookups_and_priorities_all_strategies_are_first_in_first_out(strategy):
    assert drain(occupied(make_policy(strategy, SLOTS), 2, 0, 3, 1), 4) == [2, 0, 3, 1]


@pytest.mark.parametrize("strategy", EvictionStrategy)
def test_asking_for_the_victim_removes_nothing(strategy):
    policy = occupied(make_policy(strategy, SLOTS), 1, 0)
    assert [policy.victim(EntryInfo()) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("strategy", EvictionStrategy)
def test_a_removed_slot_is_no_victim_and_is_the_youngest_when_it_comes_back(strategy):
    policy = occupied(make_policy(strategy, SLOTS), 0, 1, 2)
    policy.remove(1)
    policy.remove(0)
    assert policy.victim(EntryInfo()) == 2
    policy.insert(0, EntryInfo())
    assert drain(policy, 2) == [2, 0]


@pytest.mark.parametrize(
    ("strategy", "order"),
    [(EvictionStrategy.FIFO, [0, 1, 2]), (EvictionStrategy.LRU, [2, 0, 1]), (EvictionStrategy.PRIORITY, [0, 1, 2])],
)
@pytest.mark.parametrize("use", ["touch", "update"])
def test_only_lru_is_moved_by_use(strategy, order, use):
    policy = occupied(make_policy(strategy, SLOTS), 0, 1, 2)
    for slot in (0, 1):
        policy.touch(slot) if use == "touch" else policy.update(slot, EntryInfo())
    assert drain(policy, 3) == order


def test_the_lowest_priority_goes_first_and_the_oldest_among_equals():
    policy = occupied(PriorityPolicy(SLOTS), 0, 1, 2, 3, 4, priorities=[2, 1, 2, 1, -1])
    assert drain(policy, 5) == [4, 1, 3, 0, 2]


def test_no_priority_is_the_default_one():
    assert drain(occupied(PriorityPolicy(SLOTS), 0, 1, priorities=[DEFAULT_PRIORITY + 1, None]), 2) == [1, 0]
    assert drain(occupied(PriorityPolicy(SLOTS), 0, 1, priorities=[None, DEFAULT_PRIORITY - 1]), 2) == [1, 0]
    assert DEFAULT_PRIORITY == 0


def test_infinite_priorities_have_their_place():
    policy = occupied(PriorityPolicy(SLOTS), 0, 1, 2, priorities=[float("inf"), 1e300, float("-inf")])
    assert drain(policy, 3) == [2, 1, 0]


def test_a_change_of_priority_keeps_the_age():
    policy = occupied(PriorityPolicy(SLOTS), 0, 1, 2)
    policy.update(0, EntryInfo(priority=5.0))
    policy.update(0, EntryInfo(priority=DEFAULT_PRIORITY))
    assert drain(policy, 3) == [0, 1, 2]


def test_an_update_without_a_priority_leaves_the_old_one():
    policy = occupied(PriorityPolicy(SLOTS), 0, 1, priorities=[3.0, 2.0])
    policy.update(0, EntryInfo())
    assert drain(policy, 2) == [1, 0]


def test_the_heap_stays_small_under_many_changes():
    policy = occupied(PriorityPolicy(SLOTS), *range(10))
    largest = 0
    for change in range(100_000):
        policy.update(change % 10, EntryInfo(priority=float(change * 7919 % 1000)))
        largest = max(largest, len(policy._heap))
    assert largest <= 4 * 10
    current = {change % 10: float(change * 7919 % 1000) for change in range(100_000 - 10, 100_000)}
    assert drain(policy, 10) == sorted(current, key=lambda slot: (current[slot], slot))


def test_the_heap_stays_small_when_slots_come_and_go():
    policy = occupied(PriorityPolicy(SLOTS), *range(10), priorities=[1.0] * 10)
    largest = 0
    for step in range(10_000):
        # Always the dearest goes, so its record never surfaces by itself.
        policy.remove(step % 10)
        policy.insert(step % 10, EntryInfo(priority=2.0 + step))
        largest = max(largest, len(policy._heap))
    assert largest <= 2 * 10 + 1


_SLOTS = st.integers(0, 4)
_PRIORITIES = st.one_of(st.none(), st.integers(-2, 2).map(float))


@given(st.lists(st.tuples(st.sampled_from(["insert", "update", "remove", "victim", "clear"]), _SLOTS, _PRIORITIES)))
def test_priority_victims_are_those_of_a_search_through_all_slots(steps):
    policy, naive, age = PriorityPolicy(SLOTS), {}, 0
    for step, slot, priority in steps:
        if step == "insert" and slot not in naive:
            policy.insert(slot, EntryInfo(priority=priority))
            naive[slot] = (DEFAULT_PRIORITY if priority is None else priority, age)
            age += 1
        elif step == "update" and slot in naive:
            policy.update(slot, EntryInfo(priority=priority))
            naive[slot] = (naive[slot][0] if priority is None else priority, naive[slot][1])
        elif step == "remove" and slot in naive:
            policy.remove(slot)
            del naive[slot]
        elif step == "clear":
            policy = PriorityPolicy(SLOTS)
            naive.clear()
        if naive:
            assert policy.victim(EntryInfo()) == min(naive, key=naive.get)
