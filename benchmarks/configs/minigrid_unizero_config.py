"""UniZero on MiniGrid, with a context of 64 tokens: an example of a configuration of one's own.

    kvbench record lightzero --config benchmarks/configs/minigrid_unizero_config.py --output FILE

LightZero 0.2.0 has neither a UniZero configuration for MiniGrid nor, in its wheel, the environment: both are here. The
agent sees 7 x 7 cells in front of it. In the middle of a large empty room all views are alike, so that observations
repeat. Episodes are cut short after 100 steps: long enough to fill the context, short enough for a CPU.
"""

from typing import ClassVar

import gymnasium
import minigrid  # noqa: F401 - registers its environments
import numpy as np
from ding.envs import BaseEnv, BaseEnvTimestep
from ding.utils import ENV_REGISTRY
from easydict import EasyDict

ENV_ID = "MiniGrid-Empty-16x16-v0"
EPISODE_STEPS = 100
OBSERVATION = 7 * 7 * 3
ACTIONS = 3  # left, right, forward: nothing here can be picked up or opened
STEPS = 32  # of an environment, in a context: two tokens each
ENVIRONMENTS = 8


@ENV_REGISTRY.register("minigrid_view", force_overwrite=True)
class MiniGridView(BaseEnv):
    """A MiniGrid environment whose observation is the agent's view, as 147 numbers."""

    config: ClassVar = {"env_id": ENV_ID}

    def __init__(self, cfg):
        self._cfg = cfg
        self._env = None
        self._seed = None

    def reset(self):
        if self._env is None:
            self._env = gymnasium.make(self._cfg.env_id, max_episode_steps=EPISODE_STEPS)
            self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (OBSERVATION,), np.float32)
            self.action_space = gymnasium.spaces.Discrete(ACTIONS)
            self.reward_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        view, _ = self._env.reset(seed=self._seed)
        self._return, self._steps = 0.0, 0
        return self._observation(view)

    def step(self, action):
        view, reward, terminated, truncated, info = self._env.step(int(np.asarray(action).item()))
        self._return += reward
        self._steps += 1
        done = terminated or truncated
        if done:
            info["eval_episode_return"] = self._return
        return BaseEnvTimestep(self._observation(view), np.float32(reward), done, info)

    def seed(self, seed, dynamic_seed=True):
        self._seed = seed

    def close(self):
        if self._env is not None:
            self._env.close()
        self._env = None

    def random_action(self):
        return np.array([self.action_space.sample()])

    def __repr__(self):
        return f"MiniGridView({self._cfg.env_id})"

    def _observation(self, view):
        pixels = view["image"].astype(np.float32).ravel() / 10
        return {
            "observation": pixels,
            "action_mask": np.ones(ACTIONS, np.int8),
            "to_play": -1,
            "timestep": self._steps,
        }


main_config = EasyDict(
    exp_name="minigrid_unizero",
    env={
        "env_id": ENV_ID,
        "collector_env_num": ENVIRONMENTS,
        "evaluator_env_num": 3,
        "n_evaluator_episode": 3,
        "stop_value": 2,  # more than can be had
        "manager": {"shared_memory": False},
    },
    policy={
        "model": {
            "observation_shape": OBSERVATION,
            "action_space_size": ACTIONS,
            "model_type": "mlp",
            "norm_type": "BN",
            "world_model_cfg": {
                "continuous_action_space": False,
                "max_blocks": STEPS,
                "max_tokens": 2 * STEPS,
                "context_length": 2 * STEPS,
                "device": "cpu",
                "action_space_size": ACTIONS,
                "group_size": 8,
                "num_layers": 2,
                "num_heads": 4,
                "embed_dim": 128,
                "env_num": ENVIRONMENTS,
                "obs_type": "vector",
                "norm_type": "BN",
            },
        },
        "model_path": None,
        "num_unroll_steps": STEPS,
        "td_steps": 5,
        "cuda": False,
        "game_segment_length": 50,
        "update_per_collect": None,
        "replay_ratio": 0.1,
        "batch_size": 32,
        "optim_type": "AdamW",
        "piecewise_decay_lr_scheduler": False,
        "learning_rate": 0.0003,
        "num_simulations": 25,
        "reanalyze_ratio": 0.0,
        "n_episode": ENVIRONMENTS,
        "eval_freq": 1_000_000,
        "replay_buffer_size": 100_000,
        "collector_env_num": ENVIRONMENTS,
        "evaluator_env_num": 3,
    },
)

create_config = EasyDict(
    env={"type": "minigrid_view", "import_names": []},
    env_manager={"type": "base"},
    policy={"type": "unizero", "import_names": ["lzero.policy.unizero"]},
)
