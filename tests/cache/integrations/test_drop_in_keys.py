"""Verified and chained keys in LightZero: its own search, whose predicted latents are few."""

import copy

import numpy as np
import pytest
import torch

pytest.importorskip("lzero", reason="LightZero is not installed: tox -e lightzero")

from lightzero_driver import ENVS, Driver, is_main, largest_difference, make_model
from test_drop_in_policies import make_policy, played

from kvcache import ObservedCache
from kvcache.integrations import lightzero
from kvcache.integrations.lightzero.attachment import Attachment

NEW = {"use_new_cache_manager": True}
EXACT = {**NEW, "cache_exact_layout": True}
CHAINED = {**NEW, "chained_keys": True}


@pytest.fixture(autouse=True)
def installed():
    lightzero.install()
    yield
    lightzero.uninstall()


class FewLatents(torch.nn.Module):
    """The head of predicted latents, which are two: LightZero's are so before training."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, *args, **kwargs):
        found = self.head(*args, **kwargs)
        chosen = found.sum(-1) > 0
        return torch.stack([chosen, ~chosen], -1).to(found.dtype).repeat_interleave(found.shape[-1] // 2, -1)


def few_latents(policy):
    for model in {policy._collect_model, policy._eval_model}:
        model.world_model.head_observations = FewLatents(model.world_model.head_observations)
    return policy


class NotingDriver(Driver):
    """A search that notes its picks as LightZero's trees do."""

    def recurrent(self, latents, simulation, picks, start):
        actions = self._actions(len(latents))
        Attachment.traversals.last = [(int(pick), row, actions[row]) for row, pick in enumerate(picks)]
        token = torch.from_numpy(np.array(actions)).to(torch.float32 if self.continuous else torch.int64)
        return self.model.recurrent_inference([(latents, token)], simulation, [int(pick) for pick in picks], start)


class Histories:
    """Notes with which history each context was stored, by its content: the first numbers of its last token."""

    def __init__(self, world_model):
        self.asked, self.stored = [], []
        lightzero.backend_of(world_model)
        attachment = vars(world_model)["_kvcache_attachment"]
        attachment.observe(lambda backend: ObservedCache(backend, self))

    def __call__(self, operation, call, *args):
        if operation == "lookup":
            self.asked += [key for key in args[1] if key is not None]
        if operation == "store":
            self.stored += args[1]
        return call(*args)


def distinct(policy):
    """Share of stored keys that are used once."""
    histories = Histories(policy._collect_model.world_model)
    played(policy, modes=1)
    assert set(histories.asked) & set(histories.stored)
    return len(set(histories.stored)) / len(histories.stored)


@pytest.mark.parametrize("continuous", [False, True], ids=["UniZero", "sampled UniZero"])
def test_nodes_of_equal_latents_have_keys_of_their_own(continuous):
    shared = distinct(few_latents(make_policy(continuous, **NEW)))
    chained = distinct(few_latents(make_policy(continuous, **CHAINED)))
    assert shared < 0.5
    assert chained > 0.9  # an environment that begins anew has the same roots again


@pytest.mark.parametrize("continuous", [False, True], ids=["UniZero", "sampled UniZero"])
def test_a_search_finds_every_node(continuous):
    policy = few_latents(make_policy(continuous, **CHAINED))
    played(policy, modes=1)
    stats = lightzero.backend_of(policy._collect_model).hierarchy_stats
    assert (stats.hits > 0, stats.misses) == (True, 0)


@pytest.mark.parametrize("rotary", [False] if is_main() else [False, True])  # main refuses this driver's positions
def test_where_latents_are_distinct_nothing_changes(rotary):
    theirs = played(make_policy(rotary_emb=rotary))
    ours = played(make_policy(**EXACT, chained_keys=True, verify_keys=True, rotary_emb=rotary))
    assert all(map(np.array_equal, ours, theirs))


@pytest.mark.parametrize("rotary", [False, True], ids=["absolute", "rotary"])
@pytest.mark.parametrize("storage", ["private", "slab", "paged"])
def test_every_storage_has_the_same_bits(storage, rotary):
    found = []
    for config in ({}, {**EXACT, "chained_keys": True, "verify_keys": True, "cache_storage": storage}):
        driver = NotingDriver(make_model(rotary_emb=rotary, **config))
        outputs = []
        for step in range(12):
            if step == 9:
                driver.restart()
            outputs += driver.search(3 if step < 6 else 2)
        found.append(outputs)
    assert largest_difference(*found) == 0
    assert lightzero.backend_of(driver.model).collisions == 0


@pytest.mark.skipif(is_main(), reason="main's reanalysis looks contexts up")
def test_reanalysis_of_0_2_0_looks_nothing_up():
    model = make_model(**CHAINED)
    driver = NotingDriver(model)
    driver.search()
    before = lightzero.backend_of(model).get_stats_summary()
    model.world_model.reanalyze_phase = True
    latents = np.zeros((8, 1, 32), np.float32)
    found = model.recurrent_inference([(latents, torch.zeros(8, dtype=torch.int64))], 0, [1] * 8, np.zeros((4, 1), int))
    assert found.latent_state.shape == (8, 1, 32)
    assert lightzero.backend_of(model).get_stats_summary()["recur_pool"] == before["recur_pool"]
    model.world_model.reanalyze_phase = False
    driver.search()
    assert lightzero.backend_of(model).hierarchy_stats.misses == 0


def test_with_small_pools_contexts_begin_anew():
    policy = few_latents(make_policy(**CHAINED, recur_pool_size=4))
    played(policy, modes=1)
    assert lightzero.backend_of(policy._collect_model).hierarchy_stats.misses > 0


def test_it_follows_the_whole_tree():
    """Two simulations from one node by two actions, and one from each child: four contexts, of one latent."""
    model = make_model(**CHAINED)
    model.world_model.head_observations = FewLatents(model.world_model.head_observations)
    histories, traversals = Histories(model.world_model), Attachment.traversals
    driver = Driver(model, simulations=0)
    driver.search()
    root = histories.stored[-ENVS:]
    latents = torch.zeros(ENVS, 1, 32).numpy()
    roots = model.world_model.latent_state.numpy()
    made = []
    for simulation, (node, action) in enumerate([(0, 0), (0, 1), (1, 0), (2, 0)]):
        latents = roots if node == 0 else made[node - 1]
        traversals.last = [(node, row, action) for row in range(ENVS)]
        found = model.recurrent_inference(
            [(latents, torch.full((ENVS,), action))], simulation, [1] * ENVS, np.zeros(ENVS, int)
        )
        made.append(found.latent_state.numpy())
    keys = np.array(histories.stored[ENVS:], dtype=np.uint64).reshape(4, ENVS)
    asked = np.array(histories.asked[-4 * ENVS :], dtype=np.uint64).reshape(4, ENVS)
    assert asked.tolist() == [root, root, keys[0].tolist(), keys[1].tolist()]
    assert len(np.unique(keys)) == 4 * ENVS
    assert lightzero.backend_of(model).hierarchy_stats.misses == 0


def test_another_search_is_refused_by_name():
    driver = Driver(make_model(**CHAINED))
    with pytest.raises(lightzero.UnsupportedLightZeroError, match="chained_keys=True needs to know which node"):
        driver.search()


def test_uninstall_gives_the_trees_back():
    from lzero.mcts.tree_search import mcts_ctree, mcts_ctree_sampled

    lightzero.uninstall()
    before = mcts_ctree.tree_muzero.batch_traverse, mcts_ctree_sampled.tree_sampled_muzero.batch_traverse
    lightzero.install()
    models = [make_model(**CHAINED), make_model(**CHAINED)]
    assert all(lightzero.backend_of(each) is not None for each in models)
    assert mcts_ctree.tree_muzero.batch_traverse is not before[0]
    lightzero.uninstall()
    after = mcts_ctree.tree_muzero.batch_traverse, mcts_ctree_sampled.tree_sampled_muzero.batch_traverse
    assert after == before


def test_a_copy_of_a_model_has_a_chain_of_its_own():
    model = make_model(**CHAINED)
    attachment = vars(copy.deepcopy(model).world_model)["_kvcache_attachment"]
    assert attachment.chain is not vars(model.world_model)["_kvcache_attachment"].chain
    assert attachment.chain is not None


def test_keys_are_verified_where_the_configuration_says_so():
    outputs = []
    for verify_keys in (False, True):
        driver = Driver(make_model(**EXACT, verify_keys=verify_keys))
        outputs.append([each for _ in range(4) for each in driver.search()])
        assert lightzero.backend_of(driver.model).collisions == (0 if verify_keys else None)
    assert largest_difference(*outputs) == 0


@pytest.mark.skipif(not is_main(), reason="LightZero 0.2.0 looks nothing up when it reanalyzes")
@pytest.mark.parametrize("verify_keys", [False, True])
@pytest.mark.parametrize("chained_keys", [False, True])
def test_replayed_roots_are_found_and_counted(verify_keys, chained_keys, monkeypatch):
    import test_lightzero_main

    monkeypatch.setattr(test_lightzero_main, "Driver", NotingDriver)
    theirs, _ = test_lightzero_main.reanalyzed()
    ours, driver = test_lightzero_main.reanalyzed(**EXACT, verify_keys=verify_keys, chained_keys=chained_keys)
    assert largest_difference(ours, theirs) == 0
    assert driver.model.world_model.reanalysis_root_seed_hit_count > 0


@pytest.mark.parametrize("name", ["verify_keys", "chained_keys"])
def test_settings_are_truth_values(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False, got 'yes'"):
        make_model(**NEW, **{name: "yes"})


def test_under_validation_both_caches_are_asked_by_the_same_keys():
    policy = few_latents(make_policy(**CHAINED, verify_keys=True, cache_validation_mode=True))
    played(policy, modes=1)
    report = lightzero.backend_of(policy._collect_model).report
    assert report.compared > 100
    assert (report.stale_hits, report.only_shadow) == (0, 0)
