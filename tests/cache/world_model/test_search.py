"""The search: its arithmetic, and that no cache changes what it finds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from test_model import CACHES, EXACT, ROUNDING, each_cache, model_of, observations

from kvcache.geometry import GEOMETRIES
from kvcache.world_model import Inference, Search, SearchConfig
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
    for name in set(CACHES) - {"legacy"}:
        equal, off = same(results["legacy"], results[name])
        assert equal, name
        assert off == 0 if name in EXACT[positions] else off < ROUNDING, name


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


@each_position
def test_no_cache_changes_what_several_leaves_find(positions):
    """A batch has more rows than there are environments, and the last one fewer than the others."""
    results = {
        name: list(play(model_of(cache, positions=positions), 5, 0, SearchConfig(6, leaves=4), episode_length=3))
        for name, cache in CACHES.items()
    }
    for name in set(CACHES) - {"legacy"}:
        equal, off = same(results["legacy"], results[name])
        assert equal, name
        assert off == 0 if name in EXACT[positions] else off < ROUNDING, name


@pytest.mark.parametrize("options", [{}, {"chained_keys": True}, {"cache_validation_mode": True}], ids=str)
@pytest.mark.parametrize("envs", [None, [2, 0]])
def test_several_leaves_are_rows_of_one_inference(options, envs):
    model, asked = model_of(CACHES["paged"], **options), []
    model.inference_observers.append(asked.append)
    rows = 3 if envs is None else len(envs)
    roots = model.forward_initial_inference(observations(rows, 4), envs=envs, timesteps=5)
    result = Search(model, SearchConfig(7, leaves=3)).run(roots, generators(rows), envs, timesteps=5)
    own = [0, 1, 2] if envs is None else envs
    assert [(each.envs, each.simulation) for each in asked[1:]] == [(own * 3, 0), (own * 3, 3), (own, 6)]
    steps = np.concatenate([np.reshape(each.timesteps, (-1, rows)) for each in asked[1:]])
    assert np.array_equal(steps, 5 + result.depths - 1)
    assert (result.visit_counts.sum(1) == 7).all()
    assert model.cache.hierarchy_stats.misses == 0


def test_leaves_of_old_observations_are_of_no_environment():
    model = model_of({})
    roots = model.forward_initial_inference(observations(5, 4), reanalyzes=True)
    result = Search(model, SearchConfig(4, leaves=4)).run(roots, generators(5), reanalyzes=True)
    assert (result.visit_counts.sum(1) == 4).all()


def test_one_leaf_is_the_search_without_the_option():
    one = list(play(model_of({}), 4, 0, SearchConfig(6, leaves=1)))
    assert same(one, list(play(model_of({}), 4, 0, SearchConfig(6)))) == (True, 0)
    assert not same(one, list(play(model_of({}), 4, 0, SearchConfig(6, leaves=3))))[0]


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


class World:
    """What a model may say: of each state, which is the actions that led to it, something random and always the same.

    Args:
        actions: that there are.
        seed: of all that is said.
    """

    def __init__(self, actions, seed):
        self.actions, self.seed, self.said = actions, seed, {}

    def __call__(self, env, path):
        """Reward, value and policy logits of a state."""
        if (env, path) not in self.said:
            source = np.random.default_rng([self.seed, env, *path])
            self.said[env, path] = source.normal(), 3 * source.normal(), source.normal(size=self.actions).tolist()
        return self.said[env, path]


class Oracle:
    """A model that says what a ``World`` does; a latent is the number of its state."""

    geometry = replace(GEOMETRIES["cartpole"], num_simulations=60)

    def __init__(self, world):
        self.world, self.paths = world, []

    def inference(self, envs, paths):
        said = [self.world(env, path) for env, path in zip(envs, paths, strict=True)]
        self.paths += paths
        numbers = np.arange(len(self.paths) - len(paths), len(self.paths), dtype=np.float32)
        rewards, values, logits = (np.array(each) for each in zip(*said, strict=True))
        return Inference(numbers[:, None, None], rewards, logits, values, [0] * len(paths))

    def forward_recurrent_inference(self, latents, actions, envs, *_):
        states = [self.paths[int(number)] for number in latents.flat]
        return self.inference(envs, [(*state, action) for state, action in zip(states, actions, strict=True)])


def judged(world, env, generator, simulations, constants, sees_means=True):
    """One environment's search from the rule of MuZero's pseudocode, state by state: no arrays, no batch.

    Visit counts and choice at the root, its value, the depth of each simulation's leaf. ``sees_means``: the bounds by
    which values are normalised are of the mean values of nodes, and not of the single values that go into those.
    """
    visits, sums, bounds, depths = {(): 1}, {(): world(env, ())[1]}, [], []
    noise = generator.dirichlet([constants.dirichlet_alpha] * world.actions).tolist()

    def prior(path, action):
        weights = [math.exp(each) for each in world(env, path)[2]]
        predicted = weights[action] / sum(weights)
        share = constants.noise_fraction if path == () else 0
        return (1 - share) * predicted + share * noise[action]

    def score(path, action):
        below = sum(visits.get((*path, each), 0) for each in range(world.actions))
        child = (*path, action)
        if below == 0:
            return prior(path, action)
        weight = constants.pb_c_init + math.log((below + constants.pb_c_base + 1) / constants.pb_c_base)
        explored = weight * prior(path, action) * math.sqrt(below) / (visits.get(child, 0) + 1)
        if child not in visits:
            return explored
        value = world(env, child)[0] + constants.discount * sums[child] / visits[child]
        if max(bounds) > min(bounds):
            value = (value - min(bounds)) / (max(bounds) - min(bounds))
        return value + explored

    def visit(path):
        """A simulation from this state on; what it is worth here."""
        if path in visits:
            action = max(range(world.actions), key=lambda each: score(path, each))
            child = (*path, action)
            worth = visit(child) * constants.discount + world(env, child)[0]
        else:
            depths.append(len(path))
            worth = world(env, path)[1]
        visits[path] = visits.get(path, 0) + 1
        sums[path] = sums.get(path, 0.0) + worth
        bounds.append(sums[path] / visits[path] if sees_means else worth)
        return worth

    for _ in range(simulations):
        visit(())
    counts = [visits.get((action,), 0) for action in range(world.actions)]
    if constants.temperature == 0:
        chosen = counts.index(max(counts))
    else:
        weights = [(count / max(counts)) ** (1 / constants.temperature) for count in counts]
        chosen = generator.choice(world.actions, p=[each / sum(weights) for each in weights])
    return counts, int(chosen), sums[()] / visits[()], depths


@pytest.mark.parametrize("actions", [1, 2, 6])
@pytest.mark.parametrize(
    "constants",
    [
        {"temperature": 0, "noise_fraction": 0},
        {"discount": 0.5},
        {"temperature": 0.5, "pb_c_init": 3.0, "pb_c_base": 20.0},
        {"discount": 1, "dirichlet_alpha": 2.0, "noise_fraction": 1},
    ],
    ids=str,
)
def test_a_search_of_many_is_the_independent_search_of_each(actions, constants):
    config, envs = SearchConfig(num_simulations=60, **constants), [0, 1, 2]
    for seed in range(4):
        world = World(actions, seed)
        oracle = Oracle(world)
        found = Search(oracle, config).run(oracle.inference(envs, [()] * 3), generators(seed=seed), envs)
        for env, generator in enumerate(generators(seed=seed)):
            counts, chosen, value, depths = judged(world, env, generator, 60, config)
            assert found.visit_counts[env].tolist() == counts
            assert found.actions[env] == chosen
            assert found.values[env] == pytest.approx(value, rel=1e-12)
            assert found.depths[:, env].tolist() == depths


def test_bounds_of_single_values_would_be_another_search():
    """Which of the two rules it is shows in what is found: the judge can tell them apart."""
    config = SearchConfig(num_simulations=60)
    one, other = (
        [judged(World(4, seed), 0, *generators(1), 60, config, sees_means) for seed in range(8)]
        for sees_means in (True, False)
    )
    assert sum(a[0] != b[0] for a, b in zip(one, other, strict=True)) > 4


def test_what_pays_best_is_visited_most_and_chosen_at_temperature_0():
    def pays(env, path):
        return [0.0, 1.0, 0.2][path[-1]] if path else 0.0, 0.0, np.zeros(3)

    oracle = Oracle(pays)
    config = SearchConfig(num_simulations=60, noise_fraction=0, temperature=0)
    result = Search(oracle, config).run(oracle.inference([0, 1], [()] * 2), generators(2), [0, 1])
    assert (result.visit_counts.argmax(axis=1) == 1).all()
    assert (result.actions == 1).all()
    assert (result.visit_counts[0] == result.visit_counts[1]).all()
