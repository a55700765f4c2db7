"""Reference storage: the very object, shared with the caller; kept for comparison."""

import pytest
import torch
from conformance import StorageConformance, entry, live

from kvcache.pool import KVCachePool


class TestReferenceStorage(StorageConformance):
    storage = "reference"


def pool(size=2):
    return KVCachePool(size, storage="reference")


@pytest.mark.parametrize("value", [object(), "text", 3, [1, 2], {"a": 1}, torch.zeros(2), None])
def test_anything_can_be_stored_and_is_the_same_object(value):
    shared = pool()
    shared.set("key", value)
    assert shared.get("key") is value
    assert "key" in shared
    assert shared.stats.hits == 1


def test_who_writes_into_what_was_stored_writes_into_the_cache():
    shared, kv = pool(), entry(1)
    shared.set("key", kv)
    kv.block.fill_(7.0)
    assert (live(shared.get("key")) == 7).all()


def test_who_writes_into_what_was_returned_writes_into_the_cache():
    shared = pool()
    shared.set("key", entry(1))
    returned = shared.get("key")
    returned.block.fill_(7.0)
    returned.reset()
    assert (shared.get("key").block == 7).all()
    assert shared.get("key").size == 0


def test_entries_need_not_look_alike():
    shared = pool()
    shared.set("a", entry(1, layers=1))
    shared.set("b", entry(2, layers=3, dtype=torch.float64))
    assert (len(shared.get("a")), len(shared.get("b"))) == (1, 3)


def test_nothing_is_held_after_a_clear():
    shared = pool()
    shared.set("a", entry(1))
    shared.set("b", "no tensor")
    assert shared.bytes_reserved == entry(1).block.nbytes
    shared.clear()
    assert shared.bytes_reserved == 0


def test_every_saved_row_is_a_fresh_object():
    shared, row = pool(1), entry(1).block[0]
    shared.save_tokens("key", row, 0, 2, None)
    first = shared.get("key")
    shared.save_tokens("key", row, 0, 4, None)
    assert shared.get("key") is not first
    assert first.size == 2
    assert shared.slots_allocated == 2
