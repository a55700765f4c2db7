"""The three methods by themselves, as somebody calls them who has a forward pass of their own."""

import numpy as np
import pytest
import torch
from test_model import CACHES, Episode, each_cache, far, model_of, observations

from kvcache.backend import Scope


def latents(rows, *key):
    return observations(rows, *key, shape=(1, 32))


def after(model, steps=2):
    """The latents of the last of some steps, by which their contexts are known."""
    episode = Episode(model)
    return [episode.step() for _ in range(steps)][-1].latents


@each_cache
def test_a_model_that_has_inferred_nothing_yet_answers_them(cache):
    model = model_of(cache)
    assert model.retrieve_or_generate_kvcache(latents(3, 1), 3) == [1, 1, 1]
    assert model.trim_and_pad_kv_cache(is_init_infer=False) == [1, 1, 1]
    model.update_cache_context(latents(3, 2), is_init_infer=False)
    assert model.cache.lookup([0, 1, 2], model.cache.hash_states(latents(3, 2)), Scope.NODE) == [1, 1, 1]


@each_cache
def test_what_is_stored_is_found_again_and_forgotten_when_cleared(cache):
    model = model_of(cache)
    known = after(model)
    assert model.retrieve_or_generate_kvcache(known, 3, start_pos=2) == [3, 3, 3]
    assert model.trim_and_pad_kv_cache(is_init_infer=False) == [3, 3, 3]
    assert model.keys_values_wm.size == 3
    model.update_cache_context(latents(3, 8), is_init_infer=False)
    assert model.retrieve_or_generate_kvcache(latents(3, 8), 3, start_pos=2) == [3, 3, 3]
    model.clear_caches()
    assert model.retrieve_or_generate_kvcache(known, 3, start_pos=2) == [1, 1, 1]


@each_cache
def test_each_environment_has_its_own_contexts(cache):
    model = model_of(cache)
    known = after(model)
    assert model.retrieve_or_generate_kvcache(known[[2, 0]], 2, envs=[2, 0]) == [3, 3]
    assert model.retrieve_or_generate_kvcache(known[[2, 0]], 2, envs=[0, 2]) == [1, 1]
    assert model.retrieve_or_generate_kvcache(known[[2, 0]], 2) == [1, 1]  # environments 0 and 1
    model.trim_and_pad_kv_cache()
    model.update_cache_context(latents(2, 8))
    assert model.cache.lookup([0, 1, 2], model.cache.hash_states(latents(2, 8)[[0, 1, 0]]), Scope.ROOT) == [1, 1, -1]


@each_cache
def test_they_are_the_inference_that_the_model_makes_of_them(cache):
    """The three methods with a forward pass between them, against ``forward_recurrent_inference``."""
    model, whole = model_of(cache), model_of(cache)
    known, actions = after(model), [1, 2, 3]
    wanted = whole.forward_recurrent_inference(after(whole), actions, timesteps=1)
    sizes = model.retrieve_or_generate_kvcache(known, 3, start_pos=2)
    model.trim_and_pad_kv_cache(is_init_infer=False)
    places = torch.tensor(sizes)[:, None]
    with torch.inference_mode():
        acted = model.transformer(model.tokenizer.embed(torch.tensor(actions)), places, model.keys_values_wm)[:, -1]
        new = model.latent_head(acted).unsqueeze(1)
        model.transformer(new, places + 1, model.keys_values_wm)
        model.update_cache_context(new, is_init_infer=False)
    assert np.array_equal(new.numpy(), wanted.latents)
    further = [each.forward_recurrent_inference(wanted.latents, actions, timesteps=2) for each in (model, whole)]
    assert far(*further) == 0
    assert further[0].sizes == [5, 5, 5]


@each_cache
def test_sizes_that_were_returned_are_the_callers(cache):
    model = model_of(cache)
    known = after(model)
    for sizes in (
        model.retrieve_or_generate_kvcache(known, 3, start_pos=2),
        model.keys_values_wm_size_list,
        model.trim_and_pad_kv_cache(),
    ):
        sizes[:] = [7, 7, 7]
        assert model.keys_values_wm_size_list == [3, 3, 3]


@each_cache
def test_the_contexts_of_single_rows_can_be_read_before_and_after_they_are_put_together(cache):
    """SPEC 3.3: ``keys_values_wm_list`` is filled. One row hits, one misses and one is of another length."""
    model = model_of(cache)
    known = after(model, steps=3)
    asked = np.stack([known[0], latents(1, 9)[0], after(model_of(cache), steps=1)[2]])
    assert model.retrieve_or_generate_kvcache(asked, 3, start_pos=4) == [5, 1, 1]
    listed = [model.keys_values_wm_list]
    model.trim_and_pad_kv_cache()
    listed.append(model.keys_values_wm_list)
    for layer in model.keys_values_wm:  # what is appended to the batch is no part of them
        layer.update(*(torch.ones(3, 2, 1, 16) for _ in range(2)))
    model.update_cache_context(latents(3, 7))
    listed.append(model.keys_values_wm_list)
    batch = model.keys_values_wm.block
    for rows in listed:
        assert [row.size for row in rows] == [5, 1, 1]
        for number, row in enumerate(rows):
            start = model.cache.row_start(number)
            wanted = batch[number].narrow(3, start, row.size)
            assert torch.equal(row.block[0, ..., : row.size, :], wanted)
    model.clear_caches()
    assert model.keys_values_wm_list == model.keys_values_wm_size_list == []


@each_cache
def test_a_row_that_begins_empty_has_no_context(cache):
    model = model_of(cache)
    after(model, steps=1)
    assert model.keys_values_wm_list == [None] * 3
    assert model.keys_values_wm_size_list == [0] * 3


@pytest.mark.parametrize("name", sorted(set(CACHES) - {"legacy", "reference"}))
def test_what_is_written_into_a_listed_context_of_a_new_cache_stays_there(name):
    """Legacy lists its scratch slots themselves, and references are what they are called."""
    model = model_of(CACHES[name])
    known = after(model)
    model.retrieve_or_generate_kvcache(known, 3, start_pos=2)
    before = [row.clone().block for row in model.keys_values_wm_list]
    for row in model.keys_values_wm_list:
        row.block.fill_(9)
    model.trim_and_pad_kv_cache()
    model.keys_values_wm_list[0].block.fill_(9)
    again = model.keys_values_wm_list
    assert all(torch.equal(row.block, wanted) for row, wanted in zip(again, before, strict=True))


@each_cache
def test_reanalysis_looks_nothing_up_and_stores_nothing(cache):
    model = model_of(cache)
    known = np.repeat(after(model), 2, axis=0)  # more rows than environments
    before = model.cache.get_stats_summary()
    assert model.retrieve_or_generate_kvcache(known, 6, reanalyzes=True) == [1] * 6
    model.trim_and_pad_kv_cache()
    model.update_cache_context(latents(6, 8))
    assert model.cache.get_stats_summary() == before
    assert model.cache.lookup([0], model.cache.hash_states(latents(6, 8)[:1]), Scope.NODE) == [-1]


@each_cache
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ready_env_num": 2}, "ready_env_num is 2, and latent_state has 3 rows"),
        ({"envs": [0, 1]}, r"envs must be \[3\], got \[2\]"),
        ({"envs": [0, 1, 3]}, r"envs must be from 0 to 2, got \[0, 1, 3\]"),
        ({"envs": [0, 1, 1.5]}, r"envs must be integers, got \[0, 1, 1.5\]"),
        ({"envs": [0, [1], 2]}, "envs must be integers"),
        ({"start_pos": [0, 1]}, r"start_pos must be \[3\], or one for all, got \[2\]"),
        ({"start_pos": -1}, "start_pos must be from 0 to"),
        ({"start_pos": 0.5}, "start_pos must be integers, got 0.5"),
    ],
)
def test_rows_that_do_not_match_are_refused(cache, options, message):
    model = model_of(cache)
    with pytest.raises(ValueError, match=message):
        model.retrieve_or_generate_kvcache(**{"latent_state": latents(3, 1), "ready_env_num": 3} | options)


@each_cache
def test_a_batch_of_no_rows_is_refused(cache):
    with pytest.raises(ValueError, match=r"latent_state is empty, \[0, 1, 32\]: a batch has at least one row"):
        model_of(cache).retrieve_or_generate_kvcache(latents(0, 1), 0)


@each_cache
def test_a_step_before_the_one_that_it_needs_is_refused(cache):
    model = model_of(cache)
    with pytest.raises(RuntimeError, match="no contexts to align: call retrieve_or_generate_kvcache first"):
        model.trim_and_pad_kv_cache()
    with pytest.raises(RuntimeError, match="no batch to store: call trim_and_pad_kv_cache first"):
        model.update_cache_context(latents(3, 1))
    after(model)
    model.retrieve_or_generate_kvcache(latents(3, 1), 3)
    with pytest.raises(RuntimeError, match="no batch to store"):
        model.update_cache_context(latents(3, 1))
    model.trim_and_pad_kv_cache()
    with pytest.raises(ValueError, match=r"latent_state must be \[3, 1, 32\], got \[2, 1, 32\]"):
        model.update_cache_context(latents(2, 1))
    model.clear_caches()
    with pytest.raises(RuntimeError, match="no contexts to align"):
        model.trim_and_pad_kv_cache()
    with pytest.raises(RuntimeError, match="no batch to store"):
        model.update_cache_context(latents(3, 1))
