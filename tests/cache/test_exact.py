"""Batches of contiguous layers, and in exact mode legacy's bits also where windows have slid."""

import pytest
import torch
from conformance import GEOMETRY, same_bits

from kvcache import EMPTY, MISS, CacheConfig, KeysValues, Scope, make_backend

STORAGES = [("private", False), ("slab", False), ("paged", False), ("paged", True)]


def caches(storage, resident, **options):
    """A legacy cache and an exact new one of absolute positions, with the same position shift."""
    config = CacheConfig(GEOMETRY, storage=storage, resident_batch=resident, exact=True, **options)
    legacy, new = make_backend("legacy", config), make_backend("new", config)
    generator = torch.Generator().manual_seed(1)
    kept = GEOMETRY.context_length - 3
    shape = GEOMETRY.num_layers, 2, GEOMETRY.num_heads, kept, GEOMETRY.head_dim
    legacy.position_shift = new.position_shift = torch.randn(shape, generator=generator)
    return legacy, new


def run(cache, steps, seed=0, rows=None):
    """Contexts that grow from each other, of unequal lengths; every batch as it was assembled."""
    generator = torch.Generator().manual_seed(seed)
    rows = rows or GEOMETRY.env_num
    batches, keys = [], [None] * rows
    for step in range(steps):
        envs = range(rows)
        if step % 3 == 1:  # one row has no context: the model makes one
            keys = [10**6 + step, *keys[1:]]
        sizes = cache.lookup(envs, keys, Scope.NODE)
        for row, size in enumerate(sizes):
            if size in (MISS, EMPTY):
                cache.supply(row, context(generator))
        sizes = cache.assemble()
        kv = cache.keys_values_wm
        batches.append(([layer.get()[kind].clone() for layer in kv for kind in (0, 1)], list(sizes)))
        for layer in kv:
            new = torch.randn((2, rows, GEOMETRY.num_heads, 2, GEOMETRY.head_dim), generator=generator)
            layer.update(new[0], new[1])
        keys = [100 * step + row for row in range(rows)]
        cache.store(envs, keys, Scope.NODE)
    return batches


def context(generator):
    kv = KeysValues(1, GEOMETRY.num_heads, GEOMETRY.context_length, GEOMETRY.embed_dim, GEOMETRY.num_layers)
    for layer in kv:
        new = torch.randn((2, 1, GEOMETRY.num_heads, 1, GEOMETRY.head_dim), generator=generator)
        layer.update(new[0], new[1])
    return kv


@pytest.mark.parametrize(("storage", "resident"), STORAGES)
def test_slid_contexts_have_legacys_bits(storage, resident):
    legacy, new = caches(storage, resident)
    for (theirs, sizes), (ours, own_sizes) in zip(run(legacy, 20), run(new, 20), strict=True):
        assert sizes == own_sizes
        assert all(same_bits(a, b) for a, b in zip(theirs, ours, strict=True))


def test_paged_contents_are_rounded_otherwise_where_they_are_not_exact():
    legacy, _ = caches("paged", False)
    new = make_backend("new:paged", CacheConfig(GEOMETRY))
    new.position_shift = legacy.position_shift
    pairs = zip(run(legacy, 20), run(new, 20), strict=True)
    assert not all(same_bits(a, b) for (theirs, _), (ours, _) in pairs for a, b in zip(theirs, ours, strict=True))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("storage", "resident"), STORAGES)
@pytest.mark.parametrize("rows", [1, GEOMETRY.env_num, GEOMETRY.env_num + 2])
def test_layers_are_contiguous(storage, resident, rows, exact):
    config = CacheConfig(GEOMETRY, storage=storage, resident_batch=resident, exact=exact)
    new = make_backend("new", config)
    new.lookup([0] * rows, [None] * rows, Scope.ROOT)
    new.assemble()
    assert all(each.is_contiguous() for each in new.keys_values_wm.layer_tensors())
    assert new.keys_values_wm.num_samples == rows


def test_an_exact_batch_takes_no_more_memory():
    plain = make_backend("new:paged", CacheConfig(GEOMETRY))
    exact = make_backend("new:paged-exact", CacheConfig(GEOMETRY))
    assert exact.batch_bytes == plain.batch_bytes


def test_exact_batches_are_padded_in_front():
    """As LightZero pads them: a resident batch has its zeros behind, so it is not resident then."""
    _, new = caches("paged", True)
    run(new, 5)
    sizes = new.keys_values_wm_size_list
    assert [new.row_start(row) for row in range(len(sizes))] == [max(sizes) - size for size in sizes]
    assert min(sizes) < max(sizes)


def test_a_model_may_put_its_own_tensors_into_the_batch():
    """As LightZero's ``trim_and_pad_kv_cache`` does."""
    legacy, new = caches("paged", False)
    for cache in (legacy, new):
        run(cache, 2)
        for layer in cache.keys_values_wm:
            for each in (layer._k_cache, layer._v_cache):
                each._cache = each._cache + 1
    for cache in (legacy, new):
        cache.store(range(GEOMETRY.env_num), range(GEOMETRY.env_num), Scope.NODE)
