"""FIFO: the oldest first; and the names of all strategies."""

import pytest
from policy_conformance import SLOTS, PolicyConformance, drain, occupied

from kvcache.eviction import EntryInfo, EvictionStrategy, FifoPolicy


class TestFifo(PolicyConformance):
    strategy = EvictionStrategy.FIFO


def test_uses_move_nothing():
    policy = occupied(FifoPolicy(SLOTS), 2, 0, 3, 1)
    policy.touch(2)
    policy.update(0, EntryInfo())
    assert drain(policy, 4) == [2, 0, 3, 1]


def test_a_slot_that_comes_back_is_the_youngest():
    policy = occupied(FifoPolicy(SLOTS), 0, 1, 2)
    policy.remove(1)
    policy.remove(0)
    policy.insert(0, EntryInfo())
    assert drain(policy, 2) == [2, 0]


@pytest.mark.parametrize("name", ["mru", "", None, 1, "fi fo", "s3fifos"])
def test_an_unknown_strategy_is_a_value_error_that_lists_those_there_are(name):
    with pytest.raises(ValueError, match=r"choose one of fifo, lru, priority, s3-fifo, sieve, tree$"):
        EvictionStrategy.parse(name)
