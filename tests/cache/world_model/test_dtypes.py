"""Weights, arithmetic and caches in other dtypes than float32: legacy and new still find the same."""

import numpy as np
import pytest
import torch
from test_model import CACHES, EXACT, Episode, each_cache, each_position, far, model_of
from test_search import played, same
from test_transformer import judged_rotation

from kvcache.world_model.transformer import rotated, rotation

ROUNDINGS = 16  # of the dtype: what a value may differ by where a sum is rounded elsewhere

each_dtype = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def rounding(dtype):
    return ROUNDINGS * torch.finfo(dtype).eps


@each_dtype
@each_position
@pytest.mark.parametrize("context_length", [5, 8, 13])
def test_no_cache_changes_what_is_found(positions, context_length, dtype):
    options = {"positions": positions, "context_length": context_length, "dtype": dtype}
    results = {name: played(cache, **options)[1] for name, cache in CACHES.items()}
    for name in set(CACHES) - {"legacy"}:
        equal, off = same(results["legacy"], results[name])
        assert equal, name
        assert off == 0 if name in EXACT[positions] else off < rounding(dtype), name


@each_cache
@each_dtype
def test_weights_and_cache_have_the_dtype_and_results_are_float32(cache, dtype):
    model = model_of(cache, dtype=dtype)
    found = Episode(model).step()
    assert {each.dtype for each in model.parameters()} == {dtype}
    assert model.keys_values_wm.dtype == model.cache.position_shift.dtype == dtype
    for name in ("latents", "rewards", "policy_logits", "values"):
        assert getattr(found, name).dtype == np.float32, name


@each_cache
@each_dtype
def test_caches_weigh_half(cache, dtype):
    weights = []
    for each in (torch.float32, dtype):
        model = model_of(cache, dtype=each)
        episode = Episode(model)
        list(episode.simulate(3, episode.step()))
        weights.append({pool: model.cache.bytes_reserved[pool] for pool in ("init", "recur")})
    assert weights[0] == {pool: 2 * size for pool, size in weights[1].items()}


@each_dtype
def test_weights_are_those_of_float32_rounded(dtype):
    wanted, found = model_of({}).state_dict(), model_of({}, dtype=dtype).state_dict()
    assert all(torch.equal(wanted[name].to(dtype), found[name]) for name in wanted)


@each_cache
@each_dtype
@each_position
def test_a_cached_prediction_is_the_uncached_one(cache, dtype, positions):
    model = model_of(cache, 20, positions, dtype=dtype)
    episode = Episode(model)
    for _ in range(4):
        found = episode.step()
        for below, latents, actions in episode.simulate(3, found):
            assert far(below, episode.judged(latents, actions), "values", "rewards") < rounding(dtype)


@each_dtype
@pytest.mark.parametrize("first", [0, 5_000, 10_000_000])
def test_angles_are_calculated_in_more_than_the_dtype(dtype, first):
    """What is left is the rounding of the result: angles of the dtype would double it."""
    x, positions = torch.linspace(-1, 1, 100 * 16).to(dtype).view(100, 16), torch.arange(first, first + 100)
    found = rotated(x[None, None], rotation(positions[None], 16, dtype))[0, 0].double()
    wanted = judged_rotation(x.double(), positions)
    assert float((found - wanted).abs().mean()) < 0.25 * torch.finfo(dtype).eps


@each_cache
@each_dtype
@each_position
def test_validation_of_long_episodes_raises_no_false_alarm(cache, dtype, positions):
    model = model_of(cache, 13, positions, cache_validation_mode=True, dtype=dtype)
    episode = Episode(model)
    for _ in range(30):
        list(episode.simulate(4, episode.step()))
    assert model.cache.report.compared == model.cache.report.lookups > 400
