"""What makes no sense is refused by name, before torch or a cache sees it, and changes nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_model import GEOMETRY, Episode, far, model_of, observations

from kvcache.geometry import Geometry
from kvcache.world_model import Search, SearchConfig, WorldModel, WorldModelConfig
from kvcache.world_model.config import LARGEST_SEED

SEEN, LATENTS = observations(3, 1), observations(3, 2, shape=(1, 32))

both_caches = pytest.mark.parametrize("cache", [{}, {"use_new_cache_manager": True}], ids=["legacy", "new"])


def table(*rows):
    """Parameters, each row named by its message."""
    return pytest.mark.parametrize(("given", "message"), [pytest.param(*row, id=row[1][:50]) for row in rows])


def refused(method, given, message):
    with pytest.raises(ValueError, match=message):
        method(**given)


COMMON = [
    ({"envs": [0, 1]}, r"envs must be \[3\], got \[2\]"),
    ({"envs": 0}, r"envs must be \[3\], got \[\]"),
    ({"envs": [0, 1, 3]}, r"envs must be from 0 to 2, got \[0, 1, 3\]"),
    ({"envs": [0, 1, -1]}, r"envs must be from 0 to 2, got \[0, 1, -1\]"),
    ({"envs": ["a", "b", "c"]}, r"envs must be integers, got \['a', 'b', 'c'\]"),
    ({"timesteps": [0, 1]}, r"timesteps must be \[3\], or one for all, got \[2\]"),
    ({"timesteps": [0, 1, -1]}, r"timesteps must be from 0 to \d+, got \[0, 1, -1\]"),
    ({"timesteps": 0.5}, "timesteps must be integers, got 0.5"),
    ({"timesteps": math.nan}, "timesteps must be integers, got nan"),
    ({"timesteps": 2**70}, "timesteps must be integers, got 1180591620717411303424"),
    ({"timesteps": 2**63}, "timesteps must be from 0 to"),
]


@both_caches
@table(
    *COMMON,
    ({"observations": SEEN[:, :3]}, r"observations must be \[any, 4\], got \[3, 3\]"),
    ({"observations": SEEN[0]}, r"observations must be \[any, 4\], got \[4\]"),
    ({"observations": 1.5}, r"observations must be \[any, 4\], got \[\]"),
    ({"observations": SEEN[:0]}, r"observations is empty, \[0, 4\]: a batch has at least one row"),
    ({"observations": SEEN.astype(complex)}, "observations must be real numbers, got complex128"),
    ({"observations": torch.zeros(3, 4, dtype=torch.complex64)}, "observations must be real numbers, got torch.comp"),
    ({"observations": SEEN.astype(str)}, "observations must be real numbers, got <U"),
    ({"observations": [[1, 2, 3, 4], [1]]}, "observations must be real numbers, got object"),
    ({"observations": np.repeat(SEEN, 2, axis=0)}, r"envs must be from 0 to 2, got \[0, 1, 2, 3, 4, 5\]"),
    ({"last_latents": LATENTS[:2]}, r"last_latents must be \[3, 1, 32\], got \[2, 1, 32\]"),
    ({"last_latents": LATENTS[..., :31]}, r"last_latents must be \[3, 1, 32\], got \[3, 1, 31\]"),
    ({"last_latents": LATENTS[:, 0]}, r"last_latents must be \[3, 1, 32\], got \[3, 32\]"),
    ({"last_latents": LATENTS * 1j}, "last_latents must be real numbers, got complex"),
    ({"last_latents": None}, "row 1 is not at its first step: its last_actions, 3, needs last_latents"),
    ({"last_actions": [-1, 3]}, r"last_actions must be \[3\], got \[2\]"),
    ({"last_actions": [-1, 3, 6]}, r"last_actions must be from -1 to 5, got \[-1, 3, 6\]"),
    ({"last_actions": [-2, 3, 5]}, r"last_actions must be from -1 to 5, got \[-2, 3, 5\]"),
    ({"last_actions": [-1, 3, 2.5]}, r"last_actions must be integers, got \[-1, 3, 2.5\]"),
)
def test_initial_inference(cache, given, message):
    model = model_of(cache)
    right = {"observations": SEEN, "last_latents": LATENTS, "last_actions": [-1, 3, 5], "timesteps": [0, 1, 1]}
    refused(model.forward_initial_inference, right | given, message)
    assert far(model.forward_initial_inference(**right), model_of(cache).forward_initial_inference(**right)) == 0


@both_caches
@table(
    *COMMON,
    ({"latents": LATENTS[:0]}, r"latents is empty, \[0, 1, 32\]: a batch has at least one row"),
    ({"latents": LATENTS[..., :31]}, r"latents must be \[any, 1, 32\], got \[3, 1, 31\]"),
    ({"latents": LATENTS[:, 0]}, r"latents must be \[any, 1, 32\], got \[3, 32\]"),
    ({"latents": None}, "latents must be real numbers, got object"),
    ({"actions": [0, 1]}, r"actions must be \[3\], got \[2\]"),
    ({"actions": 0}, r"actions must be \[3\], got \[\]"),
    ({"actions": [0, 1, 6]}, r"actions must be from 0 to 5, got \[0, 1, 6\]"),
    ({"actions": [0, 1, -1]}, r"actions must be from 0 to 5, got \[0, 1, -1\]"),
    ({"actions": torch.tensor([0, 1, 6])}, r"actions must be from 0 to 5, got \[0, 1, 6\]"),
    ({"actions": np.ones(3)}, "actions must be integers, got array"),
    ({"actions": np.ones(3, dtype=bool)}, "actions must be integers, got array"),
    ({"actions": [0, [1], 2]}, "actions must be integers"),
)
def test_recurrent_inference(cache, given, message):
    model = model_of(cache)
    right = {"latents": LATENTS, "actions": [0, 1, 2]}
    refused(model.forward_recurrent_inference, right | given, message)
    assert far(model.forward_recurrent_inference(**right), model_of(cache).forward_recurrent_inference(**right)) == 0


@table(
    ({"latents": np.zeros((1, 5, 32)), "actions": [[0] * 4]}, "a window of 9 tokens is longer than a context of 8"),
    ({"actions": [[]]}, r"actions must be \[1, 1\], got \[1, 0\]"),
    ({"actions": [[1], [2]]}, r"actions must be \[1, 1\], got \[2, 1\]"),
    ({"actions": [[6]]}, r"actions must be from 0 to 5, got \[\[6\]\]"),
    ({"actions": [[0.5]]}, r"actions must be integers, got \[\[0.5\]\]"),
    ({"latents": np.zeros((1, 2, 31))}, r"latents must be \[any, any, 32\], got \[1, 2, 31\]"),
    ({"latents": np.zeros((1, 0, 32))}, r"latents is empty, \[1, 0, 32\]"),
    ({"timesteps": -1}, "timesteps must be from 0 to"),
    ({"timesteps": [1, 2]}, r"timesteps must be \[1\], or one for all, got \[2\]"),
)
@pytest.mark.parametrize("positions", ["rotary", "absolute"])
def test_inference_without_a_cache(positions, given, message):
    refused(
        model_of({}, positions=positions).forward_without_cache,
        {"latents": np.zeros((1, 2, 32)), "actions": [[1]]} | given,
        message,
    )


@table(
    ({"timesteps": [0, 1]}, r"timesteps must be \[3\], or one for all, got \[2\]"),
    ({"timesteps": 0.5}, "timesteps must be integers, got 0.5"),
    ({"envs": [0, 1]}, r"envs must be \[3\], got \[2\]"),
    ({"envs": [0, 1, 3]}, "envs must be from 0 to 2"),
    ({"generators": [np.random.default_rng(0)]}, "there are 3 roots and 1 generators: each root has its own"),
)
def test_search(given, message):
    model = model_of({})
    right = {"roots": Episode(model).step(), "generators": [np.random.default_rng(env) for env in range(3)]}
    refused(Search(model, SearchConfig(2)).run, right | given, message)


@both_caches
@table(
    ({"geometry": "pong"}, r"geometry must be a Geometry, such as GEOMETRIES\['pong'\], got 'pong'"),
    ({"geometry": replace(GEOMETRY, context_length=1)}, "a context of 1 token has no room for one observation and one"),
    ({"geometry": Geometry("odd", 1, 2, 6, 8, 1, 1, "rotary")}, "head_dim 3 is odd"),
    ({"observation_shape": (3, 4)}, r"observation_shape must be \(features,\) or .*, got \(3, 4\)"),
    ({"observation_shape": (0,)}, r"observation_shape must be .*, got \(0,\)"),
    ({"observation_shape": (4.0,)}, r"observation_shape must be .*, got \(4.0,\)"),
    ({"observation_shape": 4}, "observation_shape must be .*, got 4"),
    ({"action_space_size": 0}, "action_space_size must be a positive integer, got 0"),
    ({"action_space_size": 2.5}, "action_space_size must be a positive integer, got 2.5"),
    ({"action_space_size": True}, "action_space_size must be a positive integer, got True"),
    ({"support_size": -1}, "support_size must be a positive integer, got -1"),
    ({"support_size": math.nan}, "support_size must be a positive integer, got nan"),
    ({"cache_log_interval": 0}, "cache_log_interval must be a positive integer, got 0"),
    ({"cache_log_interval": "10"}, "cache_log_interval must be a positive integer, got '10'"),
    ({"seed": -1}, f"seed must be an integer from 0 to {LARGEST_SEED}, got -1"),
    ({"seed": 2**63}, f"seed must be an integer from 0 to {LARGEST_SEED}, got {2**63}"),
    ({"seed": 1.0}, f"seed must be an integer from 0 to {LARGEST_SEED}, got 1.0"),
    ({"init_pool_size": 0}, "init_pool_size must be a positive integer or None, got 0"),
    ({"recur_pool_size": 2.5}, "recur_pool_size must be a positive integer or None, got 2.5"),
    ({"eviction_strategy": "random"}, "unknown eviction strategy 'random': choose one of fifo, lru, priority"),
    ({"cache_storage": "disk"}, "unknown storage 'disk': choose one of"),
    ({"cache_storage": "slab", "cache_resident_batch": True}, "storage 'slab' has no resident batch"),
    ({"dtype": torch.float64}, "dtype must be one of torch.float32, torch.float16, torch.bfloat16, got torch.float64"),
    ({"dtype": "float16"}, "dtype must be one of .*, got 'float16'"),
    ({"device": "gpu"}, "torch cannot use device 'gpu' here"),
    ({"device": None}, "torch cannot use device None here"),
    ({"device": "cuda:99"}, r"device 'cuda:99' does not exist: torch finds \d+ CUDA devices"),
)
def test_settings_of_a_model(cache, given, message):
    refused(WorldModelConfig, {"geometry": GEOMETRY} | cache | given, message)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none():
    refused(WorldModelConfig, {"device": "cuda"}, "device 'cuda' does not exist: torch finds 0 CUDA devices")


@table(
    ({"num_simulations": 0}, "num_simulations must be a positive integer, got 0"),
    ({"num_simulations": 2.0}, "num_simulations must be a positive integer, got 2.0"),
    ({"num_simulations": math.nan}, "num_simulations must be a positive integer, got nan"),
    ({"num_simulations": True}, "num_simulations must be a positive integer, got True"),
    ({"leaves": 0}, "leaves must be a positive integer, got 0"),
    ({"leaves": 2.5}, "leaves must be a positive integer, got 2.5"),
    ({"discount": 1.1}, "discount must be a number from 0 to 1, got 1.1"),
    ({"discount": -0.1}, "discount must be a number from 0 to 1, got -0.1"),
    ({"discount": True}, "discount must be a number from 0 to 1, got True"),
    ({"discount": "0.9"}, "discount must be a number from 0 to 1, got '0.9'"),
    ({"pb_c_base": 0}, "pb_c_base must be a number at least 1 and finite, got 0"),
    ({"pb_c_base": math.inf}, "pb_c_base must be a number at least 1 and finite, got inf"),
    ({"pb_c_init": -1}, "pb_c_init must be a number at least 0 and finite, got -1"),
    ({"noise_fraction": 2}, "noise_fraction must be a number from 0 to 1, got 2"),
    ({"temperature": -1}, "temperature must be a number at least 0 and finite, got -1"),
    ({"temperature": None}, "temperature must be a number at least 0 and finite, got None"),
    ({"dirichlet_alpha": 0}, "dirichlet_alpha must be positive, got 0"),
    *(
        ({name: math.nan}, f"{name} must be a number .*, got nan")
        for name in ("discount", "pb_c_base", "pb_c_init", "dirichlet_alpha", "noise_fraction", "temperature")
    ),
)
def test_constants_of_a_search(given, message):
    refused(SearchConfig, given, message)


def test_numpys_numbers_are_numbers():
    assert SearchConfig(discount=np.float32(0.5), temperature=np.int64(1)).discount == 0.5


def test_the_largest_seed_and_other_kinds_of_integers_and_arrays_are_taken():
    model = WorldModel(WorldModelConfig(GEOMETRY, seed=LARGEST_SEED))
    wanted = model.forward_recurrent_inference(LATENTS, [0, 1, 2], timesteps=3)
    for actions in (np.array([0, 1, 2], dtype=np.uint8), torch.tensor([0, 1, 2]), range(3), (np.int64(0), 1, 2)):
        model.clear_caches()
        assert far(model.forward_recurrent_inference(LATENTS, actions, range(3), timesteps=np.int32(3)), wanted) == 0
    model.clear_caches()
    assert far(model.forward_recurrent_inference(torch.from_numpy(LATENTS), [0, 1, 2], timesteps=[3] * 3), wanted) == 0
