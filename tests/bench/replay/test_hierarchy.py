"""Which pools a lookup asks, a store writes and a clear empties."""

import pytest

from kvbench.replay.hierarchy import INIT, RECUR, Hierarchy
from kvbench.trace.steps import Step
from kvcache import Scope


@pytest.fixture
def pools():
    return Hierarchy(lambda kind: [kind])


def test_a_root_asks_its_init_pool_and_a_node_the_recurrent_one_too(pools):
    assert pools.asked(1, Scope.ROOT) == [(INIT, [INIT])]
    assert pools.asked(1, Scope.NODE) == [(INIT, [INIT]), (RECUR, [RECUR])]


def test_each_environment_has_its_init_pool_and_all_share_the_recurrent_one(pools):
    assert pools.written(0, Scope.ROOT) is pools.asked(0, Scope.NODE)[0][1]
    assert pools.written(0, Scope.ROOT) is not pools.written(1, Scope.ROOT)
    assert pools.written(0, Scope.NODE) is pools.written(1, Scope.NODE) is pools.asked(2, Scope.NODE)[1][1]


@pytest.mark.parametrize(("scope", "kinds"), [("init", [INIT, INIT]), ("recur", [RECUR]), ("all", [INIT, INIT, RECUR])])
def test_a_clear_empties_the_pools_of_its_scope(pools, scope, kinds):
    for env in (0, 1):
        pools.written(env, Scope.ROOT)
    assert [pool[0] for pool in pools.cleared(scope)] == kinds


def test_a_step_empties_what_it_names_and_single_init_pools(pools):
    written = {env: pools.written(env, Scope.ROOT) for env in (0, 1, 2)}
    step = Step(Scope.NODE, 0, 0, clears=["recur"], cleared_envs=[2, 0])
    recur = pools.written(0, Scope.NODE)
    assert list(map(id, pools.cleared_by(step))) == list(map(id, [recur, written[2], written[0]]))
