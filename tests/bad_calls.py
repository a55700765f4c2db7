"""Calls of the library that are wrong, and what they raise. As a script, prints what each raises: also under ``-O``."""

import numpy as np
import torch

from kvcache import (
    Cache,
    CacheConfig,
    EvictionStrategy,
    Geometry,
    KeysValues,
    KVCachePool,
    LegacyCache,
    LegacyPool,
    OrderError,
    Scope,
    make_backend,
)
from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig

GEOMETRY = Geometry("small", 2, 2, 6, context_length=6, env_num=2, num_simulations=3)
ROOT, NODE = Scope.ROOT, Scope.NODE


def config(**options):
    return CacheConfig(GEOMETRY, **options)


def context(tokens=1, layers=2, embed=6, room=6, rows=1):
    kv = KeysValues(rows, 2, room, embed, layers)
    for layer in kv:
        layer.update(torch.ones(rows, 2, tokens, embed // 2), torch.ones(rows, 2, tokens, embed // 2))
    return kv


def looked_up(name, keys=(1, None)):
    cache = make_backend(name, config())
    cache.lookup([0, 1], keys, ROOT)
    return cache


def assembled(name):
    cache = looked_up(name, (None, None))
    cache.assemble()
    return cache


def manager(name):
    cache = make_backend(name, config())
    return getattr(cache, "_backend", cache)  # an exact one has its manager inside


# Of every backend, by a description: the error, words of its message, and the call.
OF_BACKENDS = {
    "lookup in a negative environment": (ValueError, "0..1", lambda n: looked_up(n).lookup([-1, 0], [1, 2], NODE)),
    "lookup in one that is not there": (ValueError, "0..1", lambda n: looked_up(n).lookup([0, 2], [None, 2], ROOT)),
    "lookup of fewer keys": (ValueError, "1 keys", lambda n: looked_up(n).lookup([0, 1], [1], NODE)),
    "lookup of more keys": (ValueError, "3 keys", lambda n: looked_up(n).lookup([0, 1], [1, 2, 3], NODE)),
    "lookup in a scope's value": (TypeError, "Scope.ROOT", lambda n: looked_up(n).lookup([0], [1], "root")),
    "lookup of a list": (TypeError, "unhashable", lambda n: looked_up(n).lookup([0], [[1]], ROOT)),
    "supply to a negative row": (IndexError, "0..1", lambda n: looked_up(n).supply(-1, context())),
    "supply to one that is not there": (IndexError, "0..1", lambda n: looked_up(n).supply(2, context())),
    "supply to True": (IndexError, "True", lambda n: looked_up(n).supply(True, context())),
    "supply of a tensor": (TypeError, "Tensor", lambda n: looked_up(n).supply(0, torch.zeros(3))),
    "supply of two rows": (ValueError, "one row", lambda n: looked_up(n).supply(0, context(rows=2))),
    "assemble before lookup": (OrderError, "lookup", lambda n: make_backend(n, config()).assemble()),
    "assemble without a supply": (OrderError, "row 0 missed", lambda n: looked_up(n).assemble()),
    "store of fewer keys": (ValueError, "1 keys", lambda n: assembled(n).store([0, 1], [1], NODE)),
    "store of fewer environments": (ValueError, "1 envs", lambda n: assembled(n).store([0], [1, 2], NODE)),
    "store in a negative environment": (ValueError, "0..1", lambda n: assembled(n).store([0, -1], [1, 2], NODE)),
    "store in a root's": (ValueError, "0..1", lambda n: assembled(n).store([0, -1], [1, 2], ROOT)),
    "store under None": (TypeError, "None is no key", lambda n: assembled(n).store([0, 1], [1, None], NODE)),
    "store under a list": (TypeError, "hashable", lambda n: assembled(n).store([0, 1], [1, [2]], NODE)),
    "store in a scope's value": (TypeError, "Scope.ROOT", lambda n: assembled(n).store([0, 1], [1, 2], "node")),
    "row_start of a negative row": (IndexError, "0..1", lambda n: assembled(n).row_start(-1)),
    "row_context of a negative row": (IndexError, "0..1", lambda n: assembled(n).row_context(-1)),
    "clear_init_caches of -1": (ValueError, "0..1", lambda n: looked_up(n).clear_init_caches([-1])),
    "clear_init_caches of True": (ValueError, "True", lambda n: looked_up(n).clear_init_caches([True])),
    "clear_init_caches of an iterator": (ValueError, "7", lambda n: looked_up(n).clear_init_caches(iter([0, 7]))),
    "a position shift of another shape": (
        ValueError, "L, 2, H, T - 3, D", lambda n: setattr(looked_up(n), "position_shift", torch.ones(1, 1, 1, 3, 1)),
    ),
    "a position shift that is a list": (TypeError, "list", lambda n: setattr(looked_up(n), "position_shift", [1.0])),
}  # fmt: skip
# Of the new backends.
OF_MANAGERS = {
    "store before assemble": (OrderError, "assemble", lambda n: looked_up(n).store([0, 1], [1, 2], NODE)),
    "supply after assemble": (OrderError, "assembled already", lambda n: assembled(n).supply(0, context())),
    "supply of another shape": (ValueError, "does not fit", lambda n: looked_up(n).supply(0, context(embed=8))),
    "supply of more tokens": (ValueError, "does not fit", lambda n: looked_up(n).supply(0, context(9, room=9))),
    "supply of fewer layers": (ValueError, "does not fit", lambda n: looked_up(n).supply(0, context(layers=1))),
    "get_init_cache of -1": (ValueError, "0..1", lambda n: manager(n).get_init_cache(-1, 1)),
    "set_init_cache of 2": (ValueError, "0..1", lambda n: manager(n).set_init_cache(2, 1, context())),
    "hierarchical_get of -1": (ValueError, "0..1", lambda n: manager(n).hierarchical_get(-1, 1)),
}
# Of no backend.
OTHERS = {
    "a pool of no slots": (ValueError, "positive", lambda: KVCachePool(0)),
    "a pool of -1": (ValueError, "positive", lambda: KVCachePool(-1)),
    "a pool of 2.0": (ValueError, "positive", lambda: KVCachePool(2.0)),
    "a legacy pool of 2.0": (ValueError, "positive", lambda: LegacyPool(2.0, True)),
    "a legacy pool of True": (ValueError, "positive", lambda: LegacyPool(True, True)),
    "a pool under a list": (TypeError, "hashable", lambda: KVCachePool(2).set([], context())),
    "a legacy pool under a list": (TypeError, "hashable", lambda: LegacyPool(2, True).set([], context())),
    "a priority that is NaN": (ValueError, "NaN", lambda: KVCachePool(2).set(1, context(), float("nan"))),
    "an unknown strategy": (ValueError, "fifo", lambda: EvictionStrategy.parse("random")),
    "an unknown backend": (ValueError, "legacy", lambda: make_backend("old", config())),
    "a configuration that is a dict": (TypeError, "CacheConfig", lambda: make_backend("new", {})),
    "slots of 0": (ValueError, "positive", lambda: config(recur_pool_size=0)),
    "slots of -1": (ValueError, "positive", lambda: config(init_pool_size=-1)),
    "slots of True": (ValueError, "positive", lambda: config(init_pool_size=True)),
    "a flag that is text": (ValueError, "True or False", lambda: config(resident_batch="False")),
    "a flag that is 1": (ValueError, "True or False", lambda: config(thread_safe=1)),
    "a dtype that is text": (ValueError, "torch.dtype", lambda: config(dtype="float32")),
    "slots of more than there can be": (ValueError, "at most", lambda: config(recur_pool_size=10**30)),
    "bytes of more than there can be": (ValueError, "at most", lambda: config(init_pool_bytes=10**30)),
    "a storage that is a list": (ValueError, "storage must be a name", lambda: config(storage=["slab"])),
    "a device that is none": (ValueError, "no device 'tpu'", lambda: config(device="tpu")),
    "rotary positions of text": (
        ValueError,
        "rotary_emb must be True or False",
        lambda: CacheConfig.from_object({"rotary_emb": "False"}, 2),
    ),
    "KeysValues of no rows": (ValueError, "positive", lambda: KeysValues(0, 2, 6, 6, 2)),
    "KeysValues of -1 heads": (ValueError, "positive", lambda: KeysValues(1, -1, 6, 6, 2)),
    "KeysValues of 6.0 tokens": (ValueError, "positive", lambda: KeysValues(1, 2, 6.0, 6, 2)),
    "KeysValues whose heads do not fit": (ValueError, "divides", lambda: KeysValues(1, 4, 6, 6, 2)),
    "a block of other dimensions": (ValueError, "B, L, 2, H, T, D", lambda: KeysValues.from_block(torch.ones(2, 3))),
    "a block of too few tokens": (ValueError, "0..6", lambda: KeysValues.from_block(torch.ones(1, 2, 2, 2, 6, 3), 7)),
    "a cache of other dimensions": (ValueError, "B, H, T_max, D", lambda: Cache(torch.ones(2, 3))),
    "a cache of -1 tokens": (ValueError, "0..6", lambda: Cache(torch.ones(1, 2, 6, 3), -1)),
    "a size of -1": (ValueError, "0..6", lambda: setattr(context(), "size", -1)),
    "a size beyond the room": (ValueError, "0..6", lambda: setattr(context(), "size", 7)),
    "keys without values": (ValueError, "both", lambda: context()[0].update(torch.ones(1, 2, 1, 3), torch.ones(1))),
    "tokens of another width": (ValueError, "append", lambda: context()[0]._k_cache.update(torch.ones(1, 2, 1, 4))),
    "more tokens than there is room": (ValueError, "append", lambda: context(7)),
    "a mask of another length": (ValueError, "one boolean per row", lambda: context().prune([True, False])),
}  # fmt: skip

# What is taken as Python's integers are.
NUMPY_INTEGERS = {
    "environments": lambda n: looked_up(n).lookup(np.array([0, 1]), [1, 2], ROOT),
    "rows": lambda n: looked_up(n).supply(np.int64(0), context()),
    "keys": lambda n: assembled(n).store([0, 1], np.array([5, 6]), ROOT),
    "stored environments": lambda n: assembled(n).store(np.array([0, 1]), [5, 6], NODE),
    "cleared environments": lambda n: looked_up(n).clear_init_caches(np.array([1])),
    "row_start": lambda n: assembled(n).row_start(np.int32(1)),
    "slots": lambda n: make_backend(n, config(recur_pool_size=np.int64(4))),
    "sizes": lambda n: KeysValues(*map(np.int64, (1, 2, 6, 6, 2))),
    "legacy slots": lambda n: LegacyPool(np.int64(3), True),
    "a world model's": lambda n: WorldModel(
        WorldModelConfig(
            GEOMETRY,
            observation_shape=(np.int64(4),),
            action_space_size=np.int32(6),
            support_size=np.int64(3),
            seed=np.int64(1),
            cache_log_interval=np.int64(5),
            init_pool_size=np.int64(5),
        )
    ).forward_initial_inference(np.zeros((2, 4)), envs=np.array([0, 1])),
    "switches": lambda n: make_backend(n, config(verify_keys=np.bool_(True))),
    "a world model's switches": lambda n: WorldModelConfig(
        GEOMETRY, verify_keys=np.bool_(True), chained_keys=np.bool_(True)
    ),
    "simulations": lambda n: SearchConfig(num_simulations=np.int64(3)),
}

BACKENDS = ["legacy", "new:private", "new:slab", "new:paged", "new:paged-resident", "new:paged-exact"]


def outcome(call, *arguments):
    """A line: what is returned or raised."""
    try:
        result = call(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"returned {type(result).__name__}"


def history(name):
    """A short history's sizes and sums."""
    cache = LegacyCache(config()) if name == "legacy" else make_backend(name, config(recur_pool_size=3))
    cache.position_shift = torch.ones(2, 2, 2, 3, 3)
    found = []
    for step in range(12):
        keys = [step % 5, 10 + step % 4]
        parents = [None, None] if step == 0 else [(step - 1) % 5, 10 + (step - 2) % 4]
        sizes = cache.lookup([0, 1], parents, NODE)
        for row, size in enumerate(sizes):
            if size == -1:
                cache.supply(row, context())
        assembled = cache.assemble()
        found.append((list(sizes), list(assembled), [float(cache.row_context(row).block.sum()) for row in (0, 1)]))
        for layer in cache.keys_values_wm:
            layer.update(torch.full((2, 2, 2, 3), float(step)), torch.full((2, 2, 2, 3), float(step)))
        cache.store([0, 1], keys, NODE)
    return found


def lines():
    """Every outcome, as text."""
    for name in BACKENDS:
        yield f"{name}: {history(name)}"
        for what, (_, _, call) in {**OF_BACKENDS, **OF_MANAGERS}.items():
            yield f"{name}: {what}: {outcome(call, name)}"
        for what, call in NUMPY_INTEGERS.items():
            yield f"{name}: {what}: {outcome(call, name)}"
    for what, (_, _, call) in OTHERS.items():
        yield f"{what}: {outcome(call)}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(__debug__, *lines(), sep="\n")
