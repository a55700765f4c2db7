"""Random histories of a cache with known contents, and interrupts at any line of them."""

import random
import sys
import threading
from pathlib import Path

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
        # What a store that was cut off would have put there: it may have ended just before, wholly.
        self.possible = {NODE: {}, ROOT: {}}

    def candidates(self, env, key, scope):
        """What may be found under a key: its own entry, or the recurrent one where its own was evicted."""
        places = [(ROOT, (env, key)), *([(NODE, (0, key))] if scope is NODE else [])]
        return [each[pool][place] for pool, place in places for each in (self.contents, self.possible)
                if place in each[pool]]  # fmt: skip

    def store(self, call, new):
        """Make a call that stores ``new``: contents by scope and place."""
        for (scope, place), tokens in new.items():
            self.possible[scope][place] = tokens
        call()
        for (scope, place), tokens in new.items():
            self.contents[scope][place] = tokens
            del self.possible[scope][place]

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
        self.append(keys)
        self.store(
            lambda: cache.store(envs, keys, scope),
            {
                (scope, (env if scope is ROOT else 0, key)): self.grown(context, key)
                for env, key, context in zip(envs, keys, contexts, strict=True)
            },
        )

    def append(self, keys):
        """As the model does: two tokens for each row."""
        for layer in self.cache.keys_values_wm:
            new = torch.stack([torch.stack([token(key, place) for place in (0, 1)], dim=2) for key in keys], dim=1)
            layer.update(new[0], new[1])

    @staticmethod
    def grown(context, key):
        """What is stored of a context and the two tokens of ``key``."""
        first, count = GEOMETRY.window(len(context) + 2)
        tokens = [*context, token(key, 0), token(key, 1)][first : first + count]
        return [each + 1 for each in tokens] if first else tokens

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


class NoMemoryError(MemoryError):
    """Likewise."""


class RaiseAtLine:
    """Raises at the n-th line of the core that runs while it traces; counts them all."""

    def __init__(self, at, error=Interrupt):
        self.at, self.error, self.lines, self.raised = at, error, 0, False

    def __call__(self, frame, event, argument):
        if event == "call":
            return self if frame.f_code.co_filename.startswith(CORE) else None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                self.raised = True
                raise self.error
        return self


def interrupted(history, call, at, error=Interrupt):
    """Make the call, with an error at its ``at``-th line; whether there was one."""
    return traced(call, RaiseAtLine(at, error)).raised


def lines_of(call):
    """Make the call; how many lines of the core it runs."""
    return traced(call, RaiseAtLine(-1)).lines


def traced(call, tracer):
    """Make the call under a tracer, which is returned."""
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        call()
    except (Interrupt, NoMemoryError):
        pass
    finally:
        sys.settrace(before)
    return tracer


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
                    history.possible[scope].clear()

        return clear
    if what == "shift":
        shift = torch.ones_like(cache.position_shift)  # the same again: nothing may change
        return lambda: setattr(cache, "position_shift", shift)
    env, key = choose.randrange(2), choose.randrange(1, 8)

    def store_one():
        tokens = [token(key, 0), token(key, 1)]
        manager, kv = getattr(cache, "_backend", cache), history.supplied(tokens)
        history.store(lambda: manager.set_init_cache(env, key, kv), {(ROOT, (env, key)): tokens})

    return store_one


def compete(cache, steps, threads=3, each=None):
    """Random histories of so many threads on one cache; each has keys of its own, and checks all that it finds."""
    errors = []
    alive = threading.Barrier(threads)  # a thread that has ended may leave its number to the next

    def run(number):
        try:
            alive.wait()
            choose, history = random.Random(number), History(cache)
            for _ in range(steps):
                rows = [(env, parent and parent + 100 * number, key + 100 * number)
                        for env, parent, key in rows_of(choose)]  # fmt: skip
                (each or infer)(history, rows, choose.choice([NODE, ROOT]))
        except BaseException as error:
            errors.append(error)
        alive.wait()

    def infer(history, rows, scope):
        with history.cache.exclusive():
            history.infer(rows, scope)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(1, threads + 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(500)
        assert not worker.is_alive(), "a thread waits for ever"
    return errors
