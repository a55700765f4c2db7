"""The search: its arithmetic, and that no cache changes what it finds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from test_model import CACHES, ROUNDING, each_cache, model_of, observations

from kvcache.geometry import GEOMETRIES
from kvcache.world_model import Search, SearchConfig
from kvcache.world_model.play import play

each_position = pytest.mark.parametrize("positions", ["rotary", "absolute"])


def generators(count=3, seed=0):
    return [np.random.default_rng([seed, env]) for env in range(count)]


def played(cache, searches=12, seed=0, **options):
    model = model_of(cache, **options)
    return model, list(play(model, searches, seed, SearchConfig(num_simulations=6), episode_length=5))


def same(one, other):
    """Are these searches' decisions the same, and how far apart are the values at most?"""
    pairs = list(zip(one, other, strict=True))
    equal = all(
        np.array_equal(getattr(a.result, name), getattr(b.result, name))
        for a, b in pairs
        for name in ("visit_counts", "actions", "depths")
    )
    return equal, max(float(np.abs(a.result.values - b.result.values).max()) for a, b in pairs)


@each_position
@pytest.mark.parametrize("context_length", [5, 8, 13])
def test_no_cache_changes_what_is_found(positions, context_length):
    results = {
        name: played(cache, positions=positions, context_length=context_length)[1] for name, cache in CACHES.items()
    }
    exact = {"private", "slab"} | ({"paged"} if positions == "rotary" else set())
    for name in set(CACHES) - {"legacy"}:
        equal, off = same(results["legacy"], results[name])
        assert equal, name
        assert off == 0 if name in exact else off < ROUNDING, name


@pytest.mark.parametrize("storage", ["private", "slab", "paged"])
def test_a_small_cache_costs_misses_and_a_small_legacy_cache_changes_what_is_found(storage):
    """What legacy finds under a key whose slot holds another state by now goes into the search unnoticed."""
    _, wanted = played({}, searches=8)
    legacy, stale = played({}, searches=8, recur_pool_size=4)
    new, missed = played({"use_new_cache_manager": True, "cache_storage": storage}, searches=8, recur_pool_size=4)
    assert not same(wanted, stale)[0]
    assert legacy.cache.hierarchy_stats.misses < new.cache.hierarchy_stats.misses
    # A miss begins the context anew, as LightZero does: another prediction, and the same at every repetition.
    _, again = played({"use_new_cache_manager": True, "cache_storage": storage}, searches=8, recur_pool_size=4)
    assert same(missed, again) == (True, 0)


def test_a_seed_is_a_search():
    assert same(played({})[1], played({})[1]) == (True, 0)
    assert not same(played({})[1], played({}, seed=1)[1])[0]


@each_cache
def test_results_permute_with_environments(cache):
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        model = model_of(cache)
        roots = model.forward_initial_inference(observations(3, 4)[order], envs=order)
        result = Search(model, SearchConfig(num_simulations=8)).run(
            roots, [generators()[env] for env in order], order, reanalyzes=False
        )
        found.append([each[np.argsort(order)] for each in (result.visit_counts, result.actions, result.values)])
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
    assert np.abs(found[0][2] - found[1][2]).max() < ROUNDING


def test_every_simulation_is_a_visit_and_a_leaf():
    _, searches = played({}, searches=3)
    for each in searches:
        assert (each.result.visit_counts.sum(axis=1) == 6).all()
        assert each.result.depths.shape == (6, 3)
        assert (each.result.depths[0] == 1).all()
        assert (each.result.depths <= np.arange(1, 7)[:, None]).all()


class Bandit:
    """A model of one state whose actions pay differently: everything about it can be calculated by hand."""

    geometry = replace(GEOMETRIES["cartpole"], num_simulations=60)

    def __init__(self, rewards):
        self.rewards = np.array(rewards)

    def answer(self, rewards):
        rows, actions = len(rewards), len(self.rewards)
        zeros = np.zeros((rows, actions), dtype=np.float32)
        return type("Answer", (), {
            "latents": np.zeros((rows, 1, 2), dtype=np.float32), "rewards": rewards, "values": np.zeros(rows),
            "policy_logits": zeros, "sizes": [0] * rows,
        })  # fmt: skip

    def forward_recurrent_inference(self, latents, actions, *_):
        return self.answer(self.rewards[list(actions)])


def run_bandit(rewards, **constants):
    model = Bandit(rewards)
    config = SearchConfig(num_simulations=60, noise_fraction=0, **constants)
    return Search(model, config).run(model.answer(np.zeros(2)), generators(2))


def test_what_pays_best_is_visited_most_and_chosen_at_temperature_0():
    result = run_bandit([0.0, 1.0, 0.2], temperature=0)
    assert (result.visit_counts.argmax(axis=1) == 1).all()
    assert (result.actions == 1).all()
    assert (result.visit_counts[0] == result.visit_counts[1]).all()


def judged_bandit(rewards, discount, simulations, base=19652.0, init=1.25):
    """The same search without trees, after the paper and not after our code: a path of actions is its own name."""
    visits, sums, seen = {}, {}, []

    def score(path, action):
        parent = sum(visits.get((*path, each), 0) for each in range(len(rewards)))
        count = visits.get((*path, action), 0)
        if not parent:
            return 1 / len(rewards)
        weight = init + math.log((parent + base + 1) / base)
        prior = weight * (1 / len(rewards)) * math.sqrt(parent) / (count + 1)
        if not count:
            return prior
        value = rewards[action] + discount * sums[(*path, action)] / count
        if max(seen) > min(seen):
            value = (value - min(seen)) / (max(seen) - min(seen))
        return prior + value

    for _ in range(simulations):
        path = ()
        while True:
            scores = [score(path, action) for action in range(len(rewards))]
            path = (*path, scores.index(max(scores)))
            if path not in visits:
                break
        value = 0.0
        for end in range(len(path), 0, -1):
            visits[path[:end]] = visits.get(path[:end], 0) + 1
            sums[path[:end]] = sums.get(path[:end], 0.0) + value
            value = rewards[path[end - 1]] + discount * value
            seen.append(value)
    return [visits.get((action,), 0) for action in range(len(rewards))]


@pytest.mark.parametrize("rewards", [[0.0, 1.0, 0.2], [0.5, 0.5], [-1.0, 3.0, 2.9, 0.0]])
@pytest.mark.parametrize("discount", [0.5, 0.997])
def test_visits_are_those_of_an_independent_search(rewards, discount):
    found = run_bandit(rewards, discount=discount).visit_counts[0].tolist()
    assert found == judged_bandit(rewards, discount, 60)
