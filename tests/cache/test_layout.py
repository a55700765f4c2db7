"""A configuration's storage, chosen by name."""

import pytest
import torch
from conformance import GEOMETRY

from kvcache.batch import RowBatch
from kvcache.batch.resident import ResidentBatch
from kvcache.batch.tokens import TokenBatch
from kvcache.config import CacheConfig
from kvcache.geometry import GEOMETRIES
from kvcache.layout import make_layout
from kvcache.registry import make_backend
from kvcache.storage import PagedStorage

ENTRY = GEOMETRY.entry_bytes()


@pytest.mark.parametrize(
    ("storage", "resident", "batch"),
    [
        ("private", False, RowBatch), ("reference", False, RowBatch), ("slab", False, TokenBatch),
        ("paged", False, TokenBatch), ("paged", True, ResidentBatch),
    ],
)  # fmt: skip
def test_names(storage, resident, batch):
    layout = make_layout(CacheConfig(GEOMETRY, storage=storage, resident_batch=resident))
    assert type(layout.batch) is batch


def test_an_unknown_storage():
    with pytest.raises(ValueError, match=r"unknown storage 'disk': choose one of .*paged, auto"):
        make_layout(CacheConfig(GEOMETRY, storage="disk"))


@pytest.mark.parametrize(
    ("name", "batch"), [("pong", TokenBatch), ("visual-match", ResidentBatch), ("wide", ResidentBatch)]
)
def test_auto_is_paged_and_resident_where_contexts_are_long(name, batch):
    geometry = GEOMETRIES[name]
    layout = make_layout(CacheConfig(geometry, storage="auto"))
    assert type(layout.batch) is batch
    assert type(layout.recur_storage()) is PagedStorage
    assert type(make_layout(CacheConfig(geometry, storage="auto", resident_batch=True)).batch) is ResidentBatch


@pytest.mark.parametrize("storage", ["private", "reference", "slab"])
def test_who_cannot_have_a_resident_batch(storage):
    with pytest.raises(ValueError, match=f"storage '{storage}' has no resident batch: only 'paged'"):
        make_layout(CacheConfig(GEOMETRY, storage=storage, resident_batch=True))


@pytest.mark.parametrize("pool", ["init", "recur"])
def test_capacities_that_make_no_sense(pool):
    with pytest.raises(ValueError, match=f"{pool}_pool_size and {pool}_pool_bytes are both set"):
        CacheConfig(GEOMETRY, **{f"{pool}_pool_size": 3, f"{pool}_pool_bytes": 10 * ENTRY})
    with pytest.raises(ValueError, match=f"{pool}_pool_bytes is {ENTRY - 1}: one entry takes {ENTRY} bytes"):
        CacheConfig(GEOMETRY, **{f"{pool}_pool_bytes": ENTRY - 1})
    with pytest.raises(ValueError, match=f"{pool}_pool_bytes must be a positive integer"):
        CacheConfig(GEOMETRY, **{f"{pool}_pool_bytes": 0})


@pytest.mark.parametrize(("dtype", "slots"), [(torch.float32, 3), (torch.float16, 6)])
def test_bytes_are_as_many_whole_entries_as_fit(dtype, slots):
    config = CacheConfig(GEOMETRY, recur_pool_bytes=3 * ENTRY + ENTRY // 4, dtype=dtype)
    assert config.recur_entries == slots
    for name in ("new:private", "new:slab"):
        assert make_backend(name, config).recur_pool.pool_size == slots
    assert len(make_backend("legacy", config).recur_pool.slots) == slots


@pytest.mark.parametrize("name", ["new:private", "new:slab", "legacy"])
@pytest.mark.parametrize("pool", ["init", "recur"])
def test_one_byte_less_is_one_slot_less(name, pool):
    sizes = []
    for limit in (4 * ENTRY, 4 * ENTRY - 1):
        backend = make_backend(name, CacheConfig(GEOMETRY, **{f"{pool}_pool_bytes": limit}))
        first = backend.recur_pool if pool == "recur" else backend.init_pools[-1]
        sizes.append(len(first.slots) if name == "legacy" else first.pool_size)
    assert sizes == [4, 3]


@pytest.mark.parametrize("resident", [False, True])
def test_pages_are_counted_in_whole_pages(resident):
    page = ENTRY // GEOMETRY.context_length
    layouts = [
        make_layout(CacheConfig(GEOMETRY, storage="paged", resident_batch=resident, recur_pool_bytes=limit))
        for limit in (ENTRY, ENTRY + page - 1, ENTRY + page)
    ]
    assert [layout.recur_pool_size for layout in layouts] == [8, 8, 9]
    storages = [layout.recur_storage() for layout in layouts]
    assert [storage.lacks_room(8) for storage in storages] == [False] * 3
    assert [storage.lacks_room(9) for storage in storages] == [True, True, False]


def test_the_storages_of_one_layout_share_their_memory_and_those_of_two_do_not():
    for storage in ("slab", "paged"):
        one, other = (make_layout(CacheConfig(GEOMETRY, storage=storage)) for _ in range(2))
        made = [one.init_storage(), one.init_storage(), one.recur_storage(), one.wm_storage()]
        assert len({id(each.memory) for each in made}) == 1
        assert len({id(each) for each in made}) == 4
        assert other.recur_storage().memory is not made[0].memory
