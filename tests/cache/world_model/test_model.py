"""The world model: its cached predictions against a pass over the raw window with no cache at all."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from kvcache.backend import Scope
from kvcache.geometry import Geometry
from kvcache.legacy import LegacyCache
from kvcache.manager import KVCacheManager
from kvcache.storage import STORAGES
from kvcache.world_model import InferenceRequest, WorldModel, WorldModelConfig
from kvcache.world_model.model import FIRST_STEP

GEOMETRY = Geometry("tiny", 2, 2, 32, 8, 3, 6, "absolute")
CACHES = {
    "legacy": {},
    **{storage: {"use_new_cache_manager": True, "cache_storage": storage} for storage in STORAGES},
    "resident": {"use_new_cache_manager": True, "cache_storage": "paged", "cache_resident_batch": True},
}
# Whose results are legacy's, bit for bit: the others round a sum elsewhere.
EXACT = {"rotary": {"reference", "private", "slab", "paged"}, "absolute": {"reference", "private", "slab"}}
ROUNDING = 2e-5  # of float32, through two layers and the heads

each_cache = pytest.mark.parametrize("cache", CACHES.values(), ids=CACHES)
each_position = pytest.mark.parametrize("positions", ["rotary", "absolute"])


def model_of(cache, context_length=8, positions="absolute", **options):
    geometry = replace(GEOMETRY, context_length=context_length, positions=positions)
    return WorldModel(WorldModelConfig(geometry, **cache, **options))


def observations(rows, *key, shape=(4,)):
    return np.random.default_rng(key).standard_normal((rows, *shape)).astype(np.float32)


def far(one, other, *names):
    """The largest difference of two inferences."""
    names = names or ("latents", "rewards", "policy_logits", "values")
    return max(float(np.abs(getattr(one, name) - getattr(other, name)).max()) for name in names)


def part(inference, rows):
    return type(inference)(
        *(getattr(inference, name)[rows] for name in ("latents", "rewards", "policy_logits", "values")), []
    )


class Episode:
    """One episode of all environments, in step, and its raw history."""

    def __init__(self, model, rows=3, shape=(4,)):
        self.model, self.rows, self.shape = model, rows, shape
        self.latents, self.actions = [], []

    def step(self, actions=None):
        time = len(self.latents)
        last = None if not time else self.latents[-1]
        actions = [FIRST_STEP] * self.rows if not time else actions or [(time + row) % 6 for row in range(self.rows)]
        found = self.model.forward_initial_inference(
            observations(self.rows, 5, time, shape=self.shape), last, actions, timesteps=time
        )
        self.latents.append(found.latents)
        self.actions += [actions] if time else []
        return found

    def simulate(self, depth, found):
        """A chain of recurrent inferences below the root: each of them, and what the raw window says."""
        latents, actions, time = list(self.latents), list(self.actions), len(self.latents) - 1
        for below in range(depth):
            taken = [(3 * below + row) % 6 for row in range(self.rows)]
            found = self.model.forward_recurrent_inference(
                latents[-1], taken, simulation_index=below, timesteps=time + below
            )
            latents.append(found.latents)
            actions.append(taken)
            yield found, latents, actions

    def judged(self, latents, actions, longest=None):
        """The judge's opinion of the last of these states, from a window of ``longest`` observations at most."""
        count = min(len(latents), longest or len(latents))
        window = np.concatenate(latents[-count:], axis=1)
        between = np.array(actions[len(actions) - (count - 1) :]).T.reshape(self.rows, count - 1)
        return self.model.forward_without_cache(window, between, len(latents) - count)


@each_cache
@each_position
@pytest.mark.parametrize("context_length", [6, 7, 8, 9, 20])
@pytest.mark.parametrize("shape", [(4,), (1, 9, 12)], ids=["vector", "image"])
def test_until_its_window_slides_a_cached_prediction_is_the_uncached_one(cache, positions, context_length, shape):
    model = model_of(cache, context_length, positions, observation_shape=shape)
    episode, compared = Episode(model, shape=shape), 0
    while 2 * len(episode.latents) + 1 < context_length - 1:
        found = episode.step()
        wanted = episode.judged(episode.latents, episode.actions)
        assert far(found, wanted, "latents", "policy_logits", "values") < ROUNDING  # a root has no reward
        for below, latents, actions in episode.simulate((context_length - 2) // 2 - len(episode.latents), found):
            assert far(below, episode.judged(latents, actions)) < ROUNDING
            compared += 1
    assert compared


@each_cache
@each_position
def test_after_its_window_slid_it_is_near_the_uncached_one_and_not_the_same(cache, positions):
    """What slid was computed with what has left the window, at another position: an approximation, of legacy's too."""
    model = model_of(cache, 8, positions)
    episode, off = Episode(model), []
    for _ in range(12):
        found = episode.step()
        if found.sizes[0] == 5:
            wanted = episode.judged(episode.latents, episode.actions, longest=4)
            off.append(float(np.abs(found.values - wanted.values).max()))
    assert len(off) > 5
    assert 0 < np.median(off) < 2


@each_position
def test_storages_that_round_alike_agree_bit_for_bit_and_the_others_to_rounding(positions):
    results = {}
    for name, cache in CACHES.items():
        episode = Episode(model_of(cache, 8, positions))
        results[name] = []
        for _ in range(10):
            results[name].append(found := episode.step())
            results[name] += [below for below, _, _ in episode.simulate(4, found)]
    for name in set(CACHES) - {"legacy"}:
        off = max(far(one, other) for one, other in zip(results["legacy"], results[name], strict=True))
        assert off == 0 if name in EXACT[positions] else off < ROUNDING, name


@each_cache
@each_position
def test_rows_permute_with_their_environments(cache, positions):
    """First steps among later ones, and environments whose contexts differ in length."""
    order = [2, 0, 1]
    results = []
    for rows in ([0, 1, 2], order):
        model = model_of(cache, 12, positions)
        place = np.argsort(rows)
        latents = None
        for time in range(7):
            seen = observations(3, 1, time)[rows]
            # Environment 1 begins anew at time 3, environment 2 at time 5.
            begun = [0, 3 if time >= 3 else 0, 5 if time >= 5 else 0]
            actions = [FIRST_STEP if begun[env] == time else (time + env) % 6 for env in rows]
            found = model.forward_initial_inference(seen, latents, actions, rows, [time - begun[env] for env in rows])
            latents = found.latents
            below = model.forward_recurrent_inference(
                latents, [env % 6 for env in rows], rows, timesteps=[time - begun[env] for env in rows]
            )
            results.append([part(each, place) for each in (found, below)])
    for one, other in zip(results[:7], results[7:], strict=True):
        assert max(far(*pair) for pair in zip(one, other, strict=True)) < ROUNDING


@each_cache
@each_position
@pytest.mark.parametrize("masked", [False, True])
def test_others_in_the_batch_matter_by_their_padding_only(cache, positions, masked):
    def last_of_short(others):
        """Environment 0 is at its second step while the others, if any, are far into their episodes."""
        model = model_of(cache, 20, positions, mask_padding=masked)
        rows = [0, 1, 2] if others else [0]
        latents = None
        for time in range(6):
            present = [env for env in rows if env or time >= 4]
            if not present:
                continue
            steps = [time - 4 if env == 0 else time for env in present]
            actions = [FIRST_STEP if step == 0 else (step + env) % 6 for step, env in zip(steps, present, strict=True)]
            seen = np.concatenate([observations(1, env, step) for step, env in zip(steps, present, strict=True)])
            before = (
                None
                if latents is None
                else np.stack([latents.get(env, next(iter(latents.values()))) for env in present])
            )
            found = model.forward_initial_inference(seen, before, actions, present, steps)
            latents = dict(zip(present, found.latents, strict=True))
        return part(found, [0])

    off = far(last_of_short(True), last_of_short(False))
    if masked:
        assert off < ROUNDING
    else:
        assert off > 100 * ROUNDING  # each zero key takes its share of the attention


@each_cache
@each_position
@pytest.mark.parametrize("context_length", [2, 3, 4, 5, 6, 7])
def test_short_contexts_and_long_episodes(cache, positions, context_length):
    model = model_of(cache, context_length, positions)
    episode = Episode(model)
    for _ in range(3 * context_length):
        found = episode.step()
        for below, latents, _ in episode.simulate(4, found):
            assert np.isfinite(below.values).all()
            assert max(below.sizes) <= context_length - 1
            if context_length == 2:  # the state alone, and what led there for its reward
                wanted = model.forward_without_cache(latents[-1], np.zeros((3, 0)), len(latents) - 1)
                assert np.abs(below.values - wanted.values).max() < ROUNDING
    if context_length == 2:
        assert not any(len(pool) for pool in getattr(model.cache, "init_pools", []) if hasattr(pool, "__len__"))


@each_cache
def test_a_context_that_was_forgotten_is_begun_again_from_the_latent_alone(cache):
    model = model_of(cache)
    episode = Episode(model)
    for _ in range(3):
        found = episode.step()
    model.clear_caches()
    below = model.forward_recurrent_inference(found.latents, [1, 2, 3], timesteps=2)
    assert below.sizes == [1, 1, 1]
    # Absolute positions are those in the context, which begins with this latent.
    fresh = model_of(cache)
    alone = fresh.forward_recurrent_inference(found.latents, [1, 2, 3])
    assert far(below, alone) == 0


@each_cache
def test_batches_of_fewer_other_and_repeated_sizes(cache):
    model = model_of(cache)
    full = model.forward_initial_inference(observations(3, 1))
    fewer = model.forward_initial_inference(observations(3, 2)[[2, 0]], full.latents[[2, 0]], [1, 2], [2, 0], [1, 1])
    assert fewer.sizes == [1, 1]
    again = model.forward_initial_inference(observations(3, 3), fewer.latents[[1, 1, 0]], [1, 1, 1], None, [2, 2, 2])
    assert again.sizes == [3, 1, 3]  # environment 1 never saw that latent: its context begins anew


@each_cache
def test_reanalysis_looks_nothing_up_and_stores_nothing(cache):
    model = model_of(cache)
    episode = Episode(model)
    found = [episode.step() for _ in range(3)][-1]
    before = model.cache.get_stats_summary()
    old = model.forward_initial_inference(observations(7, 9), reanalyzes=True)  # more rows than environments
    below = model.forward_recurrent_inference(old.latents, [0] * 7, reanalyzes=True)
    assert model.cache.get_stats_summary() == before
    assert (old.sizes, below.sizes) == ([0] * 7, [1] * 7)
    assert far(old, model.forward_without_cache(old.latents, np.zeros((7, 0)))) < ROUNDING
    keys = model.cache.hash_states(found.latents)
    assert model.cache.lookup(range(3), keys, Scope.ROOT) == [5, 5, 5]  # what was there still is


@each_cache
def test_a_reanalysis_is_a_search_too(cache, caplog):
    """SPEC 1: after every initial inference the recurrent cache is cleared. What environments have stays."""
    model = model_of(cache, enable_cache_logging=True, cache_log_interval=2)
    roots = Episode(model).step()
    keys = [
        model.cache.hash_states(each.latents)
        for each in (roots, model.forward_recurrent_inference(roots.latents, [0, 1, 2]))
    ]
    assert model.cache.lookup(range(3), keys[1], Scope.NODE) == [3, 3, 3]
    with caplog.at_level(logging.INFO, logger="kvcache.world_model"):
        model.forward_initial_inference(observations(5, 9), reanalyzes=True)
    assert model.cache.lookup(range(3), keys[1], Scope.NODE) == [-1, -1, -1]
    assert model.cache.lookup(range(3), keys[0], Scope.ROOT) == [1, 1, 1]
    assert [each.split(":")[0] for each in caplog.messages] == ["2 searches"]


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    one = model_of({}).state_dict()
    torch.manual_seed(2)
    other = model_of({}).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(model_of({}, seed=1).state_dict()["policy_head.0.weight"], one["policy_head.0.weight"])


@each_cache
def test_other_weights_forget_what_was_computed_with_the_old(cache):
    model, other = model_of(cache), model_of(cache, seed=1)
    found = Episode(model).step()
    assert model.cache.lookup(range(3), model.cache.hash_states(found.latents), Scope.ROOT) == [1, 1, 1]
    model.load_state_dict(other.state_dict())
    assert model.cache.lookup(range(3), model.cache.hash_states(found.latents), Scope.ROOT) == [-1, -1, -1]
    assert torch.equal(model.cache.position_shift, other.cache.position_shift)
    assert far(Episode(model).step(), Episode(other).step()) == 0


def test_the_switch_is_one_setting_and_leaves_nothing_of_the_other_cache():
    legacy, new = model_of({}), model_of({"use_new_cache_manager": True})
    assert (type(legacy.cache), type(new.cache)) == (LegacyCache, KVCacheManager)
    assert set(vars(legacy)) == set(vars(new))
    caches = {name for name, value in vars(new).items() if isinstance(value, (LegacyCache, KVCacheManager))}
    assert caches == {"cache"}


@each_cache
@each_position
def test_validation_runs_both_caches_and_changes_nothing(cache, positions):
    results = []
    for validates in (False, True):
        model = model_of(cache, positions=positions, cache_validation_mode=validates)
        episode = Episode(model)
        results.append([])
        for _ in range(6):
            results[-1].append(found := episode.step())
            results[-1] += [below for below, _, _ in episode.simulate(3, found)]
    assert max(far(*pair) for pair in zip(*results, strict=True)) == 0
    assert model.cache.report.compared == model.cache.report.lookups == 5 * 3 + 6 * 3 * 3


@each_cache
@each_position
@pytest.mark.parametrize("context_length", [2, 3, 4, 5])
def test_validation_of_short_contexts_raises_no_false_alarm(cache, positions, context_length):
    model = model_of(cache, context_length, positions, cache_validation_mode=True)
    episode = Episode(model)
    for _ in range(6):
        list(episode.simulate(4, episode.step()))
    assert model.cache.report.compared == model.cache.report.lookups


@each_cache
def test_weights_that_are_loaded_in_part_forget_as_well(cache):
    model, other = model_of(cache), model_of(cache, seed=1)
    found = Episode(model).step()
    state = other.state_dict()
    del state["policy_head.0.weight"]
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(state)
    assert model.cache.lookup(range(3), model.cache.hash_states(found.latents), Scope.ROOT) == [-1, -1, -1]
    assert torch.equal(model.cache.position_shift, other.cache.position_shift)


def test_validation_finds_legacys_stale_hits():
    model = model_of({}, recur_pool_size=4, cache_validation_mode=True)
    episode = Episode(model)
    for _ in range(3):
        found = episode.step()
        last = [below for below, _, _ in episode.simulate(3, found)]
        model.forward_recurrent_inference(last[0].latents, [1, 1, 1], timesteps=4)
    assert model.cache.report.stale_hits > 0


def test_a_line_every_so_many_searches(caplog):
    for options, stale in (
        ({}, "stale unknown"),
        ({"cache_validation_mode": True}, r"stale 0.00 %"),
        (CACHES["slab"], "stale 0 %"),
    ):
        model = model_of(options, enable_cache_logging=True, cache_log_interval=2)
        with caplog.at_level(logging.INFO, logger="kvcache.world_model"):
            caplog.clear()
            episode = Episode(model)
            for _ in range(5):
                list(episode.simulate(2, episode.step()))
        assert [record.getMessage().split(":")[0] for record in caplog.records] == ["2 searches", "4 searches"]
        assert re.search(
            rf"hits 100.00 %, {stale}, misses 0.00 % of 18 lookups; [\d.]+ MB reserved$", caplog.messages[1]
        )


def test_observers_are_called_before_each_inference():
    model, requests = model_of({}), []
    model.inference_observers.append(requests.append)
    roots = model.forward_initial_inference(observations(3, 0), timesteps=[4, 5, 6])
    model.forward_recurrent_inference(roots.latents[:2], [0, 1], envs=[2, 0], simulation_index=3, timesteps=7)
    assert requests == [
        InferenceRequest(Scope.ROOT, [0, 1, 2], [4, 5, 6], None),
        InferenceRequest(Scope.NODE, [2, 0], [7, 7], 3),
    ]
    with pytest.raises(ValueError, match="actions"):
        model.forward_recurrent_inference(roots.latents, [0])
    assert len(requests) == 2
