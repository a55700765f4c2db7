"""Playing: stand-ins for environments, and searches in them one after the other."""

from dataclasses import replace

import numpy as np
import pytest
from test_model import model_of

from kvcache.geometry import GEOMETRIES
from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig
from kvcache.world_model.play import SyntheticEnv, play


def test_stand_ins_for_environments_depend_on_their_seed_and_all_that_was_done():
    def after(seed, *actions):
        env = SyntheticEnv((3,), seed, 4)
        for action in actions:
            env.step(action)
        return env.observation.tolist()

    assert after((0, 1), 2, 0) == after((0, 1), 2, 0)
    assert len({tuple(after(*each)) for each in [((0, 1), 2, 0), ((0, 1), 1, 0), ((0, 2), 2, 0), ((0, 1), 2)]}) == 4
    env = SyntheticEnv((3,), (0, 0), 2)
    first = env.observation.tolist()
    env.step(0)
    assert not env.is_over
    env.step(0)
    assert env.is_over
    env.reset()
    assert env.timestep == 0
    assert env.observation.tolist() != first  # another episode


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry_can_be_played(name):
    geometry = replace(GEOMETRIES[name], env_num=2)
    model = WorldModel(WorldModelConfig(geometry, use_new_cache_manager=True))
    (search,) = play(model, 1, 0, SearchConfig(num_simulations=3))
    assert np.isfinite(search.result.values).all()


def test_environments_begin_anew_at_different_times():
    searches = list(play(model_of({}), 9, 0, SearchConfig(num_simulations=2), episode_length=3))
    assert [each.timesteps for each in searches] == [
        [0, 0, 0], [1, 1, 1], [2, 2, 2], [0, 3, 3], [1, 0, 4], [2, 1, 0], [0, 2, 1], [1, 3, 2], [2, 0, 3]
    ]  # fmt: skip
    assert [each.roots.sizes[0] for each in searches] == [0, 1, 3, 0, 1, 3, 0, 1, 3]
