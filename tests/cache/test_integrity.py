"""Changes that are refused, and changes that are interrupted at any line: nothing wrong is ever returned."""

import copy
import pickle
import random
import threading

import pytest
import torch
from histories import BACKENDS, GEOMETRY, NODE, ROOT, History, anything, cache_of, interrupted, rows_of, token

import kvcache
from kvcache import MISS, CacheConfig, Geometry, KeysValues, make_backend
from kvcache.checks import check_context
from kvcache.integrity import Integrity
from kvcache.threads import ThreadError


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("slots", [2, 5])
def test_interrupts_at_any_line(backend, slots):
    """Each history is interrupted at a random line; then it goes on, and everything that is found is right."""
    found = 0
    for seed in range(60):
        choose = random.Random(seed)
        history = History(cache_of(backend, recur_pool_size=slots, init_pool_size=3))
        for _ in range(choose.randrange(1, 6)):
            anything(history, choose)()
        found += interrupted(history, anything(history, choose), choose.randrange(1, 500))
        for _ in range(6):
            anything(history, choose)()
    assert found > 20


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_interrupts_at_every_line_of_an_inference(backend):
    at = 1
    while True:
        choose = random.Random(at)
        history = History(cache_of(backend, recur_pool_size=3, init_pool_size=2))
        for _ in range(4):
            anything(history, choose)()
        rows = rows_of(choose)
        if not interrupted(history, lambda history=history, rows=rows: history.infer(rows, NODE), at):
            break
        for _ in range(4):
            anything(history, choose)()
        at += 1
    assert at > 100


BAD_STORES = {
    "too few keys": (ValueError, ([0, 1], [11], NODE)),
    "too many keys": (ValueError, ([0, 1], [11, 12, 13], NODE)),
    "too few environments": (ValueError, ([0], [11, 12], NODE)),
    "a key without a hash": (TypeError, ([0, 1], [11, []], NODE)),
    "a priority that is not a number": (ValueError, ([0, 1], [11, 12], NODE, [1.0, float("nan")])),
    "a priority that is text": (TypeError, ([0, 1], [11, 12], NODE, [1.0, "high"])),
    "too few priorities": (ValueError, ([0, 1], [11, 12], NODE, [1.0])),
    "an unknown environment": (ValueError, ([0, 7], [11, 12], ROOT)),
    "a scope by its value": (TypeError, ([0, 1], [11, 12], "node")),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BAD_STORES)
def test_a_refused_store_publishes_nothing_and_loses_nothing(backend, name, caplog):
    error, arguments = BAD_STORES[name]
    history = History(cache_of(backend, eviction_strategy="priority"))
    history.infer([(0, None, 1), (1, None, 2)], NODE)
    cache = history.cache
    cache.lookup([0, 1], [1, 2], NODE)
    cache.assemble()
    with pytest.raises(error):
        cache.store(*arguments)
    assert cache.lookup([0, 1], [11, 12], NODE) == [MISS, MISS]
    history.infer([(0, 1, 3), (1, 2, 4)], NODE)
    history.infer([(0, 3, 5), (1, 4, 6)], NODE)
    assert "interrupted" not in caplog.text


@pytest.mark.parametrize("backend", [*BACKENDS, "legacy"])
class TestOrder:
    def test_a_row_that_is_not_there(self, backend):
        cache = cache_of(backend)
        cache.lookup([0, 1], [1, 2], NODE)
        for row in (-1, 2, True, "0"):
            with pytest.raises(IndexError, match=r"rows 0\.\.1"):
                cache.supply(row, History(cache).supplied([token(1, 0)]))

    def test_no_rows(self, backend):
        cache = cache_of(backend)
        cache.lookup([], [], NODE)
        with pytest.raises(RuntimeError, match="one row or more"):
            cache.assemble()

    def test_a_missing_row_without_a_context(self, backend):
        cache = cache_of(backend)
        cache.lookup([0], [1], NODE)
        with pytest.raises(RuntimeError, match="row 0 missed"):
            cache.assemble()

    def test_a_scope_by_its_value(self, backend):
        with pytest.raises(TypeError, match=r"Scope\.ROOT or Scope\.NODE, got 'root'"):
            cache_of(backend).lookup([0], [1], "root")

    def test_layers_of_unlike_sizes(self, backend):
        cache = cache_of(backend)
        cache.lookup([0], [1], NODE)
        kv = History(cache).supplied([token(1, 0)])
        kv[1]._k_cache._size = 0
        with pytest.raises(ValueError, match="differ in size"):
            cache.supply(0, kv)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_appends_to_some_layers_only(backend):
    cache = cache_of(backend)
    cache.lookup([0], [None], NODE)
    cache.assemble()
    new = torch.zeros(1, GEOMETRY.num_heads, 2, GEOMETRY.head_dim)
    cache.keys_values_wm[0].update(new, new)
    with pytest.raises(ValueError, match="layers of the batch differ in size"):
        cache.store([0], [1], NODE)
    assert cache.lookup([0], [1], NODE) == [MISS]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_context_that_is_too_long(backend):
    cache = cache_of(backend)
    cache.lookup([0], [1], NODE)
    kv = KeysValues(1, GEOMETRY.num_heads, 20, GEOMETRY.embed_dim, GEOMETRY.num_layers)
    for layer in kv:
        layer.update(torch.zeros(1, GEOMETRY.num_heads, 9, 3), torch.zeros(1, GEOMETRY.num_heads, 9, 3))
    with pytest.raises(ValueError, match="9 tokens does not fit one of 6"):
        cache.supply(0, kv)


def test_a_context_may_fill_its_row():
    row = 2, 2, 2, 8, 3
    check_context((2, 2, 2, 20, 3), 8, row)
    with pytest.raises(ValueError, match="a context of 9 tokens does not fit one of 8"):
        check_context((2, 2, 2, 20, 3), 9, row)


def test_bytes_need_shapes():
    with pytest.raises(ValueError, match="the sizes of an entry are not known: set num_layers"):
        kvcache.KVCacheManager({"recur_pool_bytes": 200_000}, 2)


def test_numpy_integers_are_integers():
    import numpy as np

    geometry = Geometry("numpy", np.int64(2), np.int32(2), np.int64(6), context_length=np.int64(8))
    config = CacheConfig(geometry, recur_pool_size=np.int64(4))
    assert make_backend("new", config).recur_pool.pool_size == 4
    assert kvcache.KVCachePool(np.int64(2)).pool_size == 2
    for value in (True, 2.0, "2"):
        with pytest.raises(ValueError, match="positive integer"):
            kvcache.KVCachePool(value)


class Member:
    """Counts its resets."""

    def __init__(self):
        self.resets = 0

    def reset(self):
        self.resets += 1


def integrity_of(members):
    integrity = Integrity()
    integrity.members += [Member() for _ in range(members)]
    assert integrity.changing is False
    integrity.take()
    return integrity


each_call = pytest.mark.parametrize("call", ["take", "check", "begin"])


@each_call
def test_only_a_change_that_did_not_end_empties_the_members(call, caplog):
    integrity = integrity_of(2)
    integrity.begin()
    integrity.end()
    assert integrity.changing is False
    getattr(integrity, call)()
    assert [member.resets for member in integrity.members] == [0, 0]
    integrity.end()
    integrity.begin()
    getattr(integrity, call)()
    assert [member.resets for member in integrity.members] == [1, 1]
    assert integrity.changing is (call == "begin")
    assert "a change of the cache was interrupted" in caplog.text


@each_call
@pytest.mark.parametrize("changing", [False, True])
def test_another_thread_is_refused_and_empties_nothing(call, changing):
    integrity = integrity_of(1)
    integrity.changing = changing
    raised = []

    def use():
        with pytest.raises(ThreadError) as caught:
            getattr(integrity, call)()
        raised.append(caught.value)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(raised) == 1
    assert (integrity.members[0].resets, integrity.changing) == (0, changing)


def by_pickle(given):
    return pickle.loads(pickle.dumps(given))


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle])
def test_a_copy_in_the_middle_of_a_change_is_repaired_too(copied):
    integrity = integrity_of(2)
    integrity.begin()
    other = copied(integrity)
    assert (type(other), other.changing, other.ident) == (Integrity, True, None)
    other.take()
    assert [member.resets for member in other.members] == [1, 1]
    assert [member.resets for member in integrity.members] == [0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_pools_of_a_cache_are_emptied_together(backend):
    history = History(cache_of(backend))
    history.infer([(0, None, 1), (1, None, 2)], ROOT)
    history.infer([(0, None, 3)], NODE)
    history.cache.thread.begin()  # and never ends
    assert history.cache.lookup([0, 1, 0], [1, 2, 3], NODE) == [MISS] * 3
    assert not any(len(pool) for pool in (*history.cache.init_pools, history.cache.recur_pool))
