"""Real training runs of LightZero 0.2.0, small ones. Run by ``tox -e lightzero``."""

import pytest

pytest.importorskip("lzero", reason="LightZero is not installed: tox -e lightzero")

from kvbench.training.run import TrainingSettings, train
from kvbench.training.table import verdicts

WORLD_MODEL_CFG = "policy.model.world_model_cfg"
ENVS = {"collector_env_num": 2, "evaluator_env_num": 1}
SMALL = {
    "policy.num_simulations": 6, "policy.batch_size": 16, "policy.eval_freq": 10**6, "policy.replay_ratio": 1,
    "policy.n_episode": 2, "env.n_evaluator_episode": 1, f"{WORLD_MODEL_CFG}.env_num": 2,
    f"{WORLD_MODEL_CFG}.num_layers": 1,
    **{f"{place}.{name}": number for place in ("env", "policy", WORLD_MODEL_CFG) for name, number in ENVS.items()},
}  # fmt: skip
# A user's file, whose model forgets all contexts before its 200th recurrent inference.
FORGETFUL = """
from zoo.classic_control.cartpole.config.cartpole_unizero_config import create_config, main_config
from lzero.model.unizero_world_models.world_model import WorldModel

infer, done = WorldModel.forward_recurrent_inference, []

def forgetful(model, *args, **kwargs):
    done.append(None)
    if len(done) == 200:
        model.past_kv_cache_recurrent_infer.clear()
        for cache in model.past_kv_cache_init_infer_envs:
            cache.clear()
    return infer(model, *args, **kwargs)

WorldModel.forward_recurrent_inference = forgetful
"""


def trained(folder, *backends, config="cartpole", env_steps=100, validates=False, **settings):
    changes = {f"{WORLD_MODEL_CFG}.{name}": value for name, value in settings.items()}
    return train(
        TrainingSettings(config, SMALL | changes, backends, env_steps, seed=0, threads=1, validates=validates), folder
    )


@pytest.mark.slow
def test_the_same_training_with_every_number_the_same(tmp_path):
    results = trained(tmp_path / "runs", "legacy", "new:paged-exact")
    legacy, new = results.backends
    assert new.first_difference is None
    assert new.distinct_keys > 0.5
    assert min(new.env_steps, legacy.learn_steps) >= 100
    assert (new.returns, new.losses) == (legacy.returns, legacy.losses)
    assert (new.lookups, new.hit_rate) == (legacy.lookups, legacy.hit_rate)
    assert 0 < new.cache_bytes < legacy.cache_bytes
    assert 0 < new.cache_share < 1


@pytest.mark.slow
def test_a_recurrent_miss_ends_lightzeros_own_cache_and_no_other(tmp_path):
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    config = str(tmp_path / "forgetful.py")
    results = trained(tmp_path / "runs", "legacy", "new:paged-exact", config=config, env_steps=40)
    legacy, new = results.backends
    assert legacy.ended_with.startswith("TypeError at a recurrent miss")
    assert legacy.env_steps > 0
    assert new.ended_with is None
    assert new.first_difference is None
    assert new.miss_rate > 0
    assert new.returns
    assert verdicts(results)[0].startswith("legacy ended after")


@pytest.mark.slow
def test_a_small_pool_misses_and_training_goes_on(tmp_path):
    (new,) = trained(tmp_path / "runs", "new", env_steps=60, recur_pool_size=3).backends
    assert new.miss_rate > 0.01
    assert new.env_steps >= 60
    assert new.returns


@pytest.mark.slow
def test_a_validated_run_has_its_report(tmp_path):
    (new,) = trained(tmp_path / "runs", "new:paged-exact", env_steps=60, validates=True).backends
    report = new.validation
    assert report.compared == report.lookups - report.stale_hits > 0
    assert (report.largest_difference, report.only_primary, report.only_shadow) == (0, 0, 0)
