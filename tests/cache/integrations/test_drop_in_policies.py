"""The drop-in under LightZero's own policies: their trees, their resets, and what they clear."""

import contextlib
import io

import numpy as np
import pytest
import torch

pytest.importorskip("lzero", reason="LightZero is not installed: tox -e lightzero")

from lightzero_driver import ACTIONS, ENVS, OBSERVATION, is_main, make_model

from kvcache.integrations import lightzero

pin = pytest.importorskip("kvbench.record.lightzero_pinning", reason="this pins the seed of LightZero's tree").pin
pin(0)  # before the tree is loaded

EXACT = {"use_new_cache_manager": True, "cache_exact_layout": True}
EVALUATED = 2  # environments; collection has ENVS


@pytest.fixture(autouse=True)
def installed():
    lightzero.install()
    yield
    lightzero.uninstall()


def make_policy(continuous=False, **config):
    """A policy that collects and evaluates with one model of random weights, compiled where LightZero does so."""
    from lzero.policy.sampled_unizero import SampledUniZeroPolicy
    from lzero.policy.unizero import UniZeroPolicy

    policy = SampledUniZeroPolicy if continuous else UniZeroPolicy
    cfg = policy.default_config()
    cfg.model.update(observation_shape=OBSERVATION, action_space_size=ACTIONS, model_type="mlp",
                     continuous_action_space=continuous, num_of_sampled_actions=4)  # fmt: skip
    cfg.update(cuda=False, device="cpu", collector_env_num=ENVS, evaluator_env_num=EVALUATED, num_simulations=6,
               collect_num_simulations=6, eval_num_simulations=6, env_type="not_board_games", mcts_ctree=True,
               multi_gpu=False, empty_cuda_cache_on_cache_reset=False)  # fmt: skip
    model = make_model(continuous=continuous, **config)
    with contextlib.redirect_stdout(io.StringIO()):
        return policy(cfg, model=model, enable_field=["learn", "collect", "eval"])


def played(policy, modes=3, steps=5):
    """Visit counts, values and actions of episodes that are collected, evaluated and ended as LightZero's workers do.

    As in segment collection, an environment ends alone, and a batch is what is ready.
    """
    _seed()
    found, collects = [], (policy.collect_mode, ENVS)
    with contextlib.redirect_stdout(io.StringIO()):
        for mode, envs in (collects, (policy.eval_mode, EVALUATED), collects)[:modes]:
            mode.reset()
            for step in range(steps):
                found += _step(mode, list(range(envs)), step)
            for env in range(envs):  # ``current_steps`` at which 0.2.0 clears
                mode.reset(env_id=env, current_steps=200, reset_init_data=False)
            found += _step(mode, list(range(envs)), steps)
            mode.reset([envs - 1])
            found += _step(mode, list(range(envs)), 0)
    return found


def _seed():
    pin(0)
    torch.manual_seed(0)
    np.random.seed(0)


def _step(mode, ready, step):
    observations = torch.from_numpy(np.random.standard_normal((len(ready), OBSERVATION)).astype(np.float32))
    mask = [np.ones(ACTIONS) for _ in ready]
    numbers = {"to_play": [-1 for _ in ready], "ready_env_id": np.array(ready), "timestep": np.full(len(ready), step)}
    if mode.forward.__name__ == "_forward_collect":
        numbers |= {"temperature": 1.0, "epsilon": 0.0}
    output = mode.forward(observations, mask, **numbers)
    return [
        np.concatenate(
            [np.ravel(output[env][name]) for name in ("visit_count_distributions", "searched_value", "action")]
        )
        for env in ready
    ]


def test_what_a_policy_does_is_the_same():
    theirs = played(make_policy())
    ours_policy = make_policy(**EXACT)
    ours = played(ours_policy)
    assert all(map(np.array_equal, ours, theirs))
    assert len({each.tobytes() for each in theirs}) > len(theirs) / 2
    backend = lightzero.backend_of(ours_policy._collect_model)
    assert backend.hierarchy_stats.hits > 0
    assert sum(pool.stats.hits for pool in backend.init_pools) > 0


def test_sampled_unizero():
    """Its tree samples actions from the clock, so that no two runs are the same: the caches of one are compared."""
    policy = make_policy(continuous=True, **EXACT, cache_validation_mode=True)
    played(policy, modes=1 if is_main() else 3)  # main's sampled policy does not forget the rows of another mode
    report = lightzero.backend_of(policy._collect_model).report
    assert report.compared > 0
    assert report.largest_difference == 0


@pytest.mark.skipif(not is_main(), reason="LightZero 0.2.0 starts a batch only as a whole")
def test_an_environment_of_main_begins_alone():
    theirs, ours = (_alone(make_policy(**config)) for config in ({}, EXACT))
    assert all(map(np.array_equal, ours, theirs))


def _alone(policy):
    _seed()
    mode, found = policy.collect_mode, []
    mode.reset()
    with contextlib.redirect_stdout(io.StringIO()):
        for step in range(6):
            if step == 3:
                mode.reset([1])
            found += _step(mode, [[0, 1, 2], [0, 1], [1, 2]][step % 3], step)
    return found
