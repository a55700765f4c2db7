"""Belady's bound that forgives no lost history, judged by search and by real pools."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_curves import any_steps
from traces import TINY, steps_of, synthetic

from kvbench.capacity.bounds import Future
from kvbench.capacity.lines import count_outcomes
from kvbench.capacity.strict import StrictFuture
from kvbench.capacity.symbols import PooledCache
from kvbench.replay.outcomes import Outcome
from kvbench.trace.steps import Step
from kvcache import EvictionStrategy, Scope


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    return steps_of(synthetic(tmp_path_factory.mktemp("traces") / "small", searches=4, transpositions=0.3))


def tree(parents):
    """A search of one environment: the n-th node has the n-th parent; node 0 is the root, in the init pool."""
    steps = [Step(Scope.ROOT, 0, -1, [0], [None], [None], [None], [100], [0], [0], 1)]
    depths = [0]
    for number, parent in enumerate(parents, 1):
        depths.append(depths[parent] + 1)
        meant, key = [100 + parent], [100 + number]
        steps.append(Step(Scope.NODE, 0, number, [0], meant, [parent], [None], key, [number], [depths[number]], 2))
    return steps


def most_right(parents, capacity):
    """By trying, at every store, to keep all entries or all but any one; the new one may be refused."""
    states = {(frozenset(), frozenset([0])): 0}  # held nodes, nodes with their own history -> right lookups
    for number, parent in enumerate(parents, 1):
        after = {}
        for (held, whole), right in states.items():
            found = parent == 0 or (parent in held and parent in whole)
            right_ones, all_held = whole | {number} if found else whole, held | {number}
            for lost in [None, *all_held] if len(all_held) <= capacity else all_held:
                state = all_held - {lost}, right_ones
                after[state] = max(after.get(state, 0), right + found)
        states = after
    return max(states.values())


class TestTheBoundIsTheBest:
    def test_of_all_small_trees(self):
        for parents in product(*(range(number) for number in range(1, 6))):
            for capacity in (1, 2):
                assert StrictFuture(tree(parents), "recur").found_by_belady(capacity) == most_right(parents, capacity)

    def test_a_lost_history_is_not_forgiven(self):
        # Each child of the root is extended twice in turn: in one slot the second cannot be had again after its miss.
        steps = tree([0, 0, 1, 1, 2, 2])
        assert Future(steps, "recur").found_by_belady(1) == 5
        assert StrictFuture(steps, "recur").found_by_belady(1) == 4


class TestNoPolicyPassesIt:
    @pytest.mark.parametrize("pool", ["recur", "init"])
    def test_on_a_search(self, steps, pool):
        future, loose = StrictFuture(steps, pool), Future(steps, pool)
        for slots in (1, 2, 3, 5, 9):
            bound = future.found_by_belady(slots)
            assert bound <= loose.found_by_belady(slots)
            for strategy in EvictionStrategy:
                assert count_outcomes(steps, PooledCache(TINY, strategy.value, {pool: slots}))[Outcome.HIT] <= bound

    @pytest.mark.slow
    @given(any_steps(), st.sampled_from(list(EvictionStrategy)), st.sampled_from(["recur", "init"]), st.integers(1, 3))
    @settings(max_examples=150)
    def test_whatever_is_asked(self, steps, strategy, pool, slots):
        found = count_outcomes(steps, PooledCache(TINY, strategy.value, {pool: slots}))[Outcome.HIT]
        assert found <= StrictFuture(steps, pool).found_by_belady(slots) <= StrictFuture(steps, pool).right

    def test_with_room_for_all_it_is_what_unlimited_pools_find(self, steps):
        future = StrictFuture(steps, "recur")
        unlimited = count_outcomes(steps, PooledCache(TINY, "fifo", {"recur": 1000}))
        assert future.found_by_belady(1000) == future.right >= unlimited[Outcome.HIT] > 0
