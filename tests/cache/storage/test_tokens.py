"""Memory of single tokens: room, growth and what stays where it is."""

import pytest
import torch
from conformance import HEAD_DIM, HEADS, LAYERS, TOKENS, entry, live, same_bits

from kvcache.kernels import NULL_PAGE, ZERO_PAGE
from kvcache.pool import KVCachePool
from kvcache.storage import EntrySpec, PagedStorage, Pages, Slab, SlabStorage
from kvcache.storage.positions import NO_TOKENS
from kvcache.storage.tokens import NULL_ENTRY, NULL_PAGES

LIKE = EntrySpec((LAYERS, 2, HEADS, TOKENS, HEAD_DIM), torch.float32, torch.device("cpu"))
WIDTH = LAYERS * 2 * HEADS * HEAD_DIM

each_memory = pytest.mark.parametrize("make", [Slab, Pages])
each_storage = pytest.mark.parametrize("make", [SlabStorage, PagedStorage])


@each_memory
def test_nothing_is_allocated_before_it_is_needed(make):
    memory = make(LIKE)
    memory.reserve(1000)
    assert (memory.rows, memory.nbytes) == (None, 0)
    assert memory.take(1) == NULL_PAGES
    assert memory.rows.shape == (NULL_PAGES + 1000, WIDTH)
    assert memory.nbytes == (NULL_PAGES + 1000) * memory.row_bytes


@each_memory
def test_taken_rows_are_consecutive_and_never_taken_twice(make):
    memory = make(LIKE)
    taken = [(memory.take(count), count) for count in (3, 1, 0, 40, 2, 1000, 5)]
    assert [first for first, _ in taken] == [NULL_PAGES + sum(n for _, n in taken[:i]) for i in range(len(taken))]
    assert memory.rows.shape[0] >= memory.used == NULL_PAGES + sum(count for _, count in taken)


@each_memory
def test_growing_keeps_contents_and_copies_a_few_times_what_is_held(make):
    memory, rows, copied = make(LIKE), 2000, 0
    for number in range(rows):
        before = memory.rows
        row = memory.take(1)
        if before is not None and memory.rows is not before:
            copied += len(before)
        memory.rows[row].fill_(number)
    assert memory.rows[NULL_PAGES : memory.used, 0].tolist() == list(range(rows))
    assert not memory.rows[ZERO_PAGE].any()
    assert copied <= 5 * rows  # each time a quarter more: 1 + 4/5 + (4/5)^2 + ... = 5
    assert memory.rows.shape[0] <= 1.25 * memory.used + 1


@each_memory
def test_memory_grown_in_inference_mode_can_be_written_to_outside(make):
    memory = make(LIKE)
    with torch.inference_mode():
        memory.take(3)
        memory.take(50)
    memory.rows[2].fill_(1)
    assert not memory.rows.is_inference()


@each_memory
def test_an_allocation_that_fails_changes_nothing(make, monkeypatch):
    memory = make(LIKE)
    memory.take(4)
    memory.rows.fill_(7)
    before = memory.rows, memory.used
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr("kvcache.storage.tokens.large_memory", lambda *_: (_ for _ in ()).throw(MemoryError("full")))
        memory.take(100)
    assert (memory.rows is before[0], memory.used) == (True, before[1])
    assert memory.take(1) == before[1]


@each_memory
def test_what_grows_from_an_entry_starts_with_its_rows_where_rows_are_shared(make):
    memory = make(LIKE)
    first = memory.register(3)
    origins = NO_TOKENS.grown(0, 4, 4)
    parent = memory.write([first], *memory.inherit([NULL_ENTRY], [0], [4]), [origins])
    tables, new = memory.inherit([first, NULL_ENTRY], [0, 0], [6, 2])
    assert new == ([2, 2] if make is Pages else [6, 2])
    assert tables[0, TOKENS - 6 : TOKENS - 2].tolist() == (parent[:, 0].tolist() if make is Pages else [ZERO_PAGE] * 4)
    targets = memory.write([first + 1, first + 2], tables, new, [origins.grown(0, 6, 2), NO_TOKENS.grown(0, 2, 2)])
    assert len(set(targets[targets != NULL_PAGE].tolist())) == sum(new)
    assert not set(targets[targets != NULL_PAGE].tolist()) & set(parent[:, 0].tolist())
    assert memory.tables[first + 1, TOKENS - 2 : TOKENS].tolist() == targets[-2:, 0].tolist()
    assert memory.tables[first + 2, : TOKENS - 2].tolist() == [ZERO_PAGE] * (TOKENS - 2)


@each_storage
def test_two_pools_in_one_memory_do_not_mix(make):
    memory = (Slab if make is SlabStorage else Pages)(LIKE)
    pools = [KVCachePool(3, storage=make(3, LIKE, memory, reserves)) for reserves in (True, False)]
    for value in range(8):
        for number, pool in enumerate(pools):
            pool.set(value, entry(10 * number + value, value % (TOKENS + 1)))
    for number, pool in enumerate(pools):
        assert set(pool) == {5, 6, 7}
        for value in pool:
            assert same_bits(live(pool.get(value)), live(entry(10 * number + value, value % (TOKENS + 1))))
    pools[0].clear()
    assert same_bits(live(pools[1].get(6)), live(entry(16, 6)))


@each_storage
@pytest.mark.parametrize(
    "wrong", [(LAYERS, 2, HEADS, TOKENS, 1), (LAYERS, 2, 1, TOKENS, HEAD_DIM), (1, 2, HEADS, TOKENS, HEAD_DIM)]
)
def test_an_entry_is_not_loaded_into_what_it_does_not_fit(make, wrong):
    storage = make(2, LIKE)
    storage.write(0, entry(1))
    with pytest.raises(ValueError, match=r"does not fit a batch of"):
        storage.load_tokens(0, torch.zeros(wrong), 0)


@each_storage
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_entries_keep_their_dtype(make, dtype):
    storage = make(1)
    storage.write(0, entry(1, dtype=dtype))
    assert same_bits(live(storage.read(0)), live(entry(1, dtype=dtype)))


@each_storage
def test_only_live_tokens_are_copied(make):
    storage, kv = make(1), entry(1, size=3)
    kv.block[..., 3:, :] = float("nan")
    storage.write(0, kv)
    row = torch.full((LAYERS, 2, HEADS, TOKENS, HEAD_DIM), -1.0)
    storage.load_tokens(0, row, 2)
    assert same_bits(row[..., 2:5, :], live(kv)[0])
    assert (row[..., :2, :] == -1).all()
    assert (row[..., 5:, :] == -1).all()


@pytest.mark.parametrize("storage", ["slab", "paged"])
def test_a_row_of_odd_width_is_moved_as_well(storage):
    """Rows that are no whole number of the widest elements torch can move."""
    pool = KVCachePool(3, storage=storage)
    for value in range(3):
        pool.set(value, entry(value, layers=1, heads=1, head_dim=3, dtype=torch.float16))
    assert pool.storage.memory.row_bytes == 12
    for value in range(3):
        wanted = entry(value, layers=1, heads=1, head_dim=3, dtype=torch.float16)
        assert same_bits(live(pool.get(value)), live(wanted))


@each_memory
def test_what_is_reserved_adds_up(make):
    memory = make(LIKE)
    memory.reserve(3)
    memory.reserve(entries=1)
    memory.reserve(4, 2)
    memory.take(1)
    assert len(memory.rows) == NULL_PAGES + 3 + 4 + 3 * TOKENS


@each_memory
def test_memory_of_no_known_entries_can_be_reset_and_has_no_bytes(make):
    memory = make()
    memory.register(2)
    memory.reset()
    assert (memory.row_bytes, memory.nbytes, memory.rows, memory.used) == (0, 0, None, NULL_PAGES)


@each_storage
def test_a_reset_empties_everything_and_clears_what_padding_is_read_from(make):
    storage = make(3, LIKE)
    for slot in range(3):
        storage.write(slot, entry(slot, 5))
    memory = storage.memory
    memory.rows.fill_(7)  # whatever an interrupted change has left
    storage.reset()
    assert not memory.rows[:NULL_PAGES].any()
    assert not memory.tables.any()
    assert (memory.used, memory.sizes, memory.origins) == (NULL_PAGES, [0] * 4, [NO_TOKENS] * 4)
    for slot in range(3):
        storage.write(slot, entry(slot + 5, 6))
        assert same_bits(live(storage.read(slot)), live(entry(slot + 5, 6)))
    assert memory.used == NULL_PAGES + 3 * (6 if make is PagedStorage else TOKENS)


@each_storage
def test_a_slot_that_was_never_written_cannot_be_read_beside_ones_that_were(make):
    storage = make(1, LIKE)
    storage.write(0, entry(1))
    later = make(2, LIKE, storage.memory)
    for slot in (0, 1):
        with pytest.raises(AssertionError, match=f"slot {slot} is read before it was written"):
            later.rows_of(slot)


@each_storage
def test_a_spec_that_was_given_holds_before_the_first_entry(make):
    with pytest.raises(ValueError, match="this pool holds entries of"):
        make(2, LIKE).check(entry(1, tokens=TOKENS + 1))
    make(2).check(entry(1, tokens=TOKENS + 1))  # where none was given the first entry decides


@each_storage
def test_slots_and_bytes_are_of_what_is_written_and_reserved(make):
    storage = make(3)
    assert (storage.slots_allocated, storage.bytes_reserved) == (0, 0)
    storage.write(0, entry(1, TOKENS))
    other = make(5, LIKE, storage.memory, reserves=False)
    assert (storage.slots_allocated, other.bytes_reserved) == (1, 0)
    storage.write(1, entry(2, TOKENS))
    storage.write(2, entry(3, TOKENS))
    assert storage.slots_allocated == 3
    assert type(storage.slots_allocated) is int


def test_after_a_reset_no_serial_number_is_given_twice():
    memory = Pages(LIKE)
    entries = memory.register(2)
    memory.write([entries], *memory.inherit([NULL_ENTRY], [0], [3]), [NO_TOKENS.grown(0, 3, 3)])
    memory.serials[4] = 50  # a change that was interrupted has written one, and not counted on
    memory.reset()
    assert not memory.serials.any()
    memory.write([entries], *memory.inherit([NULL_ENTRY], [0], [3]), [NO_TOKENS.grown(0, 3, 3)])
    assert min(memory.serials[memory.tables[entries, TOKENS - 3 : TOKENS]]) > 50


@each_storage
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_tokens_corrected_by_a_shift_of_another_dtype_keep_their_own(make, dtype):
    storage, row = make(1), entry(1, dtype=dtype).block[0]
    shift = torch.full((LAYERS, 2, HEADS, 3, HEAD_DIM), 0.5)
    storage.save_tokens(0, row, 1, 3, shift)
    stored = live(storage.read(0))[0]
    assert same_bits(stored, row[..., 1:4, :] + shift.to(dtype))
