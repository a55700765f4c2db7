"""What always holds for a manager between two calls: who owns each slot and page, and what the counters add up to."""

import copy
from collections import Counter
from itertools import pairwise

import numpy as np
from policy_conformance import drain

from kvcache.eviction import EvictionStrategy
from kvcache.kernels import NULL_PAGE, ZERO_PAGE
from kvcache.slots import PolicySlots


def pools_of(cache):
    return [*cache.init_pools, cache.recur_pool, cache.wm_pool]


def check_invariants(cache, counts=True):
    """``counts``: whether no call was cut off, in the middle of counting."""
    for pool in pools_of(cache):
        check_pool(pool)
        stats = pool.stats
        assert not counts or stats.hits + stats.misses == stats.total_queries
        assert min(stats.hits, stats.misses, stats.evictions) >= 0
    memory = getattr(cache.recur_pool.storage, "memory", None)
    if hasattr(memory, "references"):
        check_pages(cache)
    elif memory is not None:
        check_slab(memory)
    assert not cache.thread.changing


def slots_of(pool):
    """The slot of each key."""
    return {key: pool._slots.peek(key) for key in pool._slots.keys()}  # noqa: SIM118 - no dict


def check_pool(pool):
    """Each slot is free, once, or belongs to one key, and the order of eviction has exactly these."""
    slots = pool._slots
    owned = slots_of(pool)
    unused = range(pool.pool_size - slots.unused, pool.pool_size)
    assert sorted([*owned.values(), *slots.free_slots(), *unused]) == list(range(pool.pool_size))
    if isinstance(slots, PolicySlots):
        assert all(slots._owners[slot] == key for key, slot in owned.items())
        assert sorted(drain(copy.deepcopy(slots._policy), len(owned))) == sorted(owned.values())
    else:
        occupied = slots.occupied()
        assert {key: slot for _, key, slot, _ in occupied} == owned
        assert len(occupied) == len(owned)
        if pool.eviction_strategy is EvictionStrategy.PRIORITY:  # a heap
            ranks = [(priority, age) for age, _, _, priority in occupied]
            assert all(ranks[(place - 1) // 2] < ranks[place] for place in range(1, len(ranks)))


def check_slab(memory):
    """No row belongs to two entries, and none beyond the used ones to any."""
    begins = sorted(begin for begin in memory.begins if begin)
    assert all(after - before >= memory.longest for before, after in pairwise(begins))
    assert not begins or begins[-1] + memory.longest <= memory.used


def check_pages(cache):
    """Every page is free, once, or held as often as it is counted."""
    pages = cache.recur_pool.storage.memory
    pages._collect()
    held = Counter()
    for pool in pools_of(cache):
        live = set(slots_of(pool).values())
        for slot in live:
            held.update(pool.storage.rows_of(slot).tolist())
        assert all(pool.storage.size(slot) == 0 for slot in range(pool.pool_size) if slot not in live)
    free = pages.free.tolist()
    assert not {ZERO_PAGE, NULL_PAGE} & (set(held) | set(free))
    assert len(set(free)) == len(free)
    assert sorted([*held, *free]) == list(range(2, pages.used))
    assert {page: int(pages.references[page]) for page in held} == dict(held)
    assert not pages.references[free].any()
    owners = len(pools_of(cache))
    charged = np.bincount(pages._owners[list(held)], minlength=owners) if held else [0] * owners
    assert [pool.storage.charge for pool in pools_of(cache)] == list(charged)
