"""Replays: what backends return for recorded requests, and how the harness asks and times them."""

import gc
from array import array
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise

import cachetools
import numpy as np
import pytest
import torch
from traces import COMMITTED, TINY, event, good_events, steps_of, synthetic

from kvbench.replay.content import Contents
from kvbench.replay.drive import STEP_OPERATIONS, FillerContent, Latents
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import Replay, verify_replay
from kvbench.replay.summary import ratio, summarise
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import read_steps
from kvcache.config import CacheConfig
from kvcache.geometry import GEOMETRIES
from kvcache.pool import KVCachePool
from kvcache.registry import make_backend

libcachesim = pytest.importorskip("libcachesim", reason="libcachesim has no wheel for this Python")

CAPACITIES = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 200)
SEARCHES = 3


@cache
def committed_steps():
    return steps_of(COMMITTED)


@cache
def first_steps(searches=SEARCHES):
    return [step for step in committed_steps() if step.search < searches]


@cache
def committed_contents():
    geometry = GEOMETRIES["cartpole"]
    return Contents(geometry), Latents(geometry.embed_dim, "cpu")


def verify(name, steps, config, contents=None, latents=None):
    contents = contents or Contents(config.geometry)
    latents = latents or Latents(config.geometry.embed_dim, config.device)
    backend = make_backend(name, config)
    backend.position_shift = contents.position_shift(config.device, config.dtype)
    return verify_replay(backend, steps, contents, latents)


def verify_committed(name, **config):
    return verify(name, first_steps(), CacheConfig(GEOMETRIES["cartpole"], **config), *committed_contents())


class TestCommittedTrace:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("searches", "starts", "lookups"), [(30, 1, 6_232), pytest.param(150, 6, 31_152, marks=pytest.mark.full)]
    )
    def test_the_recorded_logic_gives_every_recorded_outcome_and_size(self, searches, starts, lookups):
        """Same hits, same contents as meant, same sizes."""
        header = TraceReader(COMMITTED).header
        steps = first_steps(searches)
        config = CacheConfig(
            header.geometry, init_pool_size=header.pools["init"], recur_pool_size=header.pools["recur"]
        )
        backend = make_backend(header.backend, config)
        sizes, assemble = [], backend.assemble
        backend.assemble = lambda: sizes.append(list(assemble())) or sizes[-1]
        contents, latents = committed_contents()
        result = verify_replay(backend, steps, contents, latents)
        outcomes = result.outcomes
        assert outcomes.recorded == len(outcomes.by_lookup) == lookups
        assert outcomes.disagreements == 0
        assert set(outcomes.by_lookup) == {Outcome.HIT}
        assert result.faults == []

        recorded = {}
        for each in TraceReader(COMMITTED).events():
            if each["kind"] == "assemble" and each["search"] < searches:
                recorded.setdefault(each["batch"], {})[each["env"]] = each["size"]
        replayed = [
            dict(zip(step.envs, row, strict=True))
            for step, row in zip((step for step in steps if step.envs), sizes, strict=True)
            if step.parents != [None] * len(step.envs)  # 0.2.0 assembles nothing where all start from nothing
        ]
        assert len(replayed) == searches * (1 + 25) - starts
        assert replayed == list(recorded.values())

    @pytest.mark.parametrize("eviction", ["fifo", "lru", "priority"])
    def test_new_returns_nothing_stale_or_wrong_at_any_capacity(self, eviction):
        hits = []
        for capacity in CAPACITIES:
            result = verify_committed(
                "new", init_pool_size=capacity, recur_pool_size=capacity, eviction_strategy=eviction
            )
            total = result.outcomes.total
            assert total[Outcome.STALE_HIT] == total[Outcome.WRONG_CONTENT] == 0
            assert result.faults == []
            assert total.total() == sum(len(step.parents) - step.parents.count(None) for step in first_steps())
            hits.append(total[Outcome.HIT])
        assert hits[0] < hits[-1] == total.total()
        if eviction != "priority":  # LRU is a stack algorithm, and FIFO shows no anomaly here
            assert hits == sorted(hits)

    def test_new_evicts_and_reserves_only_as_much_as_its_capacity(self):
        small, large = (verify_committed("new:slab", recur_pool_size=size) for size in (50, 200))
        assert small.evictions == {"init": 0, "recur": SEARCHES * (200 - 50)}
        assert large.evictions == {"init": 0, "recur": 0}
        entry = GEOMETRIES["cartpole"].entry_bytes()
        assert small.bytes_reserved["recur"] == 50 * entry
        assert large.bytes_reserved["recur"] == 200 * entry

    @pytest.mark.parametrize("capacity", [8, 50, 100])
    def test_what_is_stale_in_legacy_is_a_miss_in_new(self, capacity):
        """A slot that is written over: legacy still finds the old key there, new does not."""
        legacy = verify_committed("legacy", recur_pool_size=capacity).outcomes.by_lookup
        new = verify_committed("new", recur_pool_size=capacity, eviction_strategy="fifo").outcomes.by_lookup
        stale = [number for number, outcome in enumerate(legacy) if outcome is Outcome.STALE_HIT]
        assert len(stale) > 50
        assert stale == [number for number, outcome in enumerate(new) if outcome is Outcome.MISS]
        others = [(one, other) for one, other in zip(legacy, new, strict=True) if one is not Outcome.STALE_HIT]
        assert all(one is other for one, other in others)

    def test_legacy_0_2_0_needs_its_recurrent_pool_whole(self):
        assert verify_committed("legacy-0.2.0", recur_pool_size=8).outcomes.node[Outcome.STALE_HIT] > 0

    def test_stale_hits_are_no_hits_in_the_summary(self, tmp_path):
        config = CacheConfig(GEOMETRIES["cartpole"], recur_pool_size=8)
        replay = Replay(first_steps(1), config, ["legacy"])
        summary = summarise(replay.run(0)["legacy"])["outcomes"]["total"]
        assert summary["hit"] + summary["stale_hit"] + summary["context_mismatch"] == summary["lookups"]
        assert summary["stale_hit"] > summary["hit"] > 0
        assert summary["hit_rate"] == summary["hit"] / summary["lookups"]

    def test_verification_is_repeatable_to_the_last_count(self):
        for backend in ("legacy", "new"):
            one, two = (verify_committed(backend, recur_pool_size=30) for _ in range(2))
            assert one == two
            assert one.counts["assemble"].tensor_ops > 0
            assert len(one.step_counts) == sum(step.is_recurrent for step in first_steps())


class TestAgainstOtherCaches:
    """Recurrent lookups and stores of the committed trace, hit by hit beside caches that others wrote."""

    def hits(self, find, store, clear):
        hits = []
        for before, step in pairwise([first_steps(20)[0], *first_steps(20)]):
            if step.search != before.search:
                clear()
            if step.is_recurrent:
                hits += [find(key) for key in step.parents]
                for key in step.keys:
                    store(key)
        return hits

    def our_hits(self, strategy, capacity):
        pool = KVCachePool(capacity, strategy, storage="reference")
        return self.hits(lambda key: pool.get(key) is not None, lambda key: pool.set(key, key), pool.clear)

    @pytest.mark.parametrize("strategy", ["fifo", "lru"])
    @pytest.mark.parametrize("capacity", [1, 8, 30, 100, 200])
    def test_cachetools(self, strategy, capacity):
        other = {"fifo": cachetools.FIFOCache, "lru": cachetools.LRUCache}[strategy](capacity)
        theirs = self.hits(
            lambda key: other.get(key) is not None, lambda key: other.__setitem__(key, True), other.clear
        )
        assert self.our_hits(strategy, capacity) == theirs
        assert any(theirs)
        assert not all(theirs)  # roots are never in this pool

    @pytest.mark.parametrize("strategy", ["fifo", "lru"])
    @pytest.mark.parametrize("capacity", [1, 8, 30, 100, 200])
    def test_libcachesim(self, strategy, capacity):
        make = {"fifo": libcachesim.FIFO, "lru": libcachesim.LRU}[strategy]
        numbers, cleared = {}, 0
        other = make(cache_size=capacity, hashpower=10)

        def request(key):
            # A clear cannot be asked for: keys of another search are other objects, in a cache made anew.
            one = libcachesim.Request()
            one.obj_id, one.obj_size = numbers.setdefault((cleared, key), len(numbers)), 1
            return one

        def clear():
            nonlocal other, cleared
            other, cleared = make(cache_size=capacity, hashpower=10), cleared + 1

        def store(key):
            one = request(key)
            while other.get_occupied_byte() + 1 > capacity:
                other.evict(one)
            other.insert(one)

        theirs = self.hits(lambda key: other.find(request(key)) is not None, store, clear)
        assert any(theirs)
        assert self.our_hits(strategy, capacity) == theirs

    def test_the_policies_differ_on_this_trace(self):
        assert self.our_hits("fifo", 100) != self.our_hits("lru", 100)


class TestSyntheticTraces:
    """Histories that the committed trace does not have: equal keys reached in different ways, absolute positions."""

    GEOMETRY = replace(TINY, env_num=3, num_simulations=20)

    @pytest.fixture(scope="class")
    @classmethod
    def steps(cls, tmp_path_factory):
        path = tmp_path_factory.mktemp("synthetic") / "trace"
        return steps_of(synthetic(path, cls.GEOMETRY, searches=5, transpositions=0.3, episode_length=3))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("backend", ["legacy", "legacy-0.2.0", "new", "new:private", "new:reference"])
    def test_mismatches_are_counted_apart_and_nothing_is_wrong(self, steps, backend, dtype):
        result = verify(backend, steps, CacheConfig(self.GEOMETRY, dtype=dtype))
        total = result.outcomes.total
        assert result.faults == []
        assert set(total) == {Outcome.HIT, Outcome.CONTEXT_MISMATCH}
        assert total[Outcome.CONTEXT_MISMATCH] > 10
        assert total[Outcome.HIT] > 10
        assert result.outcomes.recorded == result.outcomes.disagreements == 0

    @pytest.mark.parametrize("eviction", ["fifo", "lru", "priority"])
    @pytest.mark.parametrize("capacity", [1, 4, 17])
    def test_new_stays_sound_in_small_pools(self, steps, eviction, capacity):
        config = CacheConfig(
            self.GEOMETRY, init_pool_size=capacity, recur_pool_size=capacity, eviction_strategy=eviction
        )
        result = verify("new", steps, config)
        assert result.faults == []
        assert result.outcomes.total[Outcome.STALE_HIT] == 0
        assert result.outcomes.total[Outcome.MISS] > 0

    @pytest.mark.parametrize("context_length", [3, 4, 5, 8, 13])
    @pytest.mark.parametrize("positions", ["absolute", "rotary"])
    def test_every_context_length(self, tmp_path, context_length, positions):
        geometry = replace(self.GEOMETRY, context_length=context_length, positions=positions)
        steps = steps_of(synthetic(tmp_path / "trace", geometry, searches=3))
        for backend in ("legacy", "new"):
            result = verify(backend, steps, CacheConfig(geometry))
            assert result.faults == []
            assert set(result.outcomes.total) == {Outcome.HIT}

    def test_a_generate_after_a_miss(self):
        steps = list(read_steps(good_events()))
        for backend in ("legacy", "legacy-0.2.0", "new"):
            result = verify(backend, steps, CacheConfig(TINY))
            assert result.outcomes.by_lookup == [Outcome.HIT, Outcome.HIT, Outcome.MISS, Outcome.HIT]
            assert (result.outcomes.recorded, result.outcomes.disagreements) == (4, 0)
            assert result.faults == []

    @pytest.mark.parametrize("backend", ["legacy", "new"])
    def test_a_context_without_room_for_a_past_always_misses(self, backend):
        """context_length 2: LightZero looks up and makes contexts anew, but stores nothing."""
        events = [each for each in good_events()[11:16] if each["kind"] != "store"]
        for each in events:
            each |= {"node": None, "hit": False if each["kind"] == "lookup" else None}
        events.insert(3, event("generate", "node", 1, 2, 1, key=201))
        events[5]["size"] = 1
        steps = list(read_steps(events))
        result = verify(backend, steps, CacheConfig(replace(TINY, context_length=2)))
        assert result.outcomes.by_lookup == [Outcome.MISS, Outcome.MISS]
        assert result.outcomes.disagreements == 0
        assert result.faults == []
        assert result.step_counts[0].tensor_ops > 0


# The harness, with clocks that are not there.

THREE_STEPS = replace(TINY, env_num=1, num_simulations=3)
CALLS_OF_A_STEP = 5  # hash, lookup, assemble, hash, store


@pytest.fixture
def three_steps(tmp_path):
    return steps_of(synthetic(tmp_path / "trace", THREE_STEPS, searches=1))


def backend_of(call, args):
    """The backend that a measured call is of; everything measured is a backend's own method, or is given it first."""
    return getattr(call, "__self__", None) or args[0]


class FakeStopwatch:
    """Laps by backend and recurrent step: ``laps[name][step]`` nanoseconds for each call of the step."""

    def __init__(self, laps, device=None):
        self.laps, self.device = laps, device
        self.calls = dict.fromkeys(laps, 0)

    def time(self, call, *args):
        name = backend_of(call, args).name
        number = self.calls[name]
        self.calls[name] += 1
        # The root inference comes first: lookup, assemble, hash, store, clear. The clear of the search comes last: a
        # nanosecond for each step.
        step = (number - 5) // CALLS_OF_A_STEP
        last = len(self.laps[name])
        lap = last if step == last else self.laps[name][step] if 0 <= step < last else 1
        read = None if self.device is None else lambda: lap * self.device
        return call(*args), (lap, read)


class TestTimes:
    def test_exactly_the_laps_of_a_known_clock(self, three_steps):
        stopwatch = FakeStopwatch({"legacy": [1000, 1000, 1000], "new": [500, 1000, 2000]})
        replay = Replay(three_steps, CacheConfig(THREE_STEPS), ["legacy", "new"], stopwatch=stopwatch)
        reports = replay.run(1)
        # The search is cleared at the end, which its three steps share.
        assert reports["legacy"].times.step == [array("d", [5001, 5001, 5001])]
        assert reports["new"].times.step == [array("d", [2501, 5001, 10001])]
        assert reports["new"].times.host["assemble"] == array("q", [1, 500, 1000, 2000])
        assert reports["new"].times.host["hash"] == array("q", [1, 500, 500, 1000, 1000, 2000, 2000])
        assert reports["new"].times.host["clear"] == array("q", [1, 3])
        assert reports["new"].times.device == {}
        assert ratio(reports["legacy"], reports["new"]) == {
            "median": 1.0, "p25": pytest.approx(0.75, rel=1e-3), "p75": pytest.approx(1.5, rel=1e-3),
            "lowest_repetition": 1.0, "highest_repetition": 1.0,
        }  # fmt: skip
        assert ratio(reports["legacy"], reports["legacy"])["median"] == 1.0
        summary = summarise(reports["new"])
        assert summary["clear_share"] == 4 / (4 + 4 + 5 * 3500)
        latency = summary["latency_us"]
        percentiles = latency["recurrent_step"].pop("percentiles")
        assert (len(percentiles), percentiles[0], percentiles[50], percentiles[100]) == (101, 2.501, 5.001, 10.001)
        assert latency["recurrent_step"] == {
            "p50": 5.001,
            "p95": pytest.approx(np.percentile([2.501, 5.001, 10.001], 95)),
            "p99": pytest.approx(np.percentile([2.501, 5.001, 10.001], 99)),
            "samples": 3,
        }
        assert latency["store"]["p50"] == pytest.approx(0.75)
        assert latency["clear"].pop("percentiles")[::50] == [0.001, 0.002, 0.003]
        assert latency["clear"]["samples"] == 2

    def test_repetitions_stay_apart(self, three_steps):
        replay = Replay(
            three_steps, CacheConfig(THREE_STEPS), ["new"], stopwatch=FakeStopwatch({"new": [100, 200, 300]})
        )
        times = replay.run(3)["new"].times
        assert len(times.step) == 3
        assert times.step[0] == array("d", [501, 1001, 1501])
        assert times.step[1:] == [array("d", [5 + 1 / 3] * 3)] * 2
        assert len(times.host["assemble"]) == 3 * 4

    def test_a_device_clock_is_kept_beside_the_host_clock(self, three_steps):
        stopwatch = FakeStopwatch({"new": [100, 200, 300]}, device=0.5)
        report = Replay(three_steps, CacheConfig(THREE_STEPS), ["new"], stopwatch=stopwatch).run(1)["new"]
        assert report.times.step == [array("d", [501, 1001, 1501])]
        assert report.times.step_device == [array("d", [250.5, 500.5, 750.5])]
        assert report.times.device["assemble"] == array("d", [0.5, 50, 100, 150])
        assert summarise(report)["device_latency_us"]["recurrent_step"]["p50"] == 0.5005

    def test_nothing_is_timed_without_repetitions(self, three_steps):
        class NoStopwatch:
            def time(self, call, *args):
                raise AssertionError("timed")

        report = Replay(three_steps, CacheConfig(THREE_STEPS), ["new"], stopwatch=NoStopwatch()).run(0)["new"]
        assert report.times is None
        assert report.verification.outcomes.total.total() > 0


class SpyStopwatch:
    """Notes which backend's what was called, and whether anything else went on meanwhile."""

    def __init__(self):
        self.calls = []
        self.running = False
        self.collecting = []

    def time(self, call, *args):
        assert not self.running
        self.calls.append((backend_of(call, args).name, call, args))
        self.collecting.append(gc.isenabled())
        self.running = True
        try:
            return call(*args), (1, None)
        finally:
            self.running = False


class TestTimedPass:
    def test_backends_alternate(self, three_steps):
        spy = SpyStopwatch()
        Replay(three_steps, CacheConfig(THREE_STEPS), ["legacy", "new"], stopwatch=spy).run(1)
        turns = [name for name, _, _ in spy.calls]
        order = [turns[0]] + [after for before, after in pairwise(turns) if before != after]
        # Four steps: legacy new, new legacy, legacy new, new legacy; equal neighbours are one turn here. Then clears.
        assert order == ["legacy", "new", "legacy", "new", "legacy", "new"]
        assert Counter(turns) == {"legacy": 21, "new": 21}
        assert turns[:5] == ["legacy"] * 5
        assert turns[5:15] == ["new"] * 10

    def test_only_the_backend_itself_is_timed(self, three_steps, monkeypatch):
        spy = SpyStopwatch()
        for name in ("generate", "append", "assembled", "stored"):
            original = getattr(FillerContent, name)

            def watched(*args, original=original):
                assert not spy.running
                return original(*args)

            monkeypatch.setattr(FillerContent, name, watched)
        inputs = Latents.inputs

        def watched_inputs(*args):
            assert not spy.running
            return inputs(*args)

        monkeypatch.setattr(Latents, "inputs", watched_inputs)
        Replay(three_steps, CacheConfig(THREE_STEPS), ["new"], stopwatch=spy).run(1)
        names = [call.__name__ for _, call, _ in spy.calls]
        root = ["look_up", "assemble", "hash_states", "store", "<lambda>"]
        step = ["hash_states", "look_up", "assemble", "hash_states", "store"]
        assert names == [*root, *step * 3, "clear_recur_cache"]

    def test_both_backends_are_asked_the_same(self, three_steps):
        spy = SpyStopwatch()
        Replay(three_steps, CacheConfig(THREE_STEPS), ["legacy", "new"], stopwatch=spy).run(1)

        def stored(name):
            return [args for each, call, args in spy.calls if each == name and call.__name__ == "store"]

        assert stored("legacy") == stored("new")
        assert len(stored("new")) == 4

    def test_garbage_is_not_collected_while_the_clock_runs(self, three_steps):
        spy = SpyStopwatch()
        assert gc.isenabled()
        Replay(three_steps, CacheConfig(THREE_STEPS), ["new"], stopwatch=spy).run(2)
        assert not any(spy.collecting)
        assert gc.isenabled()

    def test_garbage_collection_is_on_again_after_an_error(self, three_steps):
        class Broken:
            def time(self, call, *args):
                raise OSError("the clock stopped")

        with pytest.raises(OSError, match="the clock stopped"):
            Replay(three_steps, CacheConfig(THREE_STEPS), ["new"], stopwatch=Broken()).run(1)
        assert gc.isenabled()

    def test_garbage_collection_stays_off_for_a_caller_who_had_it_off(self, three_steps):
        gc.disable()
        try:
            Replay(three_steps, CacheConfig(THREE_STEPS), ["new"], stopwatch=SpyStopwatch()).run(1)
            assert not gc.isenabled()
        finally:
            gc.enable()

    def test_warmed_backends_allocate_nothing_more(self, three_steps):
        built = []

        def make(name, config):
            built.append(make_backend(name, config))
            return built[-1]

        reserved = []

        class Watch(SpyStopwatch):
            def time(self, call, *args):
                reserved.append(sum(backend_of(call, args).bytes_reserved.values()))
                return super().time(call, *args)

        Replay(three_steps, CacheConfig(THREE_STEPS), ["new"], make=make, stopwatch=Watch()).run(2)
        assert len(built) > 1  # checked, warmed: on backends of their own
        assert len(set(reserved)) == 1


class TestReplay:
    def test_a_backend_named_twice(self, three_steps):
        with pytest.raises(ValueError, match="named twice"):
            Replay(three_steps, CacheConfig(THREE_STEPS), ["new", "legacy", "new"])

    def test_an_unknown_backend_is_refused_before_anything_runs(self, three_steps):
        with pytest.raises(ValueError, match="unknown backend 'newer': choose one of"):
            Replay(three_steps, CacheConfig(THREE_STEPS), ["new", "newer"])

    def test_progress_ends_at_the_last_step_of_every_pass(self, three_steps):
        told = []
        replay = Replay(
            three_steps,
            CacheConfig(THREE_STEPS),
            ["legacy", "new"],
            stopwatch=SpyStopwatch(),
            progress=lambda *what: told.append(what),
        )
        replay.run(2)
        assert [what for what, done, total in told if done == total] == [
            "check what legacy returns", "check what new returns", "warm up legacy", "warm up new",
            "time all in turns, 1 of 2", "time all in turns, 2 of 2",
        ]  # fmt: skip
        assert {total for _, _, total in told} == {4}

    def test_steps_are_made_of_the_four_operations_of_a_step(self, three_steps):
        verification = Replay(three_steps, CacheConfig(THREE_STEPS), ["new"]).verify("new")
        assert len(verification.step_counts) == 3
        in_steps = sum(each.tensor_ops for each in verification.step_counts)
        assert 0 < in_steps < sum(verification.counts[name].tensor_ops for name in STEP_OPERATIONS)
