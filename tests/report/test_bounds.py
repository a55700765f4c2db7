"""Bounds: against every possible choice of what to keep, against libCacheSim, and against the real pools."""

import itertools
import random

import libcachesim
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_files import COMMITTED, steps_of, synthetic

from kvcache.backend import CacheConfig
from kvcache.geometry import GEOMETRIES
from kvcache.registry import make_backend
from kvcache.report.bounds import Requests, _belady, read_requests
from kvcache.trace.content import Contents
from kvcache.trace.drive import Latents
from kvcache.trace.replay import verify_replay
from kvcache.trace.verify import Outcome

STORE, LOOKUP = range(2)
requests = st.lists(st.tuples(st.sampled_from([STORE, LOOKUP]), st.integers(0, 4)), max_size=9)


def best_of_all(epoch, slots):
    """Finds of the best pool there can be: after every request, any of what was kept or has just been met is kept."""
    reachable = {frozenset(): 0}
    met = set()
    for what, key in epoch:
        after = {}
        for kept, found in reachable.items():
            total = found + (what == LOOKUP and key in kept)
            # A store brings its key; a lookup may bring back what was stored once.
            choices = kept | {key} if what == STORE or key in met else kept
            for size in range(min(slots, len(choices)) + 1):
                for chosen in map(frozenset, itertools.combinations(choices, size)):
                    after[chosen] = max(after.get(chosen, 0), total)
        reachable = after
        met |= {key} if what == STORE else set()
    return max(reachable.values())


@given(requests, st.integers(1, 3))
def test_no_choice_finds_more_and_one_finds_as_much(epoch, slots):
    assert _belady(epoch, slots) == best_of_all(epoch, slots)


def test_libcachesims_belady_never_finds_more():
    source = random.Random(0)
    keys = [source.randrange(30) for _ in range(2000)]
    for slots in (1, 3, 10, 25):
        cache = libcachesim.Belady(cache_size=slots)
        following, last = {}, {}
        for place in reversed(range(len(keys))):
            following[place] = last.get(keys[place], -1)
            last[keys[place]] = place
        theirs = 0
        for place, key in enumerate(keys):
            request = libcachesim.Request(obj_id=key, obj_size=1, clock_time=place)
            request.next_access_vtime = following[place] if following[place] >= 0 else 2**62
            theirs += cache.get(request)
        # The same requests in our words: who asks stores when it misses, which a lookup of ours may do for nothing.
        ours = _belady([(STORE if keys.index(key) == place else LOOKUP, key) for place, key in enumerate(keys)], slots)
        assert theirs <= ours
        assert ours <= len(keys) - 30


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    path = synthetic(tmp_path_factory.mktemp("traces") / "synthetic.parquet", searches=3)
    return {"recorded": steps_of(COMMITTED, 3), "synthetic": steps_of(path)}


@pytest.mark.parametrize("kind", ["recorded", "synthetic"])
@pytest.mark.parametrize("slots", [3, 20, 60])
def test_no_real_pool_beats_belady_and_nothing_beats_the_unbounded_one(steps, kind, slots):
    geometry = GEOMETRIES["cartpole"]
    asked = read_requests(steps[kind])
    for strategy in ("fifo", "lru", "priority"):
        config = CacheConfig(geometry, recur_pool_size=slots, eviction_strategy=strategy)
        found = verify_replay(
            make_backend("new", config), steps[kind], Contents(geometry), Latents(geometry.embed_dim, "cpu")
        )
        total = found.outcomes.total
        own = total[Outcome.HIT] + total[Outcome.CONTEXT_MISMATCH]
        assert own <= asked.belady(slots).found <= asked.unbounded().found
        assert asked.belady(slots).lookups == sum(total.values())


@pytest.mark.parametrize("kind", ["recorded", "synthetic"])
def test_a_pool_of_the_searchs_size_finds_what_the_unbounded_one_finds(steps, kind):
    geometry = GEOMETRIES["cartpole"]
    found = verify_replay(
        make_backend("new", CacheConfig(geometry)), steps[kind], Contents(geometry), Latents(geometry.embed_dim, "cpu")
    )
    total = found.outcomes.total
    asked = read_requests(steps[kind])
    assert asked.unbounded().found == asked.belady(200).found == total[Outcome.HIT] + total[Outcome.CONTEXT_MISMATCH]


def test_belady_grows_with_the_pool(steps):
    asked = read_requests(steps["recorded"])
    rates = [asked.belady(slots).rate for slots in (1, 2, 5, 10, 50, 200)]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]


def test_what_is_cleared_is_gone():
    stored, asked = (STORE, 1), (LOOKUP, 1)
    assert Requests([[stored, asked]], 0, 1).belady(1).found == 1
    assert Requests([[stored], [asked]], 0, 1).belady(1).found == 0
    assert Requests([[stored], [asked]], 0, 1).unbounded().found == 0


def test_no_lookups_have_no_rate():
    assert Requests([], 0, 0).unbounded().rate is None


def test_nothing_fits_no_slots():
    assert Requests([[(STORE, 1), (LOOKUP, 1)]], 0, 1).belady(0).found == 0
