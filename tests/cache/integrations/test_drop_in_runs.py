"""Whole training runs in LightZero 0.2.0, in the modes that a search alone does not show."""

import subprocess
import sys

import pytest

pytest.importorskip("lzero", reason="LightZero is not installed: tox -e lightzero")
pytest.importorskip("kvbench.cli.train", reason="this compares training runs")

from lightzero_driver import is_main

SMALL = {
    "policy.num_simulations": 6, "policy.model.world_model_cfg.num_simulations": 6, "policy.batch_size": 8,
    "policy.collector_env_num": 3, "env.collector_env_num": 3, "policy.model.world_model_cfg.env_num": 3,
    "policy.evaluator_env_num": 2, "env.evaluator_env_num": 2, "env.n_evaluator_episode": 2,
}  # fmt: skip
SEGMENTS = {
    "policy.num_segments": 3, "policy.game_segment_length": 10, "policy.train_start_after_envsteps": 0,
    "policy.eval_freq": 2000, "policy.reanalyze_batch_size": 4, "policy.reanalyze_partition": 0.75,
    "policy.buffer_reanalyze_freq": 0.5,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(is_main(), reason="kvbench trains on LightZero 0.2.0")
@pytest.mark.parametrize("mode", [{}, SEGMENTS], ids=["episodes", "segments"])
def test_reanalysis_and_fewer_environments_of_evaluation(mode):
    """Targets are searched again, in a batch and in the buffer. Two environments are evaluated, three collect."""
    settings = {**SMALL, **mode, "policy.reanalyze_ratio": 0.25}
    command = [sys.executable, "-m", "kvbench", "train", "lightzero", "--env", "cartpole", "--env-steps", "80",
               "--backend", "legacy", "--backend", "new:paged-exact"]  # fmt: skip
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    assert "identical to legacy in every number" in " ".join(result.stdout.split()), result.stdout + result.stderr
