"""Watching stand-ins of LightZero's policy, world model and collector."""

from collections import defaultdict

import numpy as np
import pytest
import torch

from kvbench.training import watch as watch_module
from kvbench.training.own_cache import StaleHits, own_cache_bytes
from kvbench.training.watch import Watch


class Clock:
    """Whatever takes time adds to it."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watch_module, "time", clock)
    return clock


class Tokenizer:
    def __init__(self, clock):
        self.clock = clock

    def encode_to_obs_embeddings(self, observation):
        self.clock.now += 8


class WorldModel:
    def __init__(self, clock):
        self.clock = clock
        self.tokenizer = Tokenizer(clock)
        self.past_kv_cache_init_infer_envs = [defaultdict(dict)]
        self.past_kv_cache_recurrent_infer = defaultdict(dict)

    def forward(self, latent):
        self.clock.now += 16

    def forward_initial_inference(self, observation):
        self.clock.now += 1
        self.tokenizer.encode_to_obs_embeddings(observation)
        self.forward(observation)

    def forward_recurrent_inference(self, latent):
        self.clock.now += 2
        self.forward(latent)
        return None, latent


def make_classes(clock):
    """The classes are changed by a watch: every test has its own."""

    class Policy:
        def _init_collect(self):
            self._collect_model = self
            self._model = torch.nn.Linear(1, 1, bias=False)
            self.world_model = WorldModel(clock)

        def _forward_collect(self, observations, fails=False):
            clock.now += 32  # the tree
            self.world_model.forward_initial_inference(observations)
            for latent in (1.0, 2.0, 2.0):
                self.world_model.forward_recurrent_inference(torch.full((2, 1, 4), latent))
            if fails:
                raise ValueError("no search")
            found = {
                "action": np.int64(1),
                "visit_count_distributions": [3, 2],
                "searched_value": 0.5,
                "predicted_value": np.array([[0.25]]),
            }
            return {0: found, 2: found}

        def _forward_learn(self, data):
            self.world_model.forward(data)
            return {"weighted_total_loss": 1.5, "names": "text", "rows": [1, 2]}

    class Collector:
        def __init__(self):
            self._episode_info = []

        def collect(self, steps):
            self._episode_info.append({"reward": np.array([3.0]), "step": steps})
            self._episode_info.clear()
            return "data"

    return Policy, Collector


@pytest.fixture
def run(clock):
    policy_class, collector_class = make_classes(clock)
    notes = []
    watch = Watch(policy_class, collector_class, lambda kind, values: notes.append((kind, values)))
    policy = policy_class()
    policy._init_collect()
    return watch, policy, collector_class(), notes


def test_a_searchs_time_is_its_cache_its_forward_passes_and_its_tree(run):
    watch, policy, _, _ = run
    policy._forward_collect(None)
    assert watch.searches == 1
    assert watch.seconds == {"search": 32 + 1 + 8 + 16 + 3 * (2 + 16), "inference": 1 + 24 + 3 * 18, "forward": 8 + 64}


def test_only_searches_that_collect_are_timed(run):
    watch, policy, _, _ = run
    policy.world_model.forward_recurrent_inference(torch.zeros(1, 1, 4))
    policy._forward_learn(None)
    assert set(watch.seconds.values()) == {0.0}
    assert watch.latents == 0


def test_each_environments_search_is_noted(run):
    _, policy, _, notes = run
    policy._forward_collect(None)
    values = {"action": 1, "visits": [3, 2], "searched value": 0.5, "predicted value": 0.25}
    assert notes == [("search", {"environment": env, **values}) for env in (0, 2)]


def test_a_learning_step_has_its_scalars_and_the_weights(run):
    _, policy, _, notes = run
    policy._forward_learn(None)
    weights = float(policy._model.weight.detach().double().sum())
    assert notes == [("learn", {"weighted_total_loss": 1.5, "sum of weights": weights})]


def test_an_episode_is_noted_before_the_collector_forgets_it(run):
    _, _, collector, notes = run
    assert collector.collect(9) == "data"
    collector.collect(4)
    assert notes == [("episode", {"return": 3.0, "length": length}) for length in (9, 4)]


def test_keys_of_predicted_latents(run):
    watch, policy, _, _ = run
    policy._forward_collect(None)
    assert (watch.latents, len(watch.keys)) == (6, 2)
    assert watch.distinct_keys == pytest.approx(1 / 3)


def test_a_search_that_fails_leaves_no_clock_running(run):
    watch, policy, _, notes = run
    with pytest.raises(ValueError, match="no search"):
        policy._forward_collect(None, fails=True)
    searched = dict(watch.seconds)
    policy.world_model.forward_recurrent_inference(torch.zeros(1, 1, 4))
    assert watch.seconds == searched
    assert (watch.searches, notes) == (0, [])


class TestLightZerosOwnCache:
    def test_a_slot_that_another_key_took_is_a_stale_hit(self, clock):
        model = WorldModel(clock)
        stale = StaleHits(model)
        root, nodes = model.past_kv_cache_init_infer_envs[0], model.past_kv_cache_recurrent_infer
        root["a"], nodes["a"], nodes["b"] = 0, 0, 1
        assert (root.get("a"), nodes.get("b"), nodes.get("c")) == (0, 1, None)
        assert stale.count == 0
        nodes["c"] = 0  # a's
        assert (nodes.get("a"), nodes.get("c"), root.get("a")) == (0, 0, 0)
        assert stale.count == 1
        root["b"] = 0
        assert root.get("a") == 0
        assert stale.count == 2

    def test_after_a_clear_nothing_is_found(self, clock):
        model = WorldModel(clock)
        stale, nodes = StaleHits(model), model.past_kv_cache_recurrent_infer
        nodes["a"] = 0
        nodes.clear()
        assert nodes.get("a") is None
        nodes["b"] = 0
        assert nodes.get("b") == 0
        assert stale.count == 0

    def test_the_watch_counts_them(self, run):
        watch, policy, _, _ = run
        nodes = policy.world_model.past_kv_cache_recurrent_infer
        nodes["a"] = nodes["b"] = 0
        nodes.get("a")
        assert watch.stale_hits.count == 1

    def test_another_cache_counts_its_own(self, clock, monkeypatch):
        monkeypatch.setattr(WorldModel, "__init__", lambda self, clock: self.__dict__.update(
            clock=clock, tokenizer=Tokenizer(clock), past_kv_cache_recurrent_infer=object()
        ))  # fmt: skip
        policy_class, collector_class = make_classes(clock)
        watch = Watch(policy_class, collector_class, lambda kind, values: None)
        policy_class()._init_collect()
        assert watch.stale_hits is None

    def test_bytes_of_all_slots_that_were_ever_used(self):
        class Of:
            def __init__(self, **attributes):
                vars(self).update(attributes)

        cache = Of(_cache=torch.zeros(1, 2, 8, 4))  # 256 bytes
        context = Of(_keys_values=[Of(_k_cache=cache, _v_cache=cache)])
        model = Of(
            shared_pool_init_infer=[[context, None], [None, None]], shared_pool_recur_infer=[context, None],
            shared_pool_wm=[None], keys_values_wm=context,
        )  # fmt: skip
        assert own_cache_bytes(model) == 3 * 512
