"""Private storage: copies in, copies out."""

import pytest
import torch
from conformance import ENTRY_BYTES, HEAD_DIM, HEADS, LAYERS, TOKENS, CopyingStorageConformance, entry, live, same_bits

from kvcache.storage import PrivateStorage


class TestPrivateStorage(CopyingStorageConformance):
    storage = "private"


def test_a_slot_takes_memory_when_it_is_first_used_and_never_again():
    storage = PrivateStorage(3)
    assert (storage.slots_allocated, storage.bytes_reserved) == (0, 0)
    for _ in range(2):
        for slot in (0, 2):
            storage.write(slot, entry(slot))
    assert (storage.slots_allocated, storage.bytes_reserved) == (2, 2 * ENTRY_BYTES)
    storage.clear()
    assert storage.bytes_reserved == 2 * ENTRY_BYTES


def test_only_live_tokens_are_copied():
    storage, kv = PrivateStorage(1), entry(1, size=3)
    kv.block[..., 3:, :] = float("nan")
    storage.write(0, kv)
    row = torch.full((LAYERS, 2, HEADS, TOKENS, HEAD_DIM), -1.0)
    storage.load_tokens(0, row, 2)
    assert same_bits(row[..., 2:5, :], live(kv)[0])
    assert (row[..., :2, :] == -1).all()
    assert (row[..., 5:, :] == -1).all()


def test_a_slot_that_was_never_written_cannot_be_read():
    with pytest.raises(AssertionError, match="slot 1"):
        PrivateStorage(2).read(1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_entries_keep_their_dtype(dtype):
    storage = PrivateStorage(1)
    storage.write(0, entry(1, dtype=dtype))
    assert same_bits(live(storage.read(0)), live(entry(1, dtype=dtype)))


def test_the_first_entry_decides_what_the_others_look_like():
    storage = PrivateStorage(2)
    storage.check(entry(1, tokens=9))
    storage.write(0, entry(1, tokens=9))
    with pytest.raises(ValueError, match=r"9.*got.*6"):
        storage.check(entry(1, tokens=6))


def test_a_reset_empties_all_slots_and_keeps_their_memory():
    storage = PrivateStorage(3)
    assert [storage.size(slot) for slot in range(3)] == [0, 0, 0]
    for slot in (0, 2):
        storage.write(slot, entry(slot, 5))
    assert [storage.size(slot) for slot in range(3)] == [5, 0, 5]
    storage.reset()
    assert [storage.size(slot) for slot in range(3)] == [0, 0, 0]
    assert (storage.slots_allocated, storage.bytes_reserved) == (2, 2 * ENTRY_BYTES)
    storage.write(2, entry(9))
    assert (storage.slots_allocated, storage.bytes_reserved) == (2, 2 * ENTRY_BYTES)


def test_a_storage_without_a_limit_never_lacks_room():
    storage = PrivateStorage(1)
    assert (storage.is_limited, storage.lacks_room(10**9)) == (False, False)
