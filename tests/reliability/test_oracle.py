"""Random histories against an oracle that knows every hit, every eviction and every content.

Full form: ``pytest tests/reliability/test_oracle.py --reliability=full``.
"""

import random

import pytest
from histories import BACKENDS, NODE, ROOT, History, cache_of, token
from invariants import check_invariants

from kvcache import MISS

HISTORIES = {False: 4, True: 120}  # of each backend and strategy
CALLS = 30
KEYS = range(1, 12)


class OraclePool:
    """What a pool is meant to do, as plainly as it can be said."""

    def __init__(self, size, strategy):
        self.size, self.strategy = size, strategy
        self.contents, self.order, self.priorities = {}, [], {}

    def get(self, key):
        if key in self.contents and self.strategy == "lru":
            self.order.append(self.order.pop(self.order.index(key)))
        return self.contents.get(key)

    def claim(self, key, priority):
        """A new key is the youngest, and the last of the order; who is first is evicted."""
        if key in self.contents:
            self.get(key)
            self.priorities[key] = self.priorities[key] if priority is None else priority
            return
        if len(self.contents) == self.size:
            ranks = [(self.priorities[each] if self.strategy == "priority" else 0) for each in self.order]
            evicted = self.order.pop(ranks.index(min(ranks)))
            del self.contents[evicted]
        self.order.append(key)
        self.contents[key], self.priorities[key] = None, 0.0 if priority is None else priority

    def clear(self):
        self.contents.clear()
        self.order.clear()


class Oracle(History):
    """A cache beside the pools that it is meant to be."""

    def __init__(self, cache, strategy):
        super().__init__(cache)
        config = cache.config
        self.init = [OraclePool(config.init_entries, strategy) for _ in range(config.geometry.env_num)]
        self.recur = OraclePool(config.recur_entries, strategy)

    def find(self, env, key, scope):
        found = self.init[env].get(key)
        return self.recur.get(key) if found is None and scope is NODE else found

    def infer(self, rows, scope, priorities=None):
        cache = self.cache
        envs, parents, keys = zip(*rows, strict=True)
        wanted = [[] if parent is None else self.find(env, parent, scope) for env, parent, _ in rows]
        sizes = cache.lookup(envs, parents, scope)
        assert sizes == [MISS if each is None else len(each) for each in wanted]
        for row, size in enumerate(sizes):
            if size == MISS:
                wanted[row] = [token(999, 0)]
                cache.supply(row, self.supplied(wanted[row]))
        self.found(cache.assemble(), [[each] for each in wanted])
        self.append(keys)
        cache.store(envs, keys, scope, priorities)
        pools = [self.init[env] if scope is ROOT else self.recur for env in envs]
        for pool, key, priority in zip(pools, keys, priorities or [None] * len(keys), strict=True):
            pool.claim(key, priority)
        for pool, key, context in zip(pools, keys, wanted, strict=True):
            if key in pool.contents:
                pool.contents[key] = self.grown(context, key)

    def clear(self, choose):
        env = choose.randrange(len(self.init))
        name, pools = choose.choice(
            [("recur", [self.recur]), ("init", [self.init[env]]), ("all", [*self.init, self.recur])]
        )
        for pool in pools:
            pool.clear()
        {
            "recur": self.cache.clear_recur_cache,
            "init": lambda: self.cache.clear_init_caches([env]),
            "all": self.cache.clear_all,
        }[name]()


@pytest.mark.parametrize("strategy", ["fifo", "lru", "priority"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_histories(backend, strategy, is_full, figure):
    evictions = 0
    for seed in range(HISTORIES[is_full]):
        choose = random.Random(seed)
        sizes = {"recur_pool_size": choose.randrange(1, 7), "init_pool_size": choose.randrange(1, 5)}
        oracle = Oracle(cache_of(backend, eviction_strategy=strategy, **sizes), strategy)
        for _ in range(CALLS):
            if choose.random() < 0.08:
                oracle.clear(choose)
                continue
            keys = [choose.choice(KEYS), choose.choice(KEYS)]  # a batch may have one key twice: the last row is kept
            rows = [(env, choose.choice([None, *KEYS]), key) for env, key in enumerate(keys)]
            priorities = choose.choice([None, [choose.choice([None, 0.5, -1.0]) for _ in keys]])
            oracle.infer(rows[: choose.choice([1, 2, 2])], choose.choice([NODE, NODE, ROOT]), None)
            if priorities:
                oracle.infer(rows, NODE, priorities)
        manager = getattr(oracle.cache, "_backend", oracle.cache)
        check_invariants(manager)
        evictions += manager.recur_pool.stats.evictions
    figure(
        f"oracle: {backend}, {strategy}: {HISTORIES[is_full]} histories of {CALLS} calls, {evictions:,} evictions, "
        "0 wrong"
    )
    assert evictions
