"""Playing: searches, one after the other, in seeded stand-ins for environments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kvcache.world_model.inference import Inference
from kvcache.world_model.model import FIRST_STEP, WorldModel
from kvcache.world_model.search import Search, SearchConfig, SearchResult

__all__ = ["Played", "SyntheticEnv", "play"]


class SyntheticEnv:
    """An environment of no meaning: each observation is a fixed random function of the last one and the action.

    The same actions lead to the same observations; no two environments, seeds or actions to the same ones.

    Args:
        observation_shape: of an observation.
        seed: what the function and the first observation are drawn from.
        episode_length: steps after which it is over.
    """

    def __init__(self, observation_shape: tuple[int, ...], seed: Sequence[int], episode_length: int) -> None:
        self._seed = list(seed)
        self._shape = observation_shape
        self.episode_length = episode_length
        self._episode = 0
        self.reset()

    def reset(self) -> None:
        """Begin the next episode."""
        self._history = [self._episode]
        self._episode += 1
        self.timestep = 0

    def step(self, action: int) -> None:
        """Do ``action``."""
        self._history.append(int(action))
        self.timestep += 1

    @property
    def is_over(self) -> bool:
        return self.timestep >= self.episode_length

    @property
    def observation(self) -> np.ndarray:
        """``[*observation_shape]``, float32."""
        # The whole history is the seed: old actions still have an effect.
        return np.random.default_rng([*self._seed, *self._history]).standard_normal(self._shape).astype(np.float32)


@dataclass(frozen=True)
class Played:
    """One search of all environments.

    Attributes:
        roots: what the model said of the observations.
        result: what the search decided.
        timesteps: ``[B]``, of the observations.
    """

    roots: Inference
    result: SearchResult
    timesteps: list[int]


def play(
    model: WorldModel,
    searches: int,
    seed: int,
    config: SearchConfig | None = None,
    episode_length: int = 20,
    search: Search | None = None,
) -> Iterator[Played]:
    """That many searches of all the model's environments, each followed by the action it chose.

    Environments differ in the length of their episodes, so that they begin anew at different times: by one step each.

    Args:
        model: its caches are cleared first.
        searches: how many.
        seed: of observations, noise and choices.
        config: of the search.
        episode_length: steps of environment 0's episodes.
        search: the one to run, in the place of one of ``config``.
    """
    search, count = search or Search(model, config), model.geometry.env_num
    shape = model.config.observation_shape
    envs = [SyntheticEnv(shape, (seed, env), episode_length + env) for env in range(count)]
    generators = [np.random.default_rng([seed, env]) for env in range(count)]
    model.clear_caches()
    latents, actions = None, [FIRST_STEP] * count
    for _ in range(searches):
        observations, timesteps = np.stack([env.observation for env in envs]), [env.timestep for env in envs]
        roots = model.forward_initial_inference(observations, latents, actions, timesteps=timesteps)
        result = search.run(roots, generators, timesteps=timesteps)
        yield Played(roots, result, timesteps)
        latents, actions = roots.latents, result.actions.tolist()
        for number, env in enumerate(envs):
            env.step(actions[number])
            if env.is_over:
                env.reset()
                actions[number] = FIRST_STEP
