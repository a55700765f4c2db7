"""Slab storage: slots in one tensor."""

from conformance import ENTRY_BYTES, GEOMETRY, CopyingStorageConformance, Twins, entry, live, same_bits

from kvcache.backend import Scope
from kvcache.config import CacheConfig
from kvcache.manager import KVCacheManager
from kvcache.pool import KVCachePool
from kvcache.storage import SlabStorage


class TestSlabStorage(CopyingStorageConformance):
    storage = "slab"


def test_all_slots_are_reserved_by_the_first_entry_and_memory_does_not_move():
    pool = KVCachePool(4, storage="slab")
    pool.set("a", entry(1))
    memory = pool.storage.memory
    address = memory.rows.data_ptr()
    for value in range(4):
        pool.set(value, entry(value))
    assert memory.rows.data_ptr() == address
    assert memory.nbytes == pool.bytes_reserved + 2 * memory.row_bytes == 4 * ENTRY_BYTES + 2 * memory.row_bytes


def test_memory_that_was_not_reserved_grows_and_keeps_its_contents():
    storage = SlabStorage(20, reserves=False)
    for slot in range(20):
        storage.write(slot, entry(slot))
        assert storage.bytes_reserved == (slot + 1) * ENTRY_BYTES
    assert all(same_bits(live(storage.read(slot)), live(entry(slot))) for slot in range(20))


def test_bytes_of_all_pools_and_the_batch_cover_the_memory():
    cache = KVCacheManager(CacheConfig(GEOMETRY, storage="slab", init_pool_size=3, recur_pool_size=5))
    twins = Twins(cache, may_forget=True)
    for key in range(1, 9):
        twins.infer(Scope.ROOT, [(env, key - 1 or None, key) for env in range(3)])
        twins.infer(Scope.NODE, [(env, key, 10 * key + env) for env in range(3)])
    memory = cache.recur_pool.storage.memory
    pools = cache.bytes_reserved
    assert sum(pools.values()) == memory.nbytes + cache._batch.nbytes
    assert cache.bytes_reserved["recur"] == 5 * GEOMETRY.entry_bytes()


def test_a_slots_memory_is_its_own_for_ever():
    storage = SlabStorage(5)
    for slot in (3, 0, 4):
        storage.write(slot, entry(slot, 6))
    rows = {slot: storage.rows_of(slot).copy() for slot in (3, 0, 4)}
    assert len({row for each in rows.values() for row in each.tolist()}) == 3 * 6
    storage.clear()
    for slot in (0, 1, 4, 3):
        storage.write(slot, entry(slot, 2))
    assert all((storage.rows_of(slot) == rows[slot][:2]).all() for slot in rows)
    assert storage.slots_allocated == 4


def test_init_pools_grow_without_losing_what_any_pool_holds():
    cache = KVCacheManager(CacheConfig(GEOMETRY, storage="slab", init_pool_size=64, recur_pool_size=4))
    twins, memory = Twins(cache), cache.recur_pool.storage.memory
    tensors = set()
    for key in range(4):
        twins.infer(Scope.NODE, [(0, None, 1000 + key)])
    for key in range(60):
        twins.infer(Scope.ROOT, [(env, key or None, key + 1) for env in range(3)])
        tensors.add(memory.rows.data_ptr())
    assert len(tensors) > 3  # it has grown
    for key in range(60):
        twins.look_up([0, 1, 2], [key + 1] * 3, Scope.ROOT)
        twins.assemble()
    twins.look_up([0, 0, 0, 0], range(1000, 1004), Scope.NODE)
    twins.assemble()
    assert memory.nbytes <= sum(cache.bytes_reserved.values())


def test_there_is_one_tensor_for_all_pools():
    cache = KVCacheManager(CacheConfig(GEOMETRY, storage="slab"))
    pools = [*cache.init_pools, cache.recur_pool, cache.wm_pool]
    assert len({id(pool.storage.memory) for pool in pools}) == 1
    for number, pool in enumerate(pools):
        pool.set(1, entry(number, tokens=GEOMETRY.context_length))
    for number, pool in enumerate(pools):
        assert same_bits(live(pool.get(1)), live(entry(number, tokens=GEOMETRY.context_length)))
    rows = [row for pool in pools for row in pool.storage.rows_of(0).tolist()]
    assert len(set(rows)) == len(rows)


def test_the_recurrent_pool_is_reserved_whichever_pool_has_the_first_entry():
    """Where no shape was promised a root comes first; bytes are said to be reserved that are not there."""
    cache = KVCacheManager(CacheConfig(GEOMETRY, storage="slab", checks_entries=False))
    twins = Twins(cache)
    twins.infer(Scope.ROOT, [(0, None, 1)])
    assert cache.bytes_reserved["recur"] <= cache.recur_pool.storage.memory.nbytes
