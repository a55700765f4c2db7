"""Fused batches: what they ask of torch, what stays where it is, and what happens where something goes wrong."""

from dataclasses import replace

import pytest
import torch
from conformance import ENVS, GEOMETRY, Twins, replace_layer_tensors, run_script, scripts
from hypothesis import given, settings
from hypothesis import strategies as st

from kvcache.backend import CacheConfig, Scope
from kvcache.geometry import Geometry
from kvcache.manager import KVCacheManager
from kvcache.registry import make_backend
from kvcache.trace.counters import Counts, OperationCounter

FUSED = ["new:slab", "new:paged", "new:paged-resident"]
MOST_OPERATIONS = 12


def search(backend, steps, envs, tokens=2, scope=Scope.NODE, key=0, equal=True):
    """Roots of unequal or equal lengths, then a chain of nodes for each environment: counts of each step."""
    config = backend.config
    generator = torch.Generator().manual_seed(0)

    def append(count):
        for layer in backend.keys_values_wm:
            shape = (len(envs), config.geometry.num_heads, count, config.geometry.head_dim)
            new = torch.randn(shape, generator=generator).to(config.dtype)
            layer.update(new, -new)

    keys = [[1000 * env] for env in envs]
    for length in range(1, 4):
        rows = [env for env in envs if equal or env % 3 < length]
        backend.lookup(rows, [keys[env][-1] if len(keys[env]) > 1 else None for env in rows], Scope.ROOT)
        backend.assemble()
        some = envs
        envs = rows
        append(tokens)
        envs = some
        for env in rows:
            keys[env].append(keys[env][-1] + 1)
        backend.store(rows, [keys[env][-1] for env in rows], Scope.ROOT)
    counted = []
    for _ in range(steps):
        counts = Counts()
        with OperationCounter() as counter:
            backend.lookup(envs, [keys[env][-1] for env in envs], scope)
            backend.assemble()
        counts += counter.counts
        append(tokens)
        for env in envs:
            keys[env].append(keys[env][-1] + 1)
        with OperationCounter() as counter:
            backend.store(envs, [keys[env][-1] for env in envs], scope)
        counts += counter.counts
        counted.append(counts)
    return counted


def shifted(backend):
    geometry = backend.config.geometry
    shape = (geometry.num_layers, 2, geometry.num_heads, geometry.slid_size, geometry.head_dim)
    if geometry.positions == "absolute":
        backend.position_shift = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(backend.config.dtype)
    return backend


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("positions", ["rotary", "absolute"])
@pytest.mark.parametrize("context_length", [8, 40])
@pytest.mark.parametrize("equal", [True, False])
def test_operations_of_a_step_grow_with_neither_environments_nor_layers(name, positions, context_length, equal):
    found = []
    for envs, layers in ((2, 2), (8, 2), (64, 2), (8, 8)):
        geometry = Geometry("g", layers, 2, 8, context_length, envs, 12, positions)
        found.append(search(shifted(make_backend(name, CacheConfig(geometry))), 8, list(range(envs)), equal=equal))
    for step, each in enumerate(zip(*found, strict=True)):
        assert len({counts.tensor_ops for counts in each[1:]}) == 1, step  # 2 rows of 3 lengths are no 3 lengths
        assert max(counts.tensor_ops for counts in each) <= MOST_OPERATIONS
        assert all(counts.synchronisations == 0 for counts in each)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("positions", ["rotary", "absolute"])
def test_a_second_search_allocates_nothing(name, positions):
    geometry = replace(GEOMETRY, env_num=8, num_simulations=12, positions=positions)
    backend = shifted(make_backend(name, CacheConfig(geometry)))
    search(backend, 8, list(range(8)))
    backend.clear_recur_cache()
    assert sum(counts.allocations for counts in search(backend, 8, list(range(8)))) == 0


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_contents_are_legacys_before_any_window_slides(name, dtype):
    geometry = replace(GEOMETRY, env_num=4, context_length=40, num_simulations=12)
    caches = [shifted(make_backend(each, CacheConfig(geometry, dtype=dtype))) for each in ("legacy", name)]
    for cache in caches:
        search(cache, 6, [0, 1, 2, 3], equal=False)
        cache.lookup([0, 1, 2, 3], [1000 * env + 6 + min(3, env % 3 + 4) - 3 for env in range(4)], Scope.NODE)
    sizes = [cache.keys_values_wm_size_list for cache in caches]
    assert sizes[0] == sizes[1]
    assert max(sizes[0]) > 6
    for cache in caches:
        cache.assemble()
    for row, size in enumerate(sizes[0]):
        start = [cache.row_start(row) for cache in caches]
        for ours, theirs in zip(caches[1].keys_values_wm, caches[0].keys_values_wm, strict=True):
            for each, other in zip(ours.get(), theirs.get(), strict=True):
                assert torch.equal(each[row, :, start[1] : start[1] + size], other[row, :, start[0] : start[0] + size])


@pytest.mark.parametrize("name", FUSED)
def test_contents_differ_from_legacys_by_rounding_after_many_slides(name):
    """Legacy rounds slide by slide, slab too; paged once: at most half a unit in the last place for each slide."""
    geometry = replace(GEOMETRY, env_num=2, num_simulations=60, context_length=20)
    caches = [shifted(make_backend(each, CacheConfig(geometry))) for each in ("legacy", name)]
    for cache in caches:
        search(cache, 40, [0, 1])
        cache.lookup([0, 1], [43, 1043], Scope.NODE)
        cache.assemble()
    assert caches[0].keys_values_wm_size_list == caches[1].keys_values_wm_size_list == [17, 17]
    difference = max(
        (ours - theirs).abs().max().item()
        for layers in zip(caches[0].keys_values_wm, caches[1].keys_values_wm, strict=True)
        for ours, theirs in zip(*(layer.get() for layer in layers), strict=True)
    )
    slides = geometry.slid_size // 2
    assert difference <= (0 if name == "new:slab" else slides * 2**-24 * 32)  # sums of eight shifts stay below 32


class TestResident:
    def config(self, **options):
        geometry = replace(GEOMETRY, context_length=40, num_simulations=50, env_num=4)
        return CacheConfig(geometry, storage="paged", resident_batch=True, **options)

    def roots(self, cache, count):
        """Roots of ``2 * count`` tokens."""
        for step in range(count):
            cache.lookup(range(4), [None if step == 0 else step for _ in range(4)], Scope.ROOT)
            cache.assemble()
            self.append(cache)
            cache.store(range(4), [step + 1] * 4, Scope.ROOT)
        return count

    @staticmethod
    def append(cache, value=1.0, count=2):
        for layer in cache.keys_values_wm:
            shape = (cache.keys_values_wm.num_samples, 2, count, 3)
            layer.update(torch.full(shape, value), torch.full(shape, -value))

    def simulate(self, cache, parent, key):
        cache.lookup(range(4), [parent] * 4, Scope.NODE)
        with OperationCounter() as counter:
            cache.assemble()
        self.append(cache, key)
        cache.store(range(4), [key + env for env in range(4)], Scope.NODE)
        return counter.counts.bytes_copied

    def test_what_is_moved_follows_the_depth_and_not_the_root(self):
        moved = []
        for count in (4, 16):
            cache = KVCacheManager(self.config())
            root = self.roots(cache, count)
            self.simulate(cache, root, 100)
            moved.append([self.simulate(cache, root, 200), self.simulate(cache, root, 300)])
        assert moved[0] == moved[1]
        row = 2 * 2 * 6 * 4  # layers, K and V, E, bytes
        assert moved[0] == [0, 0]  # the model appended behind the root: nothing of it is gone
        cache.lookup(range(4), [300, 301, 302, 303], Scope.NODE)
        with OperationCounter() as counter:
            cache.assemble()
        assert counter.counts.bytes_copied == 2 * 4 * 2 * row  # two tokens a row, to a scratch and to their place

    def test_addresses_stay(self):
        cache = KVCacheManager(self.config())
        root = self.roots(cache, 4)
        addresses = {tuple(each.data_ptr() for each in cache.keys_values_wm.layer_tensors())}
        for key in (100, 200, 300):
            self.simulate(cache, root, key)
            addresses.add(tuple(each.data_ptr() for each in cache.keys_values_wm.layer_tensors()))
        assert len(addresses) == 1

    def spoil_in_place(self, batch):
        batch[0]._k_cache._cache[:, :, 1].fill_(9)

    def spoil_in_inference_mode(self, batch):
        with torch.inference_mode():
            batch[1]._v_cache._cache.add_(1)

    def spoil_by_a_reset(self, batch):
        batch.reset()
        for layer in batch:
            layer.update(torch.full((4, 2, 3, 3), 9.0), torch.full((4, 2, 3, 3), 9.0))

    def spoil_by_dropping(self, batch):
        for layer in batch:
            layer.update(torch.full((4, 2, 39, 3), 9.0), torch.full((4, 2, 39, 3), 9.0))

    def spoil_by_other_tensors(self, batch):
        replace_layer_tensors(batch)

    @pytest.mark.parametrize(
        "spoil", ["in_place", "in_inference_mode", "by_a_reset", "by_dropping", "by_other_tensors"]
    )
    def test_whoever_writes_into_it_is_found_out(self, spoil):
        cache = KVCacheManager(self.config())
        root = self.roots(cache, 4)

        def look():
            cache.lookup(range(4), [root] * 4, Scope.NODE)
            cache.assemble()
            return torch.stack([each for layer in cache.keys_values_wm for each in layer.get()]).clone()

        before = look()
        getattr(self, f"spoil_{spoil}")(cache.keys_values_wm)
        assert torch.equal(look(), before)

    @settings(max_examples=60)
    @given(script=scripts(max_rows=2 * ENVS), poisons=st.booleans())
    def test_any_batch_after_any_other(self, script, poisons):
        config = CacheConfig(replace(GEOMETRY, context_length=12), storage="paged", resident_batch=True)
        run_script(Twins(KVCacheManager(config), poisons=poisons), script)


@pytest.mark.parametrize("storage", ["slab", "paged"])
def test_a_store_that_fails_leaves_no_key_without_content(storage, monkeypatch):
    cache = KVCacheManager(CacheConfig(GEOMETRY, storage=storage))
    twins = Twins(cache)
    twins.infer(Scope.NODE, [(0, None, 1), (1, None, 2)])
    twins.look_up([0, 1], [1, 2], Scope.NODE)
    twins.assemble()
    twins.append(2)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(type(cache._batch._kernels), "scatter", lambda *args: (_ for _ in ()).throw(MemoryError("full")))
        cache.store([0, 1], [3, 4], Scope.NODE)
    assert list(cache.recur_pool) == [1, 2]
    twins.infer(Scope.NODE, [(0, 1, 3), (1, 2, 4)])
    assert twins.infer(Scope.NODE, [(0, 3, 5), (1, 4, 6)]) == [4, 4]
