"""Pools find, request by request, what the caches of others find; whatever they return is checked."""

import json
import random
from typing import ClassVar

import cachetools
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from request_files import PROMPTS, imported, json_lines, libcachesim, oracle_general

from kvbench.requests import contents
from kvbench.requests.contents import OBJECTS, Entry, SizedStorage, contents_for
from kvbench.requests.pools import PoolSize, RequestPool, TimedPool, replay_requests
from kvbench.results.requests import RequestResults
from kvcache import STORAGES, EvictionStrategy, KVCachePool, eviction
from kvcache.eviction import EvictionPolicy

# Their names of our policies. Below 20 entries its S3FIFO ends the process.
JUDGES = {"fifo": "FIFO", "lru": "LRU", "s3-fifo": "S3FIFO", "sieve": "Sieve"}
JUDGED = [EvictionStrategy.parse(name).value for name in JUDGES]
BY_SIZE = ["fifo", "lru", "sieve"]  # our S3-FIFO divides a pool by entries, theirs by sizes
CAPACITIES = (20, 50, 100, 333)


def skewed(seed, count=4000, keys=700):
    """Requests of a few keys that are asked for often, and of scans."""
    made = random.Random(seed)
    drawn = [int(made.paretovariate(0.6)) % keys for _ in range(count)]
    for start in range(0, count, 900):
        drawn[start : start + 150] = range(10_000 + start, 10_150 + start)
    return drawn


def hits_of(requests, size, eviction, storage=OBJECTS, slots=None):
    pool = RequestPool(size, slots or size.slots or len(requests), eviction, storage)
    keys, sizes = zip(*requests, strict=True)
    found = pool.ask(np.array(keys, dtype=np.uint64), sizes)
    return found, pool


def entries(count):
    return PoolSize(str(count), slots=count)


@pytest.mark.slow
class TestLibCacheSim:
    def judged(self, folder, traces, sizes, policies):
        pytest.importorskip("libcachesim", reason="libcachesim has no wheel for this Python")
        cells = [(trace, size, policy) for trace in traces for size in sizes for policy in policies]
        jobs = [{"policy": JUDGES[policy], "size": size, "requests": trace} for trace, size, policy in cells]
        return zip(cells, libcachesim(folder, jobs), strict=True)

    def test_requests_of_one_size(self, tmp_path):
        traces = [[(key, 1) for key in skewed(seed)] for seed in range(3)]
        for (trace, size, policy), wanted in self.judged(tmp_path, traces, CAPACITIES, JUDGED):
            assert hits_of(trace, entries(size), policy)[0] == wanted, (size, policy)
            assert 0 < sum(wanted) < len(wanted)

    def test_requests_of_many_sizes(self, tmp_path):
        # A key has one size; some are larger than the cache, and are not stored.
        traces = [[(key, 1 + key * 7919 % 90) for key in skewed(seed)] for seed in range(3)]
        for (trace, size, policy), wanted in self.judged(tmp_path, traces, (80, 1000, 5000), BY_SIZE):
            found, pool = hits_of(trace, PoolSize("", limit=size), policy)
            assert found == wanted, (size, policy)
            assert (pool.too_large > 0) == (size == 80)

    def test_from_a_file_to_hits(self, tmp_path):
        keys = skewed(9)
        reader = imported(tmp_path / "t.bin", oracle_general([(0, key, 8, -1) for key in keys]), "oracle-general")
        trace = [(key, 1) for key in keys]
        for (_, size, policy), wanted in self.judged(tmp_path, [trace], CAPACITIES, JUDGED):
            pool = RequestPool(entries(size), size, policy)
            replay_requests(reader, [pool])
            result = pool.result(None)
            assert (result.hit, result.miss) == (sum(wanted), len(wanted) - sum(wanted))


@pytest.mark.parametrize(("policy", "judge"), [("fifo", cachetools.FIFOCache), ("lru", cachetools.LRUCache)])
class TestCachetools:
    @given(requests=st.lists(st.integers(0, 12), min_size=1, max_size=120), capacity=st.integers(1, 8))
    @settings(max_examples=30, deadline=None)
    def test_requests_of_one_size(self, policy, judge, requests, capacity):
        cache, wanted = judge(capacity), []
        for key in requests:
            wanted.append(cache.get(key) is not None)
            if not wanted[-1]:
                cache[key] = key
        assert hits_of([(key, 1) for key in requests], entries(capacity), policy)[0] == wanted

    @given(requests=st.lists(st.integers(0, 12), min_size=1, max_size=120), capacity=st.integers(1, 30))
    @settings(max_examples=30, deadline=None)
    def test_requests_of_many_sizes(self, policy, judge, requests, capacity):
        sizes = [1 + key * 5 % 9 for key in requests]
        cache, wanted = judge(capacity, getsizeof=lambda key: 1 + key * 5 % 9), []
        for key, size in zip(requests, sizes, strict=True):
            wanted.append(cache.get(key) is not None)
            if not wanted[-1] and size <= capacity:
                cache[key] = key
        found, pool = hits_of(list(zip(requests, sizes, strict=True)), PoolSize("", limit=capacity), policy)
        assert found == wanted
        assert pool.result(None).most_held_size <= capacity
        assert set(pool.pool) == set(cache)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("eviction", [each.value for each in EvictionStrategy])
def test_all_storages_find_the_same(storage, eviction):
    requests = [(key, 1) for key in skewed(1, 400, 60)]
    assert hits_of(requests, entries(20), eviction, storage)[0] == hits_of(requests, entries(20), eviction)[0]


class Mixed(KVCachePool):
    """Returns what another key has, now and then."""

    def get(self, key):
        others = [each for each in self if each != key]
        return super().get(others[0] if others and key % 3 == 0 and key in self else key)


@pytest.mark.parametrize("storage", STORAGES)
def test_the_content_of_another_key_is_no_hit(storage, monkeypatch):
    monkeypatch.setattr("kvbench.requests.pools.KVCachePool", Mixed)
    found, pool = hits_of([(key, 1) for key in (3, 4, 3, 4, 3)], entries(4), "fifo", storage)
    assert found == [False, False, False, True, False]
    result = pool.result(None)
    assert (result.hit, result.stale_hit, result.miss) == (1, 2, 2)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=8, unique=True))
@settings(max_examples=30, deadline=None)
def test_contents_tell_keys_apart(keys):
    for storage in STORAGES:
        made = contents_for(storage)
        found = made.of(np.array(keys, dtype=np.uint64))
        again = made.of(np.array(keys[::-1], dtype=np.uint64))[::-1]
        for place, content in enumerate(found):
            assert [made.match(content, other) for other in again] == [place == each for each in range(len(keys))]


def test_sizes_are_counted_through_clears_and_stores_of_the_same_key():
    pool = KVCachePool(3, storage=SizedStorage(contents.OBJECTS, 3))
    for key, size, held in ((1, 5, 5), (2, 7, 12), (1, 2, 9), (3, 1, 10), (4, 1, 9)):
        pool.set(key, Entry(key, size))
        assert pool.storage.held == held
    assert pool.storage.most_held == 12
    pool.clear()
    assert pool.storage.held == 0
    pool.set(9, Entry(9, 4))
    assert pool.storage.held == 4


class Noting(EvictionPolicy):
    """Keeps what it is told of each entry."""

    sees_entries = True
    told: ClassVar[list] = []

    def __init__(self, size):
        self._slots = {}

    def insert(self, slot, info):
        self._slots[slot] = None
        self.told.append((info.key, info.parent))

    def update(self, slot, info):
        raise AssertionError("a hit stores nothing")

    def remove(self, slot):
        del self._slots[slot]

    def victim(self, incoming):
        return next(iter(self._slots))

    def clear(self):
        self._slots.clear()


def test_a_policy_is_told_the_parents(tmp_path, monkeypatch):
    monkeypatch.setitem(eviction._POLICIES, EvictionStrategy.SIEVE, Noting)
    reader = imported(tmp_path / "t.jsonl", json_lines(PROMPTS), "mooncake")
    pools = [RequestPool(entries(20), 20, "sieve"), RequestPool(entries(20), 20, "fifo")]
    replay_requests(reader, pools)
    assert Noting.told == [(0, None), (1, 0), (2, 1), (7, None), (2**64 - 1, 7)]
    assert [pool.result(None).hit for pool in pools] == [2, 2]


def test_times_are_of_slices():
    ticks = iter(range(0, 10**9, 50_000))
    pool = TimedPool(entries(4), 4, "lru", timer=lambda: next(ticks))
    pool.ask(np.arange(2048 + 100, dtype=np.uint64), [1] * 2148)
    times = TimedPool.together([pool])
    assert times.samples == 3
    assert times.p50 == pytest.approx(50 / 1024)
    assert TimedPool.together([]) is None


class TestCommand:
    @pytest.fixture
    def trace(self, tmp_path):
        return imported(tmp_path / "t.jsonl", json_lines(PROMPTS * 3), "mooncake").path

    def run(self, *arguments):
        from kvbench.cli import main

        return CliRunner().invoke(main, ["trace", "replay", *map(str, arguments)])

    @pytest.mark.parametrize("name", ["auto", "mru"])
    def test_a_strategy_that_no_pool_has_is_refused_in_words(self, trace, name):
        done = self.run(trace, "--capacity", 5, "--eviction", name)
        assert done.exit_code == 2
        assert f"'{name}' is not one of 'fifo', 'lru'" in done.output

    def test_table_and_numbers(self, trace, tmp_path):
        done = self.run(trace, "--capacity", 5, "--capacity", "2300tokens", "--json", tmp_path / "r.json")
        assert done.exit_code == 0
        assert "21 requests" in done.stdout
        assert "Context mismatches are unknown" in done.stdout
        found = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=RequestResults)
        names = [(each.capacity, each.eviction) for each in found.pools]
        assert names[:2] == [("5", "fifo"), ("5", "lru")]
        assert ("2300tokens", "lru") in names
        for each in found.pools:
            assert each.hit + each.miss == each.requests == 21
            assert each.context_mismatch is None
            assert 0 < each.hit_size < each.requested_size == 3 * 2924
            assert each.bookkeeping_us.samples == 1
        limited = found.pools[names.index(("2300tokens", "lru"))]
        assert limited.most_held_size <= 2300
        assert json.loads((tmp_path / "r.json").read_text())["pools"][0]["context_mismatch"] is None

    def test_the_first_requests(self, trace, tmp_path):
        self.run(trace, "--capacity", 2, "--requests", 5, "--repetitions", 0, "--json", tmp_path / "r.json")
        found = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=RequestResults)
        assert (found.trace.replayed, found.trace.requests) == (5, 21)
        assert (found.pools[0].requests, found.pools[0].bookkeeping_us) == (5, None)

    def test_wrong_content_is_an_error(self, trace, monkeypatch):
        monkeypatch.setattr("kvbench.requests.pools.KVCachePool", Mixed)
        done = self.run(trace, "--capacity", 20, "--repetitions", 0)
        assert done.exit_code == 1
        assert "had another key's content" in done.stderr

    @pytest.mark.parametrize(
        ("size", "fault"),
        [("0", "'0': give a number of entries"), ("5MB", "5MB: the sizes of t.jsonl.parquet are in tokens"),
         ("-3", "'-3'"), ("9" * 30, "give a number of entries"), ("tokens", "'tokens'")],
    )  # fmt: skip
    def test_sizes_that_are_none(self, trace, size, fault):
        done = self.run(trace, f"--capacity={size}")
        assert done.exit_code == 2
        assert fault in done.stderr

    def test_more_entries_than_requests_cost_nothing(self, trace):
        assert self.run(trace, "--capacity", 10**17, "--capacity", "999999999999tokens").exit_code == 0
