"""Slab storage: slots in one tensor."""

from conformance import ENTRY_BYTES, GEOMETRY, CopyingStorageConformance, Twins, entry, live, same_bits

from kvcache.backend import CacheConfig, Scope
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
