"""PRIORITY: the lowest first."""

from hypothesis import given
from hypothesis import strategies as st
from policy_conformance import SLOTS, PolicyConformance, drain, occupied

from kvcache.eviction import DEFAULT_PRIORITY, EntryInfo, EvictionStrategy, PriorityPolicy


class TestPriority(PolicyConformance):
    strategy = EvictionStrategy.PRIORITY


def test_uses_move_nothing():
    policy = occupied(PriorityPolicy(SLOTS), 0, 1, 2)
    policy.touch(0)
    policy.update(1, EntryInfo())
    assert drain(policy, 3) == [0, 1, 2]


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
