"""Changes that are refused, and changes that are interrupted at any line: nothing wrong is ever returned."""

import random
import sys
from pathlib import Path

import pytest
import torch

import kvcache
from kvcache import EMPTY, MISS, CacheConfig, Geometry, KeysValues, Scope, make_backend

GEOMETRY = Geometry("small", 2, 2, 6, context_length=6, env_num=2, num_simulations=3, positions="absolute")
BACKENDS = ["new:private", "new:slab", "new:paged", "new:paged-resident", "new:paged-exact"]
NODE, ROOT = Scope.NODE, Scope.ROOT
CORE = str(Path(kvcache.__file__).parent)


def cache_of(backend, **options):
    cache = make_backend(backend, CacheConfig(GEOMETRY, **options))
    shape = GEOMETRY.num_layers, 2, GEOMETRY.num_heads, GEOMETRY.context_length - 3, GEOMETRY.head_dim
    cache.position_shift = torch.ones(shape)
    return cache


def token(key, position):
    """A token's keys and values ``[2, H, D]``: whole numbers, so that a slide's correction of 1 is exact."""
    return torch.full((2, GEOMETRY.num_heads, GEOMETRY.head_dim), float(1000 * key + 10 * position))


class History:
    """A cache, and what each key must be found with: its tokens, or nothing."""

    def __init__(self, cache):
        self.cache = cache
        self.contents = {NODE: {}, ROOT: {}}

    def candidates(self, env, key, scope):
        """What may be found under a key: its own entry, or the recurrent one where its own was evicted."""
        places = [(ROOT, (env, key)), *([(NODE, (0, key))] if scope is NODE else [])]
        return [self.contents[pool][place] for pool, place in places if place in self.contents[pool]]

    def infer(self, rows, scope):
        """``rows``: environment, parent's key or None, new key. Checks what is found."""
        cache = self.cache
        envs, parents, keys = zip(*rows, strict=True)
        sizes = cache.lookup(envs, parents, scope)
        contexts = []
        for row, (env, parent, size) in enumerate(zip(envs, parents, sizes, strict=True)):
            candidates = [[]] if parent is None else self.candidates(env, parent, scope)
            if size == MISS:
                candidates = [[token(999, 0)]]
                cache.supply(row, self.supplied(candidates[0]))
            elif size != EMPTY:
                assert candidates, f"key {parent} is found and was never stored"
            contexts.append(candidates)
        contexts = self.found(cache.assemble(), contexts)
        for layer in cache.keys_values_wm:
            new = torch.stack([torch.stack([token(key, place) for place in (0, 1)], dim=2) for key in keys], dim=1)
            layer.update(new[0], new[1])
        cache.store(envs, keys, scope)  # where this is interrupted, only what was there before may be found
        for env, key, context in zip(envs, keys, contexts, strict=True):
            first, count = GEOMETRY.window(len(context) + 2)
            tokens = [*context, token(key, 0), token(key, 1)][first : first + count]
            self.contents[scope][env if scope is ROOT else 0, key] = [each + 1 for each in tokens] if first else tokens

    def supplied(self, context):
        kv = KeysValues(1, GEOMETRY.num_heads, GEOMETRY.context_length, GEOMETRY.embed_dim, GEOMETRY.num_layers)
        for layer in kv:
            new = torch.stack(context, dim=2)
            layer.update(new[:1], new[1:])
        return kv

    def found(self, sizes, candidates):
        """The context of each row: one of its candidates, in every layer."""
        assert self.cache.keys_values_wm.size == max(sizes)
        found = []
        for row, (size, contexts) in enumerate(zip(sizes, candidates, strict=True)):
            start = self.cache.row_start(row)
            layers = [torch.stack([each[row, :, start : start + size] for each in layer.get()])
                      for layer in self.cache.keys_values_wm]  # fmt: skip
            alike = [each for each in contexts if self.is_in(each, layers)]
            assert alike, f"wrong content in row {row}"
            found.append(alike[0])
        return found

    @staticmethod
    def is_in(context, layers):
        if not context:
            return all(layer.shape[2] == 0 for layer in layers)
        tokens = torch.stack(context, dim=2)
        return all(torch.equal(layer, tokens) for layer in layers)


def rows_of(choose):
    """Rows of an inference: different keys, so that a batch has no two rows for one."""
    keys = choose.sample(range(1, 8), 2)
    return [(env, choose.choice([None, *range(1, 8)]), key) for env, key in enumerate(keys)]


class Interrupt(KeyboardInterrupt):
    """Raised in the middle of a line's turn."""


class RaiseAtLine:
    """Raises at the n-th line of the core that runs while it traces; counts them all."""

    def __init__(self, at):
        self.at, self.lines, self.raised = at, 0, False

    def __call__(self, frame, event, argument):
        if event == "call":
            return self if frame.f_code.co_filename.startswith(CORE) else None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                self.raised = True
                raise Interrupt
        return self


def interrupted(history, call, at):
    """Make the call, with an interrupt at its ``at``-th line; whether there was one."""
    tracer, before = RaiseAtLine(at), sys.gettrace()
    sys.settrace(tracer)
    try:
        call()
    except Interrupt:
        pass
    finally:
        sys.settrace(before)
    return tracer.raised


def anything(history, choose):
    """A random call of the cache."""
    cache = history.cache
    what = choose.choices(["infer", "clear", "shift", "set"], [12, 1, 1, 2])[0]
    if what == "infer":
        scope = choose.choice([NODE, NODE, ROOT])
        return lambda: history.infer(rows_of(choose), scope)
    if what == "clear":
        name = choose.choice(["clear_recur_cache", "clear_init_caches", "clear_all"])

        def clear():
            # From the first line on a key may be gone; a key that is found must still be right.
            getattr(cache, name)()
            for scope, cleared in ((NODE, "clear_init_caches"), (ROOT, "clear_recur_cache")):
                if name != cleared:
                    history.contents[scope].clear()

        return clear
    if what == "shift":
        shift = torch.ones_like(cache.position_shift)  # the same again: nothing may change
        return lambda: setattr(cache, "position_shift", shift)
    env, key = choose.randrange(2), choose.randrange(1, 8)

    def store_one():
        getattr(cache, "_backend", cache).set_init_cache(env, key, history.supplied([token(key, 0), token(key, 1)]))
        history.contents[ROOT][env, key] = [token(key, 0), token(key, 1)]

    return store_one


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
