"""Which strategy a manager's pools have where none is chosen."""

import pytest

from kvcache import GEOMETRIES, CacheConfig, EvictionStrategy, KVCacheManager

GEOMETRY = GEOMETRIES["cartpole"]
WHOLE = GEOMETRY.env_num * GEOMETRY.num_simulations


def strategies(**settings):
    """Of the recurrent pool, of an init pool and of the scratch pool."""
    manager = KVCacheManager(CacheConfig(GEOMETRY, **settings))
    return [pool.eviction_strategy.value for pool in (manager.recur_pool, manager.init_pools[0], manager.wm_pool)]


@pytest.mark.parametrize(
    ("settings", "recurrent"),
    [
        ({}, "fifo"),
        ({"recur_pool_size": WHOLE}, "fifo"),
        ({"recur_pool_size": WHOLE - 1}, "tree"),
        ({"recur_pool_bytes": WHOLE * GEOMETRY.entry_bytes()}, "fifo"),
        ({"recur_pool_bytes": WHOLE * GEOMETRY.entry_bytes() // 2}, "tree"),
        ({"init_pool_size": 1}, "fifo"),
    ],
)
@pytest.mark.parametrize("storage", ["paged", "slab", "private"])
def test_only_a_recurrent_pool_without_room_for_a_search_is_for_trees(settings, recurrent, storage):
    assert strategies(**settings, storage=storage) == [recurrent, "fifo", "fifo"]


@pytest.mark.parametrize("strategy", EvictionStrategy)
def test_a_chosen_strategy_is_that_of_all_pools(strategy):
    assert strategies(eviction_strategy=strategy.value, recur_pool_size=1) == [strategy.value] * 3


def test_auto_can_be_named():
    config = CacheConfig(GEOMETRY, recur_pool_size=1, eviction_strategy="lru")
    manager = KVCacheManager(config, eviction_strategy="auto")
    assert manager.recur_pool.eviction_strategy is EvictionStrategy.TREE
    with pytest.raises(ValueError, match=r"choose one of fifo, .*tree, auto$"):
        KVCacheManager(CacheConfig(GEOMETRY), eviction_strategy="mru")
