"""LRU: the one that was not used for the longest time first."""

from policy_conformance import SLOTS, PolicyConformance, drain, occupied

from kvcache.eviction import EntryInfo, EvictionStrategy, LruPolicy


class TestLru(PolicyConformance):
    strategy = EvictionStrategy.LRU


def test_lookups_and_updates_are_uses():
    policy = occupied(LruPolicy(SLOTS), 0, 1, 2)
    policy.touch(0)
    policy.update(1, EntryInfo())
    assert drain(policy, 3) == [2, 0, 1]
