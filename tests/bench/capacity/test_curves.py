"""Hit-rate curves are what checked replays count, and no policy passes the bounds."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import COMMITTED, TINY, good_events, spoilt, steps_of, synthetic, write_events

from kvbench.capacity.curves import (
    BOUNDS,
    BYTE_BACKENDS,
    POLICIES,
    capacities_to_try,
    hit_rate_by_bytes,
    hit_rate_curves,
    most_entries,
)
from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import verify_replay
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step, read_steps
from kvcache.backend import Scope
from kvcache.config import CacheConfig
from kvcache.registry import make_backend

OUTCOMES = (Outcome.HIT, Outcome.CONTEXT_MISMATCH, Outcome.STALE_HIT, Outcome.MISS)
COUNTS = ["hit", "context_mismatch", "stale_hit", "miss"]
CONTENTS = Contents(TINY)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "tiny.parquet"
    return steps_of(synthetic(path, searches=6, episode_length=8, transpositions=0.3))


def verified(steps, backend, **config):
    """What a checked replay of the real backend, on real contents, counts."""
    cache = make_backend(backend, CacheConfig(TINY, **config))
    cache.position_shift = CONTENTS.position_shift("cpu", cache.config.dtype)
    total = verify_replay(cache, steps, CONTENTS, Latents(TINY.embed_dim, "cpu")).outcomes.total
    return [total[outcome] for outcome in OUTCOMES]


class TestCurvesAreWhatReplaysCount:
    @pytest.mark.parametrize("strategy", ["fifo", "lru", "priority", "tree"])
    @pytest.mark.parametrize("pool", ["recur", "init"])
    def test_new(self, steps, strategy, pool):
        capacities = [1, 2, 3, 5, 9]
        curve = hit_rate_curves(steps, TINY, capacities, [strategy], pool=pool)
        for slots, row in zip(capacities, curve[COUNTS].values.tolist(), strict=True):
            assert row == verified(steps, "new:private", eviction_strategy=strategy, **{f"{pool}_pool_size": slots})

    @pytest.mark.parametrize("pool", ["recur", "init"])
    def test_legacy(self, steps, pool):
        capacities = [1, 2, 3, 5, 9]
        curve = hit_rate_curves(steps, TINY, capacities, ["legacy"], pool=pool)
        for slots, row in zip(capacities, curve[COUNTS].values.tolist(), strict=True):
            assert row == verified(steps, "legacy", **{f"{pool}_pool_size": slots})
        assert pool == "init" or curve["stale_hit"].max() > 0

    @pytest.mark.parametrize("backend", BYTE_BACKENDS)
    @pytest.mark.parametrize("eviction", ["fifo", "lru", "priority", "tree"])
    def test_bytes(self, steps, backend, eviction):
        budgets = [TINY.entry_bytes() * each // 2 for each in (2, 3, 5, 9, 17)]
        curve = hit_rate_by_bytes(steps, TINY, budgets, [backend], eviction=eviction)
        for budget, row in zip(budgets, curve[COUNTS].values.tolist(), strict=True):
            assert row == verified(steps, backend, eviction_strategy=eviction, recur_pool_bytes=budget)

    @pytest.mark.slow
    def test_the_committed_recording_at_50_slots(self):
        # The README's row: 51.04 / 40.08 / 8.88 / 0 for legacy, 51.04 / 0 / 8.88 / 40.08 for new.
        reader = TraceReader(COMMITTED)
        curve = hit_rate_curves(list(read_steps(reader.events())), reader.header.geometry, [50], ["legacy", "fifo"])
        shares = 100 * curve[["hit_rate", "stale_hit_rate", "context_mismatch_rate", "miss_rate"]]
        assert shares.round(2).values.tolist() == [[51.04, 40.08, 8.88, 0.0], [51.04, 0.0, 8.88, 40.08]]

    def test_a_recorded_miss_goes_on_from_what_was_generated(self, tmp_path):
        # The second simulation misses key 999 in the recorded run, and here: what is stored below it is meant so.
        steps = steps_of(write_events(tmp_path / "good", good_events()))
        assert hit_rate_curves(steps, TINY, [8], ["fifo"])[COUNTS].values.tolist() == [[3, 0, 0, 1]]
        missed = steps_of(write_events(tmp_path / "missed", spoilt(12, hit=False)))
        assert hit_rate_curves(missed, TINY, [8], ["fifo"])[COUNTS].values.tolist() == [[3, 0, 0, 1]]


@st.composite
def any_steps(draw):
    """Steps as no search makes them: few keys, asked for in any pool, stored again, cleared at any time."""
    steps, stores = [], {}
    for number in range(draw(st.integers(3, 12))):
        step = Step(draw(st.sampled_from(Scope)), 0, number, tokens=2)
        for env in draw(st.sampled_from([[0], [1], [0, 1], [1, 0]])):
            key = draw(st.sampled_from([None, 1, 1, 2, 2, 3, 4]))
            step.envs.append(env)
            step.parents.append(key)
            step.nodes.append(draw(st.sampled_from([None, *stores.get(key, [])])))
            step.recorded_hits.append(draw(st.booleans()))
            step.depths.append(draw(st.integers(0, 3)))
        for _ in step.envs:
            step.keys.append(draw(st.integers(1, 4)))
            step.stores.append(10 * number + len(step.stores))
        for key, row in zip(step.keys, step.stores, strict=True):
            stores.setdefault(key, []).append(row)
        step.clears = draw(st.sampled_from([*6 * [[]], ["recur"], ["init"], ["all"]]))
        step.cleared_envs = draw(st.sampled_from([*6 * [[]], [0], [1, 0]]))
        steps.append(step)
    return steps


@pytest.mark.slow
class TestWhateverIsAsked:
    @given(any_steps(), st.sampled_from(["fifo", "lru", "priority", "legacy"]), st.booleans(), st.integers(1, 3))
    @settings(max_examples=150)
    def test_curves_are_what_replays_count(self, steps, policy, of_init, slots):
        pool = "init" if of_init else "recur"
        (row,) = hit_rate_curves(steps, TINY, [slots], [policy], pool=pool)[COUNTS].values.tolist()
        given = {} if policy == "legacy" else {"eviction_strategy": policy}
        backend = "legacy" if policy == "legacy" else "new:private"
        assert row == verified(steps, backend, **given, **{f"{pool}_pool_size": slots})

    @given(any_steps(), st.sampled_from(["fifo", "lru", "priority"]), st.integers(2, 5))
    def test_budgets_are_what_replays_count(self, steps, eviction, halves):
        budget = TINY.entry_bytes() * halves // 2
        (row,) = hit_rate_by_bytes(steps, TINY, [budget], ["new:paged"], eviction=eviction)[COUNTS].values.tolist()
        assert row == verified(steps, "new:paged", eviction_strategy=eviction, recur_pool_bytes=budget)

    @given(any_steps(), st.sampled_from(["recur", "init"]), st.integers(1, 4))
    @settings(max_examples=150)
    def test_no_line_passes_the_bounds(self, steps, pool, slots):
        lines = hit_rate_curves(steps, TINY, [slots], pool=pool).set_index("policy")
        found = lines["hit"] + lines["context_mismatch"]
        assert found.drop(list(BOUNDS)).max() <= found["belady"] <= found["unbounded"]
        assert lines["hit"].drop(list(BOUNDS)).max() <= lines["hit"]["strict"] <= found["belady"]

    @given(any_steps(), st.sampled_from(["recur", "init"]))
    def test_in_pools_that_never_evict_all_lines_meet(self, steps, pool):
        most = max(most_entries(steps, pool="init"), most_entries(steps), 1)
        lines = hit_rate_curves(steps, TINY, [most], pool=pool).set_index("policy")
        found = lines["hit"] + lines["context_mismatch"]
        assert lines["hit"]["strict"] >= lines["hit"]["fifo"]
        new = found.drop(
            ["legacy", "strict"]
        )  # legacy's circle writes a key that it holds into another slot, and evicts for that
        assert new.nunique() == 1


class TestBounds:
    def test_every_policy_stays_below_belady_and_belady_below_unbounded(self, steps):
        for pool in ("recur", "init"):
            capacities = capacities_to_try(most_entries(steps, pool=pool))
            curve = hit_rate_curves(steps, TINY, capacities, pool=pool)
            found = curve.assign(found=curve["hit"] + curve["context_mismatch"])
            by_policy = found.pivot(index="entries", columns="policy", values="found")
            hits = found.pivot(index="entries", columns="policy", values="hit")
            for policy in set(POLICIES) - set(BOUNDS):
                assert (by_policy[policy] <= by_policy["belady"]).all(), (pool, policy)
                assert (hits[policy] <= hits["strict"]).all(), (pool, policy)
            assert (by_policy["belady"] <= by_policy["unbounded"]).all(), pool

    def test_with_room_for_everything_all_lines_meet(self, steps):
        curve = hit_rate_curves(steps, TINY, [most_entries(steps)])
        strict, others = curve[curve["policy"] == "strict"], curve[curve["policy"] != "strict"]
        assert (others["hit"] + others["context_mismatch"]).nunique() == 1
        assert others["miss"].nunique() == 1
        assert strict["hit"].tolist() == others["hit"].tolist()[:1]

    def test_the_bounds_are_no_further_than_they_must_be(self, steps):
        # One slot less than ever needed: Belady still finds more than FIFO, and not all.
        curve = hit_rate_curves(steps, TINY, [2], ["fifo", "belady", "unbounded"]).set_index("policy")["hit"]
        assert curve["fifo"] < curve["belady"] < curve["unbounded"]

    def test_what_the_other_pool_answers_takes_no_slot_of_this(self):
        root = _step("store", 1)
        root.scope = Scope.ROOT
        steps = [root, *(_step(kind, key) for kind, key in (("store", 1), ("store", 2), ("lookup", 2), ("lookup", 1)))]
        assert hit_rate_curves(steps, replace(TINY, env_num=1), [1], ["belady"])["hit"].tolist() == [2]

    @given(
        st.lists(st.tuples(st.sampled_from(["lookup", "store", "clear"]), st.integers(0, 3)), max_size=14),
        st.integers(1, 3),
    )
    @settings(max_examples=150)
    def test_belady_is_the_best_of_all_ways_to_keep(self, requests, capacity):
        steps = [_step(kind, key) for kind, key in requests]
        curve = hit_rate_curves(steps, replace(TINY, env_num=1), [capacity], ["belady"])
        assert curve["hit"].tolist() == [_most_found(requests, capacity)]


def _step(kind, key):
    """One request of the recurrent pool."""
    step = Step(Scope.NODE, 0, 0)
    if kind == "clear":
        step.clears = ["recur"]
    else:
        step.envs, step.depths, step.nodes, step.recorded_hits = [0], [0], [None], [None]
        step.parents = [key if kind == "lookup" else None]
        step.keys, step.stores, step.tokens = ([key], [0], 2) if kind == "store" else ([], [], 0)
    return step


def _most_found(requests, capacity):
    """By trying every set of keys that could be held after every request; a key looked up after a store may return."""
    known = frozenset()
    best = {frozenset(): 0}
    for kind, key in requests:
        if kind == "clear":
            known, best = frozenset(), {frozenset(): max(best.values())}
            continue
        after = {}
        for held, found in best.items():
            gained = found + (kind == "lookup" and key in held)
            available = held | {key} if kind == "store" or key in known else held
            for size in range(min(capacity, len(available)) + 1):
                for kept in itertools.combinations(sorted(available), size):
                    after[frozenset(kept)] = max(after.get(frozenset(kept), 0), gained)
        if kind == "store":
            known |= {key}
        best = after
    return max(best.values())


class TestColumns:
    def test_bytes_are_those_of_full_entries_of_all_environments(self, steps):
        recur = hit_rate_curves(steps, TINY, [3], ["fifo"], itemsize=2)
        init = hit_rate_curves(steps, TINY, [3], ["fifo"], pool="init")
        assert recur["bytes"].tolist() == [3 * TINY.entry_bytes(2)]
        assert init["bytes"].tolist() == [TINY.env_num * 3 * TINY.entry_bytes()]

    def test_outcomes_are_all_lookups(self, steps):
        curve = hit_rate_curves(steps, TINY, [1, 4])
        assert (curve[COUNTS].sum(axis=1) == curve["lookups"]).all()
        rates = curve[[f"{name}_rate" for name in COUNTS]].sum(axis=1)
        assert rates.tolist() == pytest.approx([1.0] * len(curve))

    def test_no_lookups_have_no_rate(self):
        curve = hit_rate_curves([], TINY, [1], ["fifo"])
        assert math.isnan(curve["hit_rate"][0])


class TestSizes:
    def test_the_most_entries_between_clears(self, steps):
        # The recurrent pool is cleared at every root: a search stores one node a simulation and environment.
        assert most_entries(steps) <= TINY.num_simulations * TINY.env_num
        assert most_entries(steps, pool="init") == 6

    def test_sizes_are_spread_and_end_at_the_most(self):
        assert capacities_to_try(200, 6) == [1, 3, 8, 24, 69, 200]
        assert capacities_to_try(3, 12) == [1, 2, 3]
        assert capacities_to_try(7, 1) == [7]

    @pytest.mark.parametrize(("most", "count"), [(0, 3), (3, 0)])
    def test_no_size_at_all_is_refused(self, most, count):
        with pytest.raises(ValueError, match="at least one"):
            capacities_to_try(most, count)


class TestBadInput:
    @pytest.mark.parametrize("capacity", [0, -1, 1.5, True])
    def test_capacities(self, steps, capacity):
        with pytest.raises(ValueError, match="positive integer"):
            hit_rate_curves(steps, TINY, [capacity])

    def test_names(self, steps):
        with pytest.raises(ValueError, match="unknown 'mru': choose out of fifo, lru, priority, s3-fifo, "):
            hit_rate_curves(steps, TINY, [1], ["mru"])
        with pytest.raises(ValueError, match="unknown pool 'wm': choose one of init, recur"):
            hit_rate_curves(steps, TINY, [1], pool="wm")
        with pytest.raises(ValueError, match="unknown 'new:private'"):
            hit_rate_by_bytes(steps, TINY, [10**6], ["new:private"])

    def test_a_budget_below_one_entry(self, steps):
        with pytest.raises(ValueError, match=f"7 bytes hold no entry of 'tiny': one takes {TINY.entry_bytes()}"):
            hit_rate_by_bytes(steps, TINY, [10**6, 7])

    def test_a_geometry_that_keeps_no_past(self, steps):
        with pytest.raises(ValueError, match="keep no past"):
            hit_rate_curves(steps, replace(TINY, context_length=2), [1])
