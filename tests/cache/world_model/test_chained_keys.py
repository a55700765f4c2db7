"""Chained keys: a context is found by its whole history, so that equal latents do not get one another's contexts."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xxhash
from test_model import ROUNDING, each_cache, each_position, far, model_of, observations, part

from kvcache.backend import Scope
from kvcache.chain import Chain, begun, extended
from kvcache.observed import ObservedCache
from kvcache.world_model import Search, SearchConfig
from kvcache.world_model.play import play

ENVS, ACTIONS, TOKENS = 3, 6, 24


def model_of_few_latents(cache, distinct=2, **options):
    """A model whose predicted latents are a few, so that most nodes share one: LightZero's are so before training."""
    options = {"context_length": TOKENS, "mask_padding": True, **options}
    model = model_of(cache, **options)
    model.latent_head = FewLatents(model.latent_head, distinct)
    return model


class FewLatents(torch.nn.Module):
    def __init__(self, head, distinct):
        super().__init__()
        self.head, self.distinct = head, distinct

    def forward(self, acted):
        chosen = self.head(acted).argmax(-1) % self.distinct
        return torch.nn.functional.one_hot(chosen, acted.shape[-1]).to(acted.dtype)


class Tree:
    """Random trees below the roots of each environment, and the history by which each context is known."""

    def __init__(self, model, seed=0):
        self.model, self.random = model, np.random.default_rng(seed)
        self.chained = model.config.chained_keys
        self.last, self.lines = None, []
        self.misses = 0

    def search(self, time, simulations=6):
        """One search; returns the largest difference to the predictions without a cache."""
        actions = [-1] * ENVS if self.last is None else self.random.integers(0, ACTIONS, ENVS).tolist()
        found = self.model.forward_initial_inference(observations(ENVS, 5, time), self.last, actions, timesteps=time)
        # Of each environment: the latents and actions of a node's history, and its time.
        self.lines = [
            self._grown(line, found, row, actions[row], time) for row, line in enumerate(self.lines or [None] * ENVS)
        ]
        self.last = found.latents
        nodes = [[(line, found, row)] for row, line in enumerate(self.lines)]
        worst = 0.0
        for _ in range(simulations):
            worst = max(worst, self._simulate(nodes))
        return worst

    def _simulate(self, nodes):
        parents = [each[self.random.integers(len(each))] for each in nodes]
        taken = self.random.integers(0, ACTIONS, ENVS).tolist()
        keys = {"keys": [found.keys[row] for _, found, row in parents]} if self.chained else {}
        found = self.model.forward_recurrent_inference(
            np.stack([found.latents[row] for _, found, row in parents]), taken,
            timesteps=[line[2] for line, _, _ in parents], **keys,
        )  # fmt: skip
        worst = 0.0
        for row, (line, _, _) in enumerate(parents):
            known = line
            if found.sizes[row] != 2 * len(line[0]) - 1:  # a miss: the context was made of the latent alone
                assert found.sizes[row] == 1
                self.misses += 1
                known = (line[0][-1:], [], line[2])
            grown = self._grown(known, found, row, taken[row], line[2] + 1)
            nodes[row].append((grown, found, row))
            worst = max(worst, self._off(grown, part(found, slice(row, row + 1))))
        return worst

    def _grown(self, line, found, row, action, time):
        latents, actions = ([], []) if line is None else line[:2]
        return [*latents, found.latents[row]], ([*actions, action] if latents else []), time

    def _off(self, line, found):
        latents, actions, time = line
        window = np.concatenate(latents)[None]
        return far(found, self.model.forward_without_cache(window, [actions], time - len(actions)))


@each_cache
@each_position
class TestHistories:
    def test_equal_latents_have_contexts_of_their_own(self, cache, positions):
        tree = Tree(model_of_few_latents(cache, positions=positions, chained_keys=True))
        assert max(tree.search(time) for time in range(6)) < ROUNDING
        assert tree.misses == 0

    def test_with_their_latents_keys_they_share_them(self, cache, positions):
        tree = Tree(model_of_few_latents(cache, positions=positions))
        with pytest.raises(AssertionError):  # sizes of another history, or another prediction
            assert max(tree.search(time) for time in range(6)) < ROUNDING

    def test_contexts_that_were_evicted_begin_anew_under_names_of_their_own(self, cache, positions):
        options = {"positions": positions, "chained_keys": True, "recur_pool_size": 4}
        if not cache:
            options["recur_pool_size"] = 18  # a full legacy pool has stale hits
        tree = Tree(model_of_few_latents(cache, **options))
        assert max(tree.search(time) for time in range(6)) < ROUNDING
        assert (tree.misses > 0) is bool(cache)


@each_cache
def test_keys_of_nodes_are_as_many_as_their_histories(cache):
    model = model_of_few_latents(cache, distinct=1, chained_keys=True)
    roots = model.forward_initial_inference(observations(ENVS, 1))
    one, other, same = (
        model.forward_recurrent_inference(roots.latents, [action] * ENVS, keys=roots.keys) for action in (0, 1, 0)
    )
    assert np.array_equal(one.latents, other.latents)
    assert one.keys == same.keys
    assert not set(one.keys) & set(other.keys)
    deeper = model.forward_recurrent_inference(one.latents, [0] * ENVS, keys=one.keys, timesteps=1)
    assert not set(deeper.keys) & set(one.keys)


@each_cache
def test_a_search_finds_what_it_finds_without(cache):
    """Where all latents are distinct, keys of histories change nothing."""
    plain, chained = (
        list(play(model_of(cache, chained_keys=chained), 8, 0, SearchConfig(num_simulations=6), episode_length=5))
        for chained in (False, True)
    )
    for one, other in zip(plain, chained, strict=True):
        assert np.array_equal(one.result.visit_counts, other.result.visit_counts)
        assert np.array_equal(one.result.values, other.result.values)
        assert one.roots.keys is None
        assert len(other.roots.keys) == ENVS


@each_cache
def test_a_search_over_equal_latents_never_misses(cache):
    model = model_of_few_latents(cache, chained_keys=True)
    list(play(model, 8, 0, SearchConfig(num_simulations=6), episode_length=5))
    assert model.cache.hierarchy_stats.misses == 0
    assert model.cache.hierarchy_stats.hits == 8 * 6 * ENVS


@each_position
def test_a_root_that_follows_no_known_one_begins_anew(positions):
    """Its key says so: the context of the latent alone, at its own position."""
    model = model_of({"use_new_cache_manager": True}, positions=positions, chained_keys=True)
    first = model.forward_initial_inference(observations(ENVS, 1), timesteps=0)
    later = model.forward_initial_inference(observations(ENVS, 1), timesteps=7)
    assert np.array_equal(first.latents, later.latents)
    assert (first.keys == later.keys) is (positions == "absolute")
    known = model.forward_initial_inference(observations(ENVS, 2), later.latents, [0] * ENVS, timesteps=8)
    assert known.sizes == [1] * ENVS
    strange = model.forward_initial_inference(
        observations(ENVS, 3), observations(ENVS, 9, shape=(1, 32)), [0] * ENVS, timesteps=9
    )
    assert strange.sizes == [1] * ENVS
    assert not set(strange.keys) & set(known.keys)


@pytest.mark.parametrize("chained_keys", [False, True])
def test_a_root_that_was_seen_before_at_another_time(chained_keys):
    """With rotary positions a context belongs to its place: elsewhere its tokens are at other distances."""
    for time, right in (6, True), (1, chained_keys):  # a caller that goes on, and one that goes back
        model = model_of({"use_new_cache_manager": True}, 24, "rotary", chained_keys=chained_keys, mask_padding=True)
        for seen in (0, 5):
            first = model.forward_initial_inference(observations(ENVS, 1), timesteps=seen)
        found = model.forward_initial_inference(observations(ENVS, 2), first.latents, [2] * ENVS, timesteps=time)
        window = np.concatenate([first.latents, found.latents], axis=1)
        wanted = model.forward_without_cache(window, [[2]] * ENVS, time - 1)
        assert (far(found, wanted, "policy_logits", "values") < ROUNDING) is right


@each_position
def test_what_grows_from_a_context_made_anew_has_another_name(positions):
    options = {"positions": positions, "chained_keys": True, "recur_pool_size": ENVS}
    model = model_of_few_latents({"use_new_cache_manager": True}, distinct=1, **options)
    roots = model.forward_initial_inference(observations(ENVS, 1))
    model.forward_initial_inference(observations(ENVS, 2), roots.latents, [0] * ENVS, timesteps=1)
    roots = model.forward_initial_inference(observations(ENVS, 3), roots.latents, [0] * ENVS, timesteps=1)
    child = model.forward_recurrent_inference(roots.latents, [0] * ENVS, timesteps=1, keys=roots.keys)
    first, again = (
        model.forward_recurrent_inference(child.latents, [0] * ENVS, timesteps=2, keys=child.keys) for _ in range(2)
    )
    assert (first.sizes, again.sizes) == ([child.sizes[0] + 2] * ENVS, [1] * ENVS)  # the first one evicted the child
    assert np.array_equal(first.latents, again.latents)
    assert not set(first.keys) & set(again.keys)


def test_after_the_weights_changed_contexts_are_made_anew():
    tree = Tree(model_of_few_latents({"use_new_cache_manager": True}, chained_keys=True))
    tree.search(0)
    with torch.no_grad():
        next(tree.model.transformer.parameters()).mul_(1.5)
    tree.lines = [(line[0][-1:], [], line[2]) for line in tree.lines]
    assert tree.search(1) < ROUNDING


def test_reanalysis_needs_no_keys():
    model = model_of({"use_new_cache_manager": True}, chained_keys=True)
    roots = model.forward_initial_inference(observations(5, 1), reanalyzes=True)
    assert roots.keys is None
    assert model.forward_recurrent_inference(roots.latents, [0] * 5, reanalyzes=True).keys is None
    Search(model, SearchConfig(num_simulations=3)).run(roots, [np.random.default_rng(0)] * 5, reanalyzes=True)


def test_a_context_without_a_past_has_no_keys():
    model = model_of({"use_new_cache_manager": True}, 2, chained_keys=True)
    roots = model.forward_initial_inference(observations(ENVS, 1))
    assert roots.keys is None
    assert model.forward_recurrent_inference(roots.latents, [0] * ENVS).keys is None


class TestErrors:
    def model(self, **options):
        model = model_of({"use_new_cache_manager": True}, chained_keys=True, **options)
        return model, model.forward_initial_inference(observations(ENVS, 1))

    @pytest.mark.parametrize(("keys", "got"), [(None, "none"), ([1, 2], "2")])
    def test_a_node_needs_its_context_s_key(self, keys, got):
        model, roots = self.model()
        with pytest.raises(ValueError, match=f"chained_keys=True: keys must be those of the 3 contexts.*got {got}"):
            model.forward_recurrent_inference(roots.latents, [0] * ENVS, keys=keys)

    def test_the_three_methods_by_themselves_do_not_know_the_actions(self):
        model, roots = self.model()
        with pytest.raises(ValueError, match="chained_keys=True: retrieve_or_generate_kvcache does not know"):
            model.retrieve_or_generate_kvcache(roots.latents, ENVS)

    def test_it_is_a_truth_value(self):
        with pytest.raises(ValueError, match="chained_keys must be True or False, got 'yes'"):
            model_of({}, chained_keys="yes")


def test_a_root_in_two_parts_has_keys_in_order():
    model = model_of({"use_new_cache_manager": True}, chained_keys=True)
    first = model.forward_initial_inference(observations(ENVS, 1))
    both = model.forward_initial_inference(observations(ENVS, 2), first.latents, [0, -1, 0], timesteps=[1, 0, 1])
    begins = [begun(key) for key in model.cache.hash_states(both.latents)]
    assert [key in begins for key in both.keys] == [False, True, False]
    assert both.keys[1] == begins[1]


def test_verified_chained_keys_differ_where_their_numbers_do_not(monkeypatch):
    whole = xxhash.xxh64_intdigest
    short = SimpleNamespace(xxh64_intdigest=lambda data: whole(data) % 16, xxh3_128_digest=xxhash.xxh3_128_digest)
    monkeypatch.setattr("kvcache.chain.xxhash", short)
    monkeypatch.setattr("kvcache.hashing.xxhash", short)
    options = {"chained_keys": True, "verify_keys": True}
    tree = Tree(model_of_few_latents({"use_new_cache_manager": True}, **options))
    assert max(tree.search(time) for time in range(6)) < ROUNDING
    assert tree.misses == 0
    assert tree.model.cache.collisions > 0


def test_under_validation_both_caches_find_the_same():
    model = model_of_few_latents({"use_new_cache_manager": True}, chained_keys=True, cache_validation_mode=True)
    list(play(model, 6, 0, SearchConfig(num_simulations=6), episode_length=4))
    assert model.cache.report.compared == model.cache.report.lookups > 100


def test_a_copy_goes_on_by_itself():
    model = model_of({"use_new_cache_manager": True}, chained_keys=True)
    first = model.forward_initial_inference(observations(ENVS, 1))
    twin = copy.deepcopy(model)
    one, other = (
        each.forward_initial_inference(observations(ENVS, 2), first.latents, [0] * ENVS, timesteps=1)
        for each in (model, twin)
    )
    assert one.keys == other.keys
    assert one.sizes == other.sizes == [1] * ENVS
    assert far(one, other) < ROUNDING


class TestChain:
    def test_a_key_is_of_every_part(self):
        keys = [begun(1), begun(2), begun(1, 3), extended(1, 2, b"a"), extended(2, 1, b"a"), extended(1, 2, b"b")]
        assert len(set(keys)) == len(keys)
        assert all(0 <= key < 2**64 for key in keys)

    def test_the_last_root_is_extended_if_it_is_the_one_that_is_meant(self):
        chain = Chain()
        chain.put_roots([0, 1, 3], [7, 8, 7], [0, 0, 4], [70, 80, 90])
        asked = [0, 1, 2, 3], [7, 9, 7, 7], [0, 0, 0, 6]
        assert chain.after_roots(*asked) == [70, begun(9), begun(7), begun(7, 6)]


def test_lookups_are_of_the_keys_that_were_stored():
    model = model_of({"use_new_cache_manager": True}, chained_keys=True)
    asked, stored = [], set()

    def observer(operation, call, *args):
        if operation == "lookup" and args[2] is Scope.NODE:
            asked.extend(args[1])
        if operation == "store":
            stored.update(args[1])
        return call(*args)

    model.cache = ObservedCache(model.cache, observer)
    list(play(model, 3, 0, SearchConfig(num_simulations=6)))
    assert set(asked) <= stored
    assert len(stored) == 3 * 7 * ENVS


@pytest.mark.parametrize("chained_keys", [False, True])
def test_a_search_over_some_environments_names_those_of_its_roots(chained_keys):
    """With others it looks into their init pools: there the roots are not."""
    for envs, misses in ([2, 0], False), (None, True):
        model = model_of({"use_new_cache_manager": True}, chained_keys=chained_keys)
        roots = model.forward_initial_inference(observations(2, 1), envs=[2, 0])
        search = Search(model, SearchConfig(num_simulations=6))
        search.run(roots, [np.random.default_rng(row) for row in range(2)], envs)
        assert (model.cache.hierarchy_stats.misses > 0) is misses


def test_environments_of_one_latent_have_contexts_of_their_own():
    """The recurrent pool is all environments' own: with keys of latents one would find the other's context."""
    model = model_of_few_latents({"use_new_cache_manager": True}, distinct=1, chained_keys=True)
    roots = model.forward_initial_inference(observations(ENVS, 1))
    found = model.forward_recurrent_inference(roots.latents, [0] * ENVS, keys=roots.keys)
    assert len({each.tobytes() for each in found.latents}) == 1
    deeper = model.forward_recurrent_inference(found.latents, [1] * ENVS, timesteps=1, keys=found.keys)
    for row in range(ENVS):
        window = np.concatenate([each.latents[row] for each in (roots, found, deeper)])[None]
        wanted = model.forward_without_cache(window, [[0, 1]])
        assert far(part(deeper, slice(row, row + 1)), wanted) < ROUNDING
