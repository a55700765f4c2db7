"""Weights that change under a live cache: contexts of the old ones are never served."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from kvcache import Geometry
from kvcache.world_model import WorldModel, WorldModelConfig

GEOMETRY = Geometry("small", 2, 2, 16, context_length=8, env_num=2, num_simulations=4, positions="absolute")


def model_of(**options):
    return WorldModel(WorldModelConfig(GEOMETRY, **options))


def step(model):
    """What an optimiser does."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)


def average(model):
    """What many exponential moving averages do: torch does not count these writes."""
    for parameter in model.parameters():
        parameter.data.mul_(0.9).add_(0.01)


def from_vector(model):
    vector_to_parameters(parameters_to_vector(model.parameters()) * 1.1, model.parameters())


def load_a_part(model):
    model.transformer.load_state_dict({name: 1.1 * each for name, each in model.transformer.state_dict().items()})


def copy_into_one(model):
    with torch.no_grad():
        weight = next(each for each in model.transformer.parameters() if each.ndim > 1)
        weight.copy_(torch.flip(weight, [0]))


def assign_a_part(model):
    state = {name: 1.1 * each for name, each in model.transformer.state_dict().items()}
    model.transformer.load_state_dict(state, assign=True)


def replace_a_parameter(model):
    linear = next(each for each in model.transformer.modules() if isinstance(each, torch.nn.Linear))
    linear.weight = torch.nn.Parameter(1.5 * linear.weight.detach())


def replace_a_module(model):
    parent, name = next(
        (parent, name)
        for parent in model.transformer.modules()
        for name, each in parent.named_children()
        if isinstance(each, torch.nn.Linear)
    )
    setattr(parent, name, copy.deepcopy(getattr(parent, name)))
    with torch.no_grad():
        getattr(parent, name).weight.mul_(1.5)


def load_all(model):
    model.load_state_dict({name: 1.1 * each for name, each in model.state_dict().items()})


CHANGES = [
    step, average, from_vector, load_a_part, copy_into_one, assign_a_part, replace_a_parameter, replace_a_module,
    load_all,
]  # fmt: skip


def searches(model, count, seed=0):
    """Root and recurrent inferences of ``count`` searches, windows slid."""
    random = np.random.default_rng(seed)
    latents, actions, found = None, None, []
    for timestep in range(count):
        observations = random.standard_normal((2, *model.config.observation_shape)).astype(np.float32)
        root = model.forward_initial_inference(observations, latents, actions, timesteps=timestep)
        node = root.latents
        for depth in range(3):
            inference = model.forward_recurrent_inference(node, [0, 1], timesteps=timestep + depth)
            node = inference.latents
            found.append(inference.values)
        latents, actions = root.latents, [1, 0]
        found.append(root.values)
    return found


@pytest.mark.parametrize("change", CHANGES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("storage", ["private", "slab", "paged"])
def test_after_a_change_it_is_as_a_new_model_of_these_weights(change, storage):
    options = {"use_new_cache_manager": True, "cache_storage": storage}
    model = model_of(**options)
    searches(model, 6)
    change(model)
    fresh = model_of(**options)
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    for ours, theirs in zip(searches(model, 6, 1), searches(fresh, 6, 1), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("change", CHANGES[:-1], ids=lambda each: each.__name__)
def test_a_change_in_the_middle_of_an_episode_drops_the_contexts(change):
    model = model_of(use_new_cache_manager=True)
    searches(model, 3)
    assert any(map(len, model.cache.init_pools))
    change(model)
    observations = np.zeros((2, *model.config.observation_shape), np.float32)
    before = model.cache.hierarchy_stats.total_queries
    model.forward_initial_inference(observations, np.zeros((2, 1, 16), np.float32), [0, 1], timesteps=3)
    assert model.cache.hierarchy_stats.total_queries == before
    assert all(len(pool) <= 1 for pool in model.cache.init_pools)


def test_what_torch_counts_is_noticed_within_a_search():
    model = model_of(use_new_cache_manager=True)
    searches(model, 2)
    latents = np.ones((2, 1, 16), np.float32)
    node = model.forward_recurrent_inference(latents, [0, 1], timesteps=2).latents
    step(model)
    model.forward_recurrent_inference(node, [0, 1], timesteps=3)
    assert len(model.cache.recur_pool) == 2  # of the second inference alone


def test_a_part_of_a_tensor_through_data_needs_a_call():
    model = model_of(use_new_cache_manager=True)
    searches(model, 2)
    weight = next(each for each in model.transformer.parameters() if each.ndim > 1)
    weight.data[1] += 1
    assert any(map(len, model.cache.init_pools))
    model.weights_changed()
    assert not any(map(len, model.cache.init_pools))


def test_clear_caches_renews_the_corrections_of_positions():
    model = model_of(use_new_cache_manager=True)
    average(model)
    model.clear_caches()
    torch.testing.assert_close(model.cache.position_shift, model.transformer.position_shift(), rtol=0, atol=0)


def test_weights_that_stay_clear_nothing():
    model = model_of(use_new_cache_manager=True)
    searches(model, 4)
    assert all(len(pool) == 4 for pool in model.cache.init_pools)


def test_weights_come_from_the_seed_whatever_torchs_default_type_is():
    expected = model_of(seed=3)
    torch.set_default_dtype(torch.float64)
    try:
        found = model_of(seed=3)
        values = searches(found, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    weights = found.state_dict()
    assert all(torch.equal(weights[name], each) for name, each in expected.state_dict().items())
    assert {each.dtype for each in (*weights.values(), found.support)} == {torch.float32}
    for ours, theirs in zip(values, searches(expected, 3), strict=True):
        np.testing.assert_array_equal(ours, theirs)
