"""S3-FIFO, beside the three queues of its paper."""

from hypothesis import given
from hypothesis import strategies as st
from policy_conformance import PolicyConformance, drain, occupied

from kvcache import CacheConfig, Geometry, KVCachePool, make_backend
from kvcache.eviction import EntryInfo, EvictionStrategy, S3FifoPolicy


class TestS3Fifo(PolicyConformance):
    strategy = EvictionStrategy.S3_FIFO


def test_what_was_used_twice_stays_and_the_rest_is_evicted_first():
    policy = S3FifoPolicy(20)
    occupied(policy, *range(20))  # 0 and 1 fill the small queue, 2 to 19 the main one
    for slot in (0, 0, 1, 2, 2, 2, 2):
        policy.touch(slot)
    # 1 was used once only. 0 goes into the main queue; there 2 goes round three times, and 0 not at all.
    assert drain(policy, 20) == [1, *range(3, 20), 0, 2]


def test_a_key_that_comes_back_soon_goes_into_the_main_queue():
    pool = KVCachePool(10, "s3-fifo", storage="reference")
    for key in [*range(10), "new"]:
        pool.set(key, key)
    assert 0 not in pool  # it was alone in the small queue
    pool.set(0, 0)  # for "new"
    pool.set("newer", 0)  # for 1, the oldest of a main queue that has one too many
    assert set(pool) == {0, *range(2, 10), "newer"}


class PaperS3Fifo:
    """Lists, the oldest first, as in algorithm 1 of the paper; and what libCacheSim adds before the first eviction."""

    def __init__(self, size):
        self.size, self.small_size = size, max(1, size // 10)
        self.small, self.main, self.ghosts, self.uses = [], [], [], {}
        self.has_evicted = False

    def ask(self, key):
        """Whether ``key`` hits; one that misses is stored."""
        if key in self.uses:
            self.uses[key] = min(self.uses[key] + 1, 3)
            return True
        was_ghost = key in self.ghosts
        if was_ghost:
            self.ghosts.remove(key)
        while len(self.uses) == self.size:
            self.evict()
        fills = not self.has_evicted and len(self.small) >= self.small_size
        (self.main if was_ghost or fills else self.small).append(key)
        self.uses[key] = 0
        return False

    def evict(self):
        self.has_evicted = True
        if len(self.main) > self.size - self.small_size or not self.small:
            self.evict_from_main()
        else:
            self.evict_from_small()

    def evict_from_small(self):
        while self.small:
            key = self.small.pop(0)
            if self.uses[key] <= 1:
                del self.uses[key]
                self.ghosts = [*self.ghosts, key][-(9 * self.size // 10) :] if self.size > 1 else []
                return
            self.main.append(key)
            self.uses[key] = 0

    def evict_from_main(self):
        while True:
            key = self.main.pop(0)
            if not self.uses[key]:
                del self.uses[key]
                return
            self.uses[key] -= 1
            self.main.append(key)


@given(size=st.integers(1, 31), keys=st.lists(st.integers(0, 40), max_size=300))
def test_hits_and_keys_are_those_of_the_paper(size, keys):
    pool, paper = KVCachePool(size, "s3-fifo", storage="reference"), PaperS3Fifo(size)
    for key in keys:
        hit = pool.get(key) is not None
        if not hit:
            pool.set(key, key)
        assert paper.ask(key) == hit
        assert set(pool) == set(paper.uses)


def test_a_key_that_is_evicted_for_is_no_ghost_meanwhile():
    """Where bytes are limited: several entries go for one, and their keys must not push its own out of the ghosts."""
    policy = S3FifoPolicy(2)
    occupied(policy, 0, 1)
    returning = EntryInfo("a")
    policy.remove(policy.victim(EntryInfo("b")))
    policy.insert(0, returning)
    assert policy.victim(EntryInfo("b")) == 0
    policy.remove(0)
    for _ in range(2):
        assert policy.victim(returning) == 1
    policy.remove(1)
    policy.insert(0, returning)
    policy.insert(1, EntryInfo("c"))
    assert drain(policy, 2) == [1, 0]


def test_pools_of_a_cache_take_it():
    geometry = Geometry(num_layers=1, num_heads=1, embed_dim=2, context_length=6, env_num=2, num_simulations=4)
    cache = make_backend("new", CacheConfig(geometry, eviction_strategy="S3FIFO"))
    assert {pool.eviction_strategy for pool in (*cache.init_pools, cache.recur_pool)} == {EvictionStrategy.S3_FIFO}
