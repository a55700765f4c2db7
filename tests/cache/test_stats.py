"""Counters."""

import pytest

from kvcache.stats import CacheStats


def test_rates_with_no_query():
    stats = CacheStats()
    assert stats.total_queries == 0
    assert stats.hit_rate == 0.0
    assert stats.miss_rate == 1.0
    assert isinstance(stats.hit_rate, float)
    assert isinstance(stats.miss_rate, float)


@pytest.mark.parametrize(("hits", "misses", "hit_rate"), [(3, 1, 0.75), (0, 4, 0.0), (4, 0, 1.0)])
def test_rates_are_shares_of_the_queries(hits, misses, hit_rate):
    stats = CacheStats(hits=hits, misses=misses, evictions=9, total_queries=4)
    assert stats.hit_rate == hit_rate
    assert stats.miss_rate == 1 - hit_rate


def test_reset_sets_every_counter_to_zero():
    stats = CacheStats(1, 2, 3, 4)
    stats.reset()
    assert stats == CacheStats()


def test_a_dict_has_counters_and_rates():
    assert CacheStats(3, 1, 2, 4).to_dict() == {
        "hits": 3,
        "misses": 1,
        "evictions": 2,
        "total_queries": 4,
        "hit_rate": 0.75,
        "miss_rate": 0.25,
    }


def test_counters_are_plain_fields_that_can_be_set():
    stats = CacheStats()
    stats.count(2, 1)
    assert stats == CacheStats(hits=2, misses=1, evictions=0, total_queries=3)
    stats.total_queries = 8
    assert stats.hit_rate == 0.25
    assert stats.miss_rate == 0.75


def test_a_misspelt_counter_is_an_error():
    with pytest.raises(AttributeError):
        CacheStats().hit = 1
