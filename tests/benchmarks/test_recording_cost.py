"""The pairs of ``benchmarks/recording_cost.py``, on a policy that stands in for LightZero's."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import recording_cost
from recording_cost import EndError, Pairs


@pytest.fixture
def observed(monkeypatch):
    """Says whether the present search is observed."""
    state = SimpleNamespace(now=False)

    @contextmanager
    def recorder(pairs):
        state.now = True
        yield
        state.now = False

    monkeypatch.setattr(Pairs, "_recorder", recorder)
    monkeypatch.setattr(recording_cost.time, "thread_time", lambda: state.time)
    state.time = 0.0
    return state


@pytest.mark.parametrize("disturbed", [False, True])
def test_each_search_runs_twice_from_one_state(observed, disturbed):
    calls = []

    def search(data):
        calls.append((data, observed.now, policy.last_batch_obs))
        observed.time += 3.0 if observed.now else 2.0
        policy.last_batch_obs = [data]
        return {0: {"action": np.random.randint(1000) + (disturbed and observed.now)}}

    policy = SimpleNamespace(last_batch_obs=[-1], last_batch_action=[0], _forward_collect=search)
    pairs = Pairs(SimpleNamespace(policy=policy), None, searches=2)
    for data in range(2):
        pairs.forward(data)
    assert calls == [(0, True, [-1]), (0, False, [-1]), (1, False, [0]), (1, True, [0])]
    assert (pairs.ratios, pairs.seconds) == ([1.5, 1.5], [2.0, 2.0])
    assert pairs.same == (0 if disturbed else 2)
    with pytest.raises(EndError):
        pairs.forward(2)
