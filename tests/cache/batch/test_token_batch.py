"""Fused batches: what they ask of torch, what stays where it is, and what happens where something goes wrong."""

import copy
import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from conformance import ENVS, GEOMETRY, Twins, entry, live, replace_layer_tensors, run_script, same_bits, scripts
from hypothesis import given, settings
from hypothesis import strategies as st
from invariants import slots_of

from kvbench.measure.counters import Counts, OperationCounter
from kvcache.backend import MISS, Scope
from kvcache.config import CacheConfig
from kvcache.geometry import Geometry
from kvcache.manager import KVCacheManager
from kvcache.registry import make_backend

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
        assert counter.counts.bytes_copied == 4 * 2 * row  # two tokens a row, straight to their place

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
    def test_a_write_from_outside_is_detected(self, spoil):
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
    assert list(cache.recur_pool) == []
    twins.clear("clear_all")
    twins.infer(Scope.NODE, [(0, None, 3), (1, None, 4)])
    assert twins.infer(Scope.NODE, [(0, 3, 5), (1, 4, 6)]) == [2, 2]


# Against private storage: row by row, small pools, everything a caller may do in between.

_KEYS = st.integers(0, 4)
_SIZES = st.integers(0, GEOMETRY.context_length)
_ROWS = st.lists(
    st.tuples(st.integers(0, ENVS - 1), st.none() | _KEYS, _KEYS, _SIZES, st.sampled_from([None, 0.0, 1.0, 2.0])),
    min_size=1,
    max_size=5,
)
_MEANWHILE = st.sampled_from([None, None, None, "clear", "set"])
_INFERENCES = st.tuples(st.just("infer"), st.sampled_from(Scope), _ROWS, st.integers(0, 2), _MEANWHILE)
_WHOLE_ENTRIES = st.tuples(st.sampled_from(["set", "get"]), st.none() | st.integers(0, ENVS - 1), _KEYS, _SIZES)
_CLEARS = st.tuples(st.just("clear"), st.sampled_from(["clear_recur_cache", "clear_init_caches", "clear_all"]))


class Pair:
    """A manager and one with private storage, driven alike; they must agree in slots, contents and statistics.

    Unlike the naive cache the other one evicts, and takes entries of any size: contents are integers, so that
    corrections are exact in any order.
    """

    def __init__(self, name, **options):
        self.managers = [make_backend(each, CacheConfig(GEOMETRY, **options)) for each in (name, "new:private")]
        kept = GEOMETRY.slid_size
        shift = torch.arange(1, 1 + 2 * 2 * 2 * kept * 3).view(2, 2, 2, kept, 3).float()
        for manager in self.managers:
            manager.position_shift = shift
        self._serial = itertools.count(1)

    def run(self, script):
        for action, *arguments in script:
            getattr(self, action)(*arguments)
            self.compare()

    def clear(self, what):
        for manager in self.managers:
            getattr(manager, what)()

    def set(self, env, key, size):
        given = entry(next(self._serial), size, tokens=GEOMETRY.context_length)
        for manager in self.managers:
            if env is None:
                manager.set_recur_cache(key, given)
            else:
                manager.set_init_cache(env, key, given)

    def get(self, env, key, _size):
        ours, theirs = (
            each.get_recur_cache(key) if env is None else each.hierarchical_get(env, key) for each in self.managers
        )
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.size == theirs.size
            assert same_bits(live(ours), live(theirs))

    def infer(self, scope, rows, appended, meanwhile):
        envs, parents, keys, supplied, priorities = map(list, zip(*rows, strict=True))
        found, same = (each.lookup(envs, parents, scope) for each in self.managers)
        assert found == same
        for row, size in enumerate(found):
            if size == MISS:
                made = entry(next(self._serial), supplied[row], tokens=GEOMETRY.context_length)
                for manager in self.managers:
                    manager.supply(row, made)
        sizes, same = (list(each.assemble()) for each in self.managers)
        assert sizes == same
        self.compare_batches(sizes)
        self.append(len(rows), min(appended, GEOMETRY.context_length - max(sizes)))
        if meanwhile == "clear":
            self.clear("clear_recur_cache")
        elif meanwhile == "set":
            self.set(None, parents[0] or 0, 3)
        for manager in self.managers:
            manager.store(envs, keys, scope, priorities)

    def append(self, rows, count):
        serial = next(self._serial)
        for index in range(GEOMETRY.num_layers):
            shape = (rows, GEOMETRY.num_heads, count, GEOMETRY.head_dim)
            keys = torch.arange(torch.Size(shape).numel()).view(shape).float() + 1000 * serial + 500 * index
            for manager in self.managers:
                manager.keys_values_wm[index].update(keys, -keys)

    def compare_batches(self, sizes):
        for row, size in enumerate(sizes):
            (ours, start), (theirs, other) = (
                (live(each.keys_values_wm)[row], each.row_start(row)) for each in self.managers
            )
            assert same_bits(ours[..., start : start + size, :], theirs[..., other : other + size, :])
            assert not ours[..., :start, :].any()
            assert not ours[..., start + size :, :].any()

    def compare(self):
        ours, theirs = ([*each.init_pools, each.recur_pool] for each in self.managers)
        for pool, other in zip(ours, theirs, strict=True):
            assert slots_of(pool) == slots_of(other)
            for slot in slots_of(pool).values():
                content, wanted = pool.storage.read(slot), other.storage.read(slot)
                assert content.size == wanted.size
                assert same_bits(content.block, wanted.block)
        assert self.managers[0].get_stats_summary() == self.managers[1].get_stats_summary()


@pytest.mark.parametrize("name", FUSED)
@settings(max_examples=80)
@given(
    script=st.lists(_INFERENCES | _INFERENCES | _WHOLE_ENTRIES | _CLEARS, min_size=3, max_size=16),
    strategy=st.sampled_from(["fifo", "lru", "priority"]),
    init_size=st.integers(1, 4),
    recur_size=st.integers(1, 6),
)
def test_small_pools_hold_what_private_ones_hold(name, script, strategy, init_size, recur_size):
    Pair(name, init_pool_size=init_size, recur_pool_size=recur_size, eviction_strategy=strategy).run(script)


def a_chain(name, dtype, steps):
    """Single steps, each on the last one's context: what the cache gave, what it should be, and how far it was moved.

    Returns:
        Triples of ``[L, 2, H, size, D]``: the batch; the exact context and its corrections, in float64, never rounded.
    """
    geometry = replace(GEOMETRY, env_num=1, num_simulations=steps + 1, context_length=20)
    cache = shifted(make_backend(name, CacheConfig(geometry, dtype=dtype)))
    generator = torch.Generator().manual_seed(2)
    shift = cache.position_shift.double()
    computed = moved = torch.empty(2, 2, 2, 0, 3, dtype=torch.float64)
    found = []
    for step in range(steps):
        cache.lookup([0], [step or None], Scope.NODE)
        cache.assemble()
        found.append((live(cache.keys_values_wm)[0].clone(), computed + moved, moved))
        new = torch.randn(2, 2, 2, 2, 3, generator=generator).to(dtype)
        for layer, (keys, values) in zip(cache.keys_values_wm, new, strict=True):
            layer.update(keys[None], values[None])
        computed, moved = torch.cat([computed, new], dim=3), torch.cat([moved, torch.zeros_like(new)], dim=3)
        first, count = geometry.window(computed.shape[3])
        computed, moved = (each.narrow(3, first, count) for each in (computed, moved))
        moved = moved + (shift if first else 0)
        cache.store([0], [step + 1], Scope.NODE)
    return found


@pytest.mark.parametrize("name", ["new:paged", "new:paged-resident"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pages_are_two_roundings_from_exact_after_any_number_of_slides(name, dtype):
    """One makes the slides' sum a correction, one adds it to the token: each half a unit of what it rounds."""
    unit = torch.finfo(dtype).eps / 2
    slides = 0
    for assembled, exact, moved in a_chain(name, dtype, 30)[1:]:
        assert assembled.shape == exact.shape
        if not moved.any():
            assert torch.equal(assembled.double(), exact)
            continue
        slides += 1
        allowed = unit * (moved.abs() + exact.abs()) * (1 + 2 * unit)
        assert ((assembled.double() - exact).abs() <= allowed).all()
    assert slides > 10


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("inference", [0, 1, 2])
def test_a_search_may_go_in_and_out_of_inference_mode(name, inference):
    twins = Twins(make_backend(name, CacheConfig(GEOMETRY)), poisons=False)
    for key, rows in enumerate([3, 2, 3, 5, 5, 3, 1, 3, 6, 3]):
        with torch.inference_mode((key + inference) // 2 % 2 == 0):
            twins.infer(Scope.ROOT, [(row % ENVS, key or None, key + 1) for row in range(rows)])


@pytest.mark.parametrize("storage", ["slab", "paged"])
@pytest.mark.parametrize("rows", [[(0, 1, 1), (1, 2, 5)], [(0, None, 5), (1, 2, 5)], [(2, 9, 6), (1, 2, 1)]])
def test_priorities_that_have_no_order_lose_no_memory_and_leave_no_key_without_content(storage, rows):
    config = CacheConfig(GEOMETRY, storage=storage, eviction_strategy="priority", recur_pool_size=3)
    cache = KVCacheManager(config)
    twins = Twins(cache, may_forget=True)
    twins.infer(Scope.NODE, [(0, None, 1), (1, None, 2)])
    envs, parents, keys = map(list, zip(*rows, strict=True))
    for row, size in enumerate(cache.lookup(envs, parents, Scope.NODE)):
        if size == MISS:
            cache.supply(row, entry(1, 3, tokens=GEOMETRY.context_length))
    cache.assemble()
    with pytest.raises(ValueError, match="NaN"):
        cache.store(envs, keys, Scope.NODE, [1.0, float("nan")])
    assert all(cache.get_recur_cache(key).size == 2 for key in cache.recur_pool)
    for key in (1, 2, 5, 6):
        twins.infer(Scope.NODE, [(0, None, key), (1, None, key + 10)])
    assert len(cache.recur_pool) == 3


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("rows", [1, 2], ids=["alike", "unlike"])
@pytest.mark.parametrize(
    ("dtype", "of_shift"),
    [(torch.float16, torch.float32), (torch.float32, torch.float64), (torch.float32, torch.bfloat16)],
    ids=str,
)
def test_a_shift_may_be_of_another_dtype_than_contents(name, rows, dtype, of_shift):
    """As with private storage and with legacy: a model's positions stay float32 where its cache is half as wide."""
    caches = [make_backend(each, CacheConfig(GEOMETRY, dtype=dtype)) for each in (name, "new:private")]
    for cache in caches:
        cache.position_shift = torch.ones(2, 2, 2, GEOMETRY.slid_size, 3, dtype=of_shift)
        for step in range(6):  # the second row is one step shorter
            envs = range(rows if step else 1)
            cache.lookup(envs, [step - env or None for env in envs], Scope.ROOT)
            cache.assemble()
            for layer in cache.keys_values_wm:
                new = torch.ones(len(envs), 2, 2, 3, dtype=dtype)
                layer.update(new, new)
            cache.store(envs, [step + 1 - env for env in envs], Scope.ROOT)
    ours, theirs = (live(cache.hierarchical_get(0, 6)) for cache in caches)
    assert same_bits(ours, theirs)


@pytest.mark.parametrize("name", ["new:private", *FUSED])
def test_a_pruned_batch_is_not_taken_for_the_backends_own(name):
    twins = Twins(make_backend(name, CacheConfig(GEOMETRY)))
    twins.infer(Scope.ROOT, [(env, None, 1) for env in range(ENVS)])
    twins.backend.keys_values_wm.prune([True] * ENVS)
    twins.infer(Scope.ROOT, [(env, 1, 2) for env in range(ENVS)])


def resident_twins():
    twins = Twins(make_backend("new:paged-resident", CacheConfig(GEOMETRY)), poisons=False)
    twins.infer(Scope.ROOT, [(env, None, 1) for env in range(ENVS)])
    return twins


def assemble_again(twins):
    twins.look_up(range(ENVS), [1] * ENVS, Scope.ROOT)
    twins.assemble()


@pytest.mark.parametrize("view", [lambda tensor: tensor[:, :, 1], lambda tensor: tensor.detach()])
@pytest.mark.parametrize("inference", [False, True])
def test_a_write_through_a_view_is_found_out_too(view, inference):
    twins = resident_twins()
    assemble_again(twins)
    with torch.inference_mode(inference):
        view(twins.backend.keys_values_wm[1]._v_cache._cache).fill_(7)
    assemble_again(twins)


@pytest.mark.parametrize("where", ["_moves", "_correction"])
def test_an_assemble_that_is_interrupted_is_made_up_for(where, monkeypatch):
    twins = resident_twins()
    twins.infer(Scope.ROOT, [(env, None, 2) for env in range(ENVS)])
    assemble_again(twins)

    def interrupt(*_):
        raise KeyboardInterrupt

    twins.look_up(range(ENVS), [2] * ENVS, Scope.ROOT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(twins.backend._batch, where, interrupt)
        twins.backend.assemble()
    twins.look_up(range(ENVS), [2] * ENVS, Scope.ROOT)
    twins.assemble()


def test_an_update_of_nothing_hides_no_other_write():
    twins = resident_twins()
    assemble_again(twins)
    cache = twins.backend.keys_values_wm[0]._k_cache
    cache.update(torch.zeros(ENVS, 2, 0, 3))
    cache._cache.fill_(7)
    assemble_again(twins)


def test_appends_to_other_tensors_hide_no_write():
    twins = resident_twins()
    assemble_again(twins)
    cache = twins.backend.keys_values_wm[0]._k_cache
    own, cache._cache = cache._cache, cache._cache.clone()
    cache.update(torch.ones(ENVS, 2, 2, 3))  # counted: one write
    own.fill_(7)  # not noted: one write
    cache._cache = own
    assemble_again(twins)


def test_a_deep_copy_finds_out_who_writes_into_it():
    twins = resident_twins()
    twins.backend = copy.deepcopy(twins.backend)
    assemble_again(twins)
    twins.backend.keys_values_wm[0]._k_cache._cache.fill_(7)
    assemble_again(twins)


def append(cache, rows, values):
    for layer in cache.keys_values_wm:
        tokens = torch.stack([torch.full((rows, 2, 3), float(value)) for value in values], dim=2)
        layer.update(tokens, tokens)


def stored_values(cache, key):
    return cache.hierarchical_get(0, key)[0]._k_cache.get()[0, 0, :, 0].tolist()


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("size", [6, 7, 8])
def test_what_is_appended_beyond_the_context_is_not_lost(name, size):
    """Old tokens make room then: the batch is not what was found and something behind it any more."""
    wanted = []
    for each in ("new:private", name):
        cache = make_backend(each, CacheConfig(GEOMETRY))
        full = entry(1, size, tokens=GEOMETRY.context_length)
        full.block[:] = torch.arange(float(GEOMETRY.context_length))[:, None]
        cache.set_recur_cache(1, full)
        cache.lookup([0], [1], Scope.NODE)
        cache.assemble()
        append(cache, 1, [100])
        append(cache, 1, [101])
        cache.store([0], [2], Scope.NODE)
        wanted.append(stored_values(cache, 2))
    assert wanted[0] == wanted[1]


def test_a_resident_batch_that_overflows_unevenly_is_refused():
    cache = make_backend("new:paged-resident", CacheConfig(GEOMETRY))
    for key, size in ((1, 3), (2, 8)):
        cache.set_recur_cache(key, entry(key, size, tokens=GEOMETRY.context_length))
    cache.lookup([0, 0], [1, 2], Scope.NODE)
    cache.assemble()
    append(cache, 2, [1])
    with pytest.raises(ValueError, match="more was appended than a context of 8 tokens has room for"):
        cache.store([0, 0], [3, 4], Scope.NODE)


@pytest.mark.parametrize("name", ["new:private", *FUSED])
def test_a_batch_pruned_before_it_is_stored_is_stored_as_it_is(name):
    cache = make_backend(name, CacheConfig(GEOMETRY))
    cache.set_recur_cache(1, entry(1, 2, tokens=GEOMETRY.context_length))
    cache.lookup([0], [1], Scope.NODE)
    cache.assemble()
    cache.keys_values_wm.prune([True])
    append(cache, 1, [7, 7])
    cache.store([0], [2], Scope.NODE)
    assert stored_values(cache, 2)[2:] == [7, 7]


@pytest.mark.parametrize("name", FUSED)
def test_a_batch_that_lost_rows_is_not_stored(name):
    cache = make_backend(name, CacheConfig(GEOMETRY))
    cache.lookup([0, 1], [None, None], Scope.NODE)
    cache.assemble()
    cache.keys_values_wm.prune([True, False])
    with pytest.raises(ValueError, match="a batch of 2 rows was assembled, it has 1 now"):
        cache.store([0, 1], [1, 2], Scope.NODE)


@pytest.mark.parametrize("name", ["new:private", *FUSED])
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))], ids=["deep", "pickle"]
)
def test_copies_of_a_cache_go_on_as_the_original(name, copied):
    twins = Twins(make_backend(name, CacheConfig(GEOMETRY)), poisons=False)
    for key in range(5):
        twins.infer(Scope.ROOT, [(env, key or None, key + 1) for env in range(ENVS)])
        twins.look_up(range(ENVS), [key + 1] * ENVS, Scope.ROOT)
        twins.assemble()
        twins.backend = copied(twins.backend)
        assert twins.backend.keys_values_wm.size == twins.backend.keys_values_wm_size_list[0]
    twins.infer(Scope.ROOT, [(env, 5, 6) for env in range(ENVS)])


def test_an_append_to_an_older_batch_of_another_size_is_found_out():
    cache = make_backend("new:paged-resident", CacheConfig(GEOMETRY))
    cache.set_recur_cache(1, entry(1, 4, tokens=GEOMETRY.context_length))
    cache.lookup([0], [1], Scope.NODE)
    cache.assemble()
    older = cache.keys_values_wm
    for _ in range(2):
        cache.lookup([0] * 4, [1] * 4, Scope.NODE)
        cache.assemble()
        wanted = cache.keys_values_wm.block[0, ..., :4, :].clone()
        assert all(torch.equal(row[..., :4, :], wanted) for row in cache.keys_values_wm.block)
        older.size = 1
        older[0].update(torch.full((1, 2, 1, 3), 9.0), torch.full((1, 2, 1, 3), 9.0))


@pytest.mark.parametrize("name", ["new:private", *FUSED])
def test_a_position_shift_of_another_shape_is_refused(name):
    cache = make_backend(name, CacheConfig(GEOMETRY))
    with pytest.raises(
        ValueError, match=r"a position shift of this geometry is .* = \[2, 2, 2, 5, 3\], got \[2, 2, 2, 4, 3\]"
    ):
        cache.position_shift = torch.zeros(2, 2, 2, 4, 3)
    assert cache.position_shift is None


@pytest.mark.parametrize("name", ["new:private", *FUSED])
def test_keys_may_come_as_an_array(name):
    cache = make_backend(name, CacheConfig(GEOMETRY))
    cache.set_recur_cache(1, entry(1, 2, tokens=GEOMETRY.context_length))
    assert cache.lookup([0, 1], np.array([1, 2]), Scope.NODE) == [2, MISS]
    assert (cache.hierarchy_stats.hits, cache.hierarchy_stats.misses) == (1, 1)


@pytest.mark.parametrize("name", FUSED)
def test_a_priority_without_order_is_found_before_anything_changes(name):
    cache = make_backend(name, CacheConfig(GEOMETRY, eviction_strategy="priority"))
    for key in (1, 2):
        cache.set_recur_cache(key, entry(key, 2, tokens=GEOMETRY.context_length))
    cache.lookup([0, 1], [1, 2], Scope.NODE)
    cache.assemble()
    append(cache, 2, [5, 5])
    with pytest.raises(ValueError, match="NaN"):
        cache.store([0, 1], [1, 2], Scope.NODE, [1.0, float("nan")])
    assert [cache.get_recur_cache(key).size for key in (1, 2)] == [2, 2]


@pytest.mark.parametrize("name", ["new:slab", "new:paged", "new:paged-resident"])
def test_a_batch_of_a_size_that_was_there_before_is_in_the_same_memory(name):
    """However narrow its tokens are: whoever captured an address may go on with it."""
    cache = make_backend(name, CacheConfig(replace(GEOMETRY, embed_dim=2)))
    blocks = []
    for rows in (2, 1, 2):
        cache.lookup(list(range(rows)), [None] * rows, Scope.ROOT)
        blocks.append(cache.keys_values_wm.block)
    assert len({block.data_ptr() for block in blocks}) == 1


@pytest.mark.parametrize("name", ["new:slab", "new:paged", "new:paged-resident"])
def test_a_batch_is_not_stored_among_entries_of_another_shape(name):
    cache = make_backend(name, CacheConfig(GEOMETRY))
    cache.recur_pool.storage.memory.spec = None
    cache.lookup([0], [None], Scope.ROOT)
    cache.assemble()
    cache.recur_pool.set(1, entry(1, tokens=GEOMETRY.context_length + 1))
    with pytest.raises(ValueError, match="this pool holds entries of"):
        cache.store([0], [5], Scope.ROOT)
    assert 5 not in cache.init_pools[0]


@pytest.mark.parametrize("name", ["new:slab", "new:paged"])
def test_corrections_are_part_of_the_batchs_bytes(name):
    cache = make_backend(name, CacheConfig(GEOMETRY))
    before = cache.bytes_reserved["batch"]
    cache.position_shift = torch.ones(2, 2, 2, GEOMETRY.slid_size, 3)
    assert cache.bytes_reserved["batch"] == before + (1 + GEOMETRY.slid_size) * 2 * 2 * 2 * 3 * 4


@pytest.mark.parametrize("positions", ["rotary", "absolute"])
def test_one_row_that_changes_among_others_that_stay_is_moved_alone_and_right(positions):
    """Contexts have slid: where positions are absolute, the moved tokens are corrected too."""
    caches = [make_backend(name, CacheConfig(replace(GEOMETRY, positions=positions))) for name in FUSED[1:]]
    shift = torch.randn(2, 2, 2, GEOMETRY.slid_size, 3)
    steps = [[(env, key or None, key + 1) for env in range(3)] for key in range(5)]
    steps += [[(0, parent, 9), (1, 5, 9), (2, 5, 9)] for parent in (5, 4, 5, 3, 5)]
    for number, rows in enumerate(steps):
        envs, parents, keys = map(list, zip(*rows, strict=True))
        found = []
        for cache in caches:
            if positions == "absolute" and not number:
                cache.position_shift = shift
            sizes = cache.lookup(envs, parents, Scope.ROOT)
            cache.assemble()
            starts = [cache.row_start(row) for row in range(3)]
            block = cache.keys_values_wm.block
            found.append([block[row].narrow(3, starts[row], sizes[row]).clone() for row in range(3)])
            if number < 5:
                for layer in cache.keys_values_wm:
                    tokens = torch.arange(36.0).view(3, 2, 2, 3) + 100 * number
                    layer.update(tokens, -tokens)
                cache.store(envs, keys, Scope.ROOT)
        assert all(same_bits(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("sizes", [(4, 2), (6, 5)], ids=["grown", "slid"])
def test_rows_of_unequal_lengths_whose_parents_are_gone_are_stored_whole(name, sizes):
    """Nothing is shared with the parents: a resident batch holds the longer row's padding within the shorter one."""
    cache = make_backend(name, CacheConfig(GEOMETRY))
    for key, size in zip((1, 2), sizes, strict=True):
        cache.set_recur_cache(key, entry(key, size, tokens=GEOMETRY.context_length))
    before = [live(cache.get_recur_cache(key))[0].clone() for key in (1, 2)]
    cache.lookup([0, 0], [1, 2], Scope.NODE)
    cache.assemble()
    append(cache, 2, [7, 8])
    cache.clear_recur_cache()
    cache.store([0, 0], [3, 4], Scope.NODE)
    for key, tokens in zip((3, 4), before, strict=True):
        appended = torch.tensor([7.0, 8.0])[:, None].expand(2, 2, 2, 2, 3)
        first, count = GEOMETRY.window(tokens.shape[3] + 2)
        wanted = torch.cat([tokens, appended], dim=3).narrow(3, first, count)
        assert same_bits(live(cache.get_recur_cache(key))[0], wanted)


@pytest.mark.parametrize("name", ["new:private", "new:slab", "new:paged"])
def test_an_empty_caches_memory_is_its_batch(name):
    reserved = make_backend(name, CacheConfig(GEOMETRY)).bytes_reserved
    assert sum(reserved.values()) == reserved["batch"] == ENVS * GEOMETRY.entry_bytes()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"recur_pool_size": 2}) for name in ("new:private", *FUSED)),
        *((name, {"recur_pool_bytes": GEOMETRY.entry_bytes()}) for name in FUSED[1:]),  # room for two of four tokens
    ],
)
def test_the_priorities_of_a_batchs_rows_decide_which_entries_stay(name, options):
    cache = make_backend(name, CacheConfig(GEOMETRY, eviction_strategy="priority", **options))
    for keys, priorities in (([1, 2], [5.0, 1.0]), ([3], [3.0]), ([4], [4.0])):
        cache.lookup([0] * len(keys), [None] * len(keys), Scope.NODE)
        cache.assemble()
        append(cache, len(keys), [1, 2, 3, 4])
        cache.store([0] * len(keys), keys, Scope.NODE, priorities)
    assert set(cache.recur_pool) == {1, 4}


@pytest.mark.parametrize("name", ["legacy", "new:private", *FUSED])
def test_a_renewed_batch_is_in_other_memory_of_the_same_size(name):
    cache = make_backend(name, CacheConfig(GEOMETRY))
    cache.recur_pool.set(1, entry(1, 4, tokens=GEOMETRY.context_length))

    def look():
        cache.lookup([0] * ENVS, [1] * ENVS, Scope.NODE)
        cache.assemble()
        return [each for layer in cache.keys_values_wm for each in layer.get()]

    before, held = look(), cache.bytes_reserved["batch"]
    wanted = [each.clone() for each in before]
    cache.renew_batch()
    after = look()
    for each in before:
        each.fill_(9)
    assert all(torch.equal(each, other) for each, other in zip(after, wanted, strict=True))
    assert all(torch.equal(each, other) for each, other in zip(look(), wanted, strict=True))
    assert cache.bytes_reserved["batch"] == held
