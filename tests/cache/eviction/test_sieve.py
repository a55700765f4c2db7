"""SIEVE, beside the queue and the hand of its paper."""

from hypothesis import given
from hypothesis import strategies as st
from policy_conformance import SLOTS, PolicyConformance, drain, evict, occupied

from kvcache import KVCachePool
from kvcache.eviction import EntryInfo, EvictionStrategy, SievePolicy


class TestSieve(PolicyConformance):
    strategy = EvictionStrategy.SIEVE


def test_what_was_used_stays_where_it_is():
    policy = occupied(SievePolicy(SLOTS), 0, 1, 2, 3)
    policy.touch(0)
    policy.update(2, EntryInfo())
    assert evict(policy) == 1
    policy.insert(1, EntryInfo())
    # The hand stands at 2, which was used; 3 was not, and is older than 1. Then it begins again, at 0.
    assert drain(policy, 4) == [3, 1, 0, 2]


class PaperSieve:
    """A list of keys, the newest first, a bit for each, and a hand that goes from the end to the front."""

    def __init__(self, size):
        self.size, self.queue, self.visited, self.hand = size, [], {}, None

    def ask(self, key):
        """Whether ``key`` hits; one that misses is stored."""
        if key in self.visited:
            self.visited[key] = True
            return True
        if len(self.queue) == self.size:
            self.evict()
        self.queue.insert(0, key)
        self.visited[key] = False
        return False

    def evict(self):
        key = self.queue[-1] if self.hand is None else self.hand
        while self.visited[key]:
            self.visited[key] = False
            key = self.before(key) or self.queue[-1]
        self.hand = self.before(key)
        self.queue.remove(key)
        del self.visited[key]

    def before(self, key):
        place = self.queue.index(key)
        return self.queue[place - 1] if place else None


@given(size=st.integers(1, 8), keys=st.lists(st.integers(1, 13), max_size=200))
def test_hits_and_keys_are_those_of_the_paper(size, keys):
    pool, paper = KVCachePool(size, "sieve", storage="reference"), PaperSieve(size)
    for key in keys:
        hit = pool.get(key) is not None
        if not hit:
            pool.set(key, key)
        assert paper.ask(key) == hit
        assert set(pool) == set(paper.queue)
