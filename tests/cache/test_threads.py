"""Threads: a cache of one refuses a second, a thread-safe one serves all, and processes have a cache each."""

import copy
import multiprocessing
import pickle
import random
import threading

import pytest
import torch
from histories import GEOMETRY, NODE, ROOT, History, cache_of, compete, rows_of, token

from kvcache import (
    BACKENDS,
    MISS,
    CacheConfig,
    KVCacheManager,
    KVCachePool,
    ObservedCache,
    OrderError,
    Scope,
    ShadowCache,
    ThreadError,
    make_backend,
)
from kvcache import threads as module
from kvcache.world_model import WorldModel, WorldModelConfig

NAMES = [name for name in BACKENDS if name != "new:reference"]


def in_thread(call, name="worker"):
    """Make the call in a thread of its own; returns its result, or raises its error."""
    outcome = {}

    def run():
        try:
            outcome["result"] = call()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "the call waits for ever"
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def observed(config):
    return ObservedCache(make_backend("new", config), lambda operation, call, *args: call(*args))


def shadowed(config):
    return ShadowCache(make_backend("new", config), make_backend("legacy", config))


MADE = {name: lambda config, name=name: make_backend(name, config) for name in NAMES}
MADE |= {"observed": observed, "shadow": shadowed}
EXACT = [name for name in MADE if not name.startswith("legacy") and name != "shadow"]  # without stale hits


def made(name, **options):
    cache = MADE[name](CacheConfig(GEOMETRY, **options))
    shape = GEOMETRY.num_layers, 2, GEOMETRY.num_heads, GEOMETRY.context_length - 3, GEOMETRY.head_dim
    cache.position_shift = torch.ones(shape)
    return cache


def context(cache):
    return History(cache).supplied([token(1, 0)])


# Each call, and what has to be called before it by the thread that the cache belongs to.
CALLS = {
    "lookup": lambda cache: cache.lookup([0], [5], NODE),
    "supply": lambda cache: cache.supply(0, context(cache)),
    "assemble": lambda cache: cache.assemble(),
    "store": lambda cache: cache.store([0], [1], NODE),
    "clear_recur_cache": lambda cache: cache.clear_recur_cache(),
    "clear_init_caches": lambda cache: cache.clear_init_caches([0]),
    "clear_all": lambda cache: cache.clear_all(),
    "exclusive": lambda cache: cache.exclusive(),
    "release_thread": lambda cache: cache.release_thread(),
    "pool.clear": lambda cache: cache.recur_pool.clear(),
    "pool.get": lambda cache: cache.recur_pool.get(1),
    "pool.set": lambda cache: cache.init_pools[0].set(1, context(cache)),
}
MANAGER_CALLS = {
    "position_shift": lambda cache: setattr(cache, "position_shift", None),
    "keys_values_wm_list": lambda cache: cache.keys_values_wm_list,
    "get_init_cache": lambda cache: cache.get_init_cache(0, 1),
    "set_init_cache": lambda cache: cache.set_init_cache(0, 1, context(cache)),
    "get_recur_cache": lambda cache: cache.get_recur_cache(1),
    "set_recur_cache": lambda cache: cache.set_recur_cache(1, context(cache)),
    "get_wm_cache": lambda cache: cache.get_wm_cache(1),
    "set_wm_cache": lambda cache: cache.set_wm_cache(1, context(cache)),
    "hierarchical_get": lambda cache: cache.hierarchical_get(0, 1),
    "pool.set_priority": lambda cache: cache.recur_pool.set_priority(1, 1.0),
    "len": lambda cache: len(cache.recur_pool),
    "in": lambda cache: 1 in cache.recur_pool,
    "iter": lambda cache: list(cache.recur_pool),
    "bytes_reserved": lambda cache: cache.bytes_reserved,
}


class TestOneThread:
    @pytest.mark.parametrize("made_name", MADE)
    def test_a_second_thread_is_refused_and_changes_nothing(self, made_name):
        cache = made(made_name)
        cache.lookup([0], [1], NODE) if made_name != "legacy-0.2.0" else cache.lookup([0], [1], ROOT)
        cache.supply(0, context(cache))
        # A shadow's pools have neither get nor set.
        calls = [call for name, call in CALLS.items() if made_name != "shadow" or name not in ("pool.get", "pool.set")]
        for call in calls:
            with pytest.raises(ThreadError, match=r"belongs to thread 'MainThread'.*thread 'worker'.*thread_safe=True"):
                in_thread(lambda call=call: call(cache))
        assert cache.assemble() == [1]
        for call in calls:
            with pytest.raises(ThreadError):
                in_thread(lambda call=call: call(cache))
        cache.store([0], [2], NODE)
        assert cache.lookup([0], [2], NODE) == [1]

    @pytest.mark.parametrize("name", MANAGER_CALLS)
    def test_calls_of_a_manager(self, name):
        cache = KVCacheManager(CacheConfig(GEOMETRY, eviction_strategy="priority"))
        cache.set_recur_cache(1, context(cache))
        with pytest.raises(ThreadError):
            in_thread(lambda: MANAGER_CALLS[name](cache))
        MANAGER_CALLS[name](cache)

    def test_a_pool_of_its_own(self):
        pool = KVCachePool(2, storage="reference")
        pool.set(1, "value")
        for call in (lambda: pool.get(1), lambda: pool.set(2, "other"), pool.clear):
            with pytest.raises(ThreadError):
                in_thread(call)
        assert pool.get(1) == "value"

    @pytest.mark.parametrize("name", MADE)
    def test_built_here_and_used_in_one_worker_only(self, name):
        cache = made(name)
        cache.clear_all()
        in_thread(lambda: History(cache).infer([(0, None, 1), (1, None, 2)], ROOT))
        with pytest.raises(ThreadError, match=r"'worker' \(ended\).*'MainThread'"):
            cache.lookup([0], [1], NODE)

    @pytest.mark.parametrize("name", MADE)
    def test_given_to_another_thread(self, name):
        cache = made(name)
        cache.lookup([0], [None], ROOT)
        cache.release_thread()
        in_thread(lambda: History(cache).infer([(0, None, 1), (1, None, 2)], ROOT))
        cache.release_thread()  # a thread that has ended cannot give it
        assert cache.lookup([0], [1], ROOT) == [2]

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
    @pytest.mark.parametrize("safe", [False, True])
    @pytest.mark.parametrize("name", [name for name in MADE if name != "observed"])
    def test_a_copy_belongs_to_no_thread(self, name, copied, safe):
        cache = made(name, thread_safe=safe)
        History(cache).infer([(0, None, 1), (1, None, 2)], ROOT)
        other = copied(cache)
        in_thread(lambda: History(other).infer([(0, None, 3), (1, None, 4)], ROOT))
        assert other.recur_pool is not cache.recur_pool
        assert cache.lookup([0, 1], [1, 3], ROOT) == [2, MISS]

    @pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
    @pytest.mark.parametrize("part", [lambda cache: cache, lambda cache: cache.recur_pool])
    @pytest.mark.parametrize("name", [name for name in MADE if name not in ("observed", "shadow")])
    def test_another_thread_makes_no_copy_while_the_owner_lives(self, name, part, copied):
        cache = made(name)
        cache.lookup([0], [None], ROOT)
        with pytest.raises(ThreadError, match=r"'MainThread'.*'worker' copies or pickles it.*release_thread"):
            in_thread(lambda: copied(part(cache)))
        cache.release_thread()
        in_thread(lambda: copied(part(cache)))

    def test_a_row_is_read_by_the_owner(self):
        cache = made("new")
        cache.lookup([0], [None], ROOT)
        cache.assemble()
        with pytest.raises(ThreadError):
            in_thread(lambda: cache.row_context(0))

    def test_a_world_model_built_here_and_used_in_a_worker(self):
        config = WorldModelConfig(GEOMETRY, use_new_cache_manager=True)
        model = WorldModel(config)
        model.clear_caches()
        in_thread(lambda: model.forward_initial_inference(torch.zeros(2, 4)))
        with pytest.raises(ThreadError):
            model.forward_initial_inference(torch.zeros(2, 4))


class TestThreadSafe:
    @pytest.mark.parametrize("name", MADE)
    def test_a_copy_while_others_store_is_of_one_moment(self, name):
        """In a copy made in the middle of a change, a key has another key's content."""
        cache, stop = made(name, thread_safe=True, recur_pool_size=6), threading.Event()

        def store():
            generator = random.Random(0)
            while not stop.is_set():
                keys = generator.sample(range(1, 40), 2)
                with cache.exclusive():
                    cache.lookup([0, 1], [None, None], NODE)
                    cache.assemble()
                    for layer in cache.keys_values_wm:
                        tokens = torch.stack([torch.full((2, 2, 3), float(key)) for key in keys])
                        layer.update(tokens, tokens)
                    cache.store([0, 1], keys, NODE)

        storing = threading.Thread(target=store)
        storing.start()
        try:
            copies = [copy.deepcopy(cache) for _ in range(20)]
        finally:
            stop.set()
            storing.join()
        for each in [getattr(copied, "primary", copied) for copied in copies]:
            for key in range(1, 40):
                if not each.is_stale(0, key, NODE) and each.lookup([0], [key], ROOT) == [MISS]:
                    found = each.recur_pool.get(key)
                    assert found is None or bool((found.block[..., :2, :] == key).all())

    @pytest.mark.parametrize("name", [name for name in MADE if name != "observed"])
    def test_pickling_what_several_threads_use_needs_the_turn(self, name):
        cache = made(name, thread_safe=True)
        cache.clear_all()
        pickle.dumps(cache)  # nobody else has used it
        in_thread(cache.clear_all)
        with pytest.raises(ThreadError, match=r"'MainThread' pickles it.*exclusive"):
            pickle.dumps(cache)
        with cache.exclusive():
            assert pickle.loads(pickle.dumps(cache)).lookup([0], [None], ROOT) == [0]

    @pytest.mark.parametrize("name", EXACT)
    def test_three_threads(self, name):
        assert compete(made(name, thread_safe=True, recur_pool_size=9, init_pool_size=7), 15) == []

    def test_three_threads_on_a_cache_of_one(self):
        errors = compete(made("new"), 15)
        assert len(errors) >= 2
        assert {type(error) for error in errors} == {ThreadError}

    @pytest.mark.parametrize("name", EXACT)
    def test_batches_without_exclusive_are_right_or_refused(self, name):
        """Whatever was interleaved: an inference is refused by name, or all that it finds is right."""
        refused = []

        def infer(history, rows, scope):
            try:
                history.infer(rows, scope)
            except (ThreadError, OrderError) as error:
                refused.append(error)

        cache = made(name, thread_safe=True, recur_pool_size=9, init_pool_size=7)
        assert compete(cache, 15, each=infer) == []

    @pytest.mark.parametrize("name", [name for name in MADE if name != "legacy-0.2.0"])
    def test_a_batch_that_another_thread_took_over(self, name):
        cache = made(name, thread_safe=True)
        cache.lookup([0, 1], [None, None], NODE)
        cache.assemble()
        model_writes = cache.keys_values_wm
        in_thread(lambda: cache.lookup([0, 1], [None, None], ROOT))
        in_thread(cache.clear_recur_cache)
        for call in (
            cache.assemble, lambda: cache.store([0, 1], [1, 2], NODE), lambda: cache.supply(0, context(cache)),
            lambda: cache.row_context(0), lambda: cache.keys_values_wm,
        ):  # fmt: skip
            with pytest.raises(ThreadError, match=r"'worker' \(ended\) has begun a batch.*exclusive"):
                call()
        cache.lookup([0, 1], [None, None], NODE)
        cache.assemble()
        assert cache.keys_values_wm is not model_writes  # the other thread's model may still write there

    def test_exclusive_waits(self):
        cache = made("new", thread_safe=True)
        inside, over = threading.Event(), []

        def hold():
            history = History(cache)
            with cache.exclusive():
                inside.set()
                history.infer([(0, None, 1), (1, None, 2)], NODE)
                with cache.exclusive():
                    history.infer([(0, 1, 3), (1, 2, 4)], NODE)
                over.append(True)

        worker = threading.Thread(target=hold)
        worker.start()
        inside.wait(60)
        assert cache.lookup([0], [3], NODE) == [4]
        assert over
        worker.join(60)

    def test_nothing_waits_for_ever(self, monkeypatch):
        monkeypatch.setattr(module, "LONGEST_WAIT", 0.05)
        cache = made("new", thread_safe=True)
        with cache.exclusive(), pytest.raises(ThreadError, match=r"'MainThread' has this cache.*'worker' waits"):
            in_thread(lambda: cache.lookup([0], [1], NODE))
        assert in_thread(lambda: cache.lookup([0], [1], NODE)) == [MISS]

    def test_the_ways_to_ask_for_it(self):
        for cache in (
            KVCacheManager(CacheConfig(GEOMETRY, thread_safe=True)),
            KVCacheManager(CacheConfig(GEOMETRY), thread_safe=True),
            KVCacheManager({"cache_thread_safe": True, "num_layers": 2}, 2),
            make_backend("legacy", CacheConfig(GEOMETRY, thread_safe=True)),
            WorldModel(WorldModelConfig(GEOMETRY, cache_thread_safe=True)).cache,
        ):
            cache.lookup([0], [None], NODE)
            assert in_thread(lambda cache=cache: cache.lookup([0], [1], Scope.ROOT)) == [MISS]
        assert isinstance(KVCacheManager({}, 2, thread_safe=True), KVCacheManager)
        assert type(KVCacheManager({}, 2, thread_safe=True)).__name__ == "KVCacheManager"

    def test_a_world_model_of_three_threads(self):
        """Each thread's inferences are those that it makes alone."""
        config = WorldModelConfig(GEOMETRY, use_new_cache_manager=True, cache_thread_safe=True, init_pool_size=64)
        model = WorldModel(config)
        observations = [torch.randn(2, 4) for _ in range(3)]

        def episode(model, number):
            found = model.forward_initial_inference(observations[number])
            last = found.latents
            return [found.values, *(model.forward_initial_inference(observations[number] + step, last, [1, 0]).values
                                    for step in range(1, 4))]  # fmt: skip

        alone = [episode(WorldModel(config), number) for number in range(3)]
        together = [None] * 3

        def run(number):
            together[number] = episode(model, number)

        workers = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        for ours, theirs in zip(together, alone, strict=True):
            assert all(map(lambda one, other: (one == other).all(), ours, theirs))

    def test_a_position_shift_in_the_middle_of_a_batch(self):
        """The assembled contexts are of other weights then: they are not stored."""
        cache = made("new", thread_safe=True)
        cache.lookup([0], [None], NODE)
        cache.assemble()
        in_thread(lambda: setattr(cache, "position_shift", torch.zeros_like(cache.position_shift)))
        with pytest.raises(OrderError):
            cache.store([0], [1], NODE)


def one_process(name, results):
    history, choose = History(made(name, recur_pool_size=50)), random.Random(0)
    for _ in range(20):
        history.infer(rows_of(choose), NODE)
    results.put(len(history.contents[NODE]))


CACHES_OF_PROCESSES = ["new", "new:paged-resident", "legacy"]


# A spawned process imports torch anew: one backend shows that it works, a forked one what each backend does.
@pytest.mark.parametrize(
    ("method", "name"),
    [
        *(("fork", name) for name in CACHES_OF_PROCESSES),
        ("spawn", "new"),
        *(pytest.param("spawn", name, marks=pytest.mark.full) for name in CACHES_OF_PROCESSES[1:]),
    ],
)
@pytest.mark.slow
def test_processes_with_a_cache_each(name, method):
    context = multiprocessing.get_context(method)
    results = context.Queue()
    workers = [context.Process(target=one_process, args=(name, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=100) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert found == [found[0]] * 2
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_a_forked_copy():
    """A child has a copy of its parent's cache, and the parent goes on with its own."""
    cache = cache_of("new")
    history = History(cache)
    history.infer([(0, None, 1), (1, None, 2)], NODE)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: History.infer(history, [(0, 1, 3), (1, 2, 4)], NODE))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    assert cache.lookup([0, 1], [3, 1], NODE) == [MISS, 2]
