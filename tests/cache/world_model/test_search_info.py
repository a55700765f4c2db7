"""What the search hands over to a cache that evicts by it."""

import pytest
from traces import steps_of

from kvbench.record.world_model import record_model
from kvbench.trace.reader import TraceReader
from kvcache import EvictionStrategy, Geometry
from kvcache.eviction import LruPolicy
from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig, play

ACTIONS = 3
GEOMETRY = Geometry(
    num_layers=1, num_heads=1, embed_dim=8, context_length=8, env_num=2, num_simulations=12, positions="absolute"
)


class Spy(LruPolicy):
    """LRU that remembers what it was told."""

    sees_entries = True
    told: list

    def insert(self, slot, info):
        super().insert(slot, info)
        self.told.append(info)

    def update(self, slot, info):
        super().update(slot, info)
        self.told.append(info)


def config(**options):
    return WorldModelConfig(GEOMETRY, action_space_size=ACTIONS, use_new_cache_manager=True, **options)


def played(model, steps=3, leaves=1):
    for _ in play(model, steps, 0, SearchConfig(GEOMETRY.num_simulations, leaves=leaves)):
        pass


@pytest.fixture
def told(monkeypatch):
    told = []
    monkeypatch.setattr(Spy, "told", told, raising=False)
    monkeypatch.setattr("kvcache.eviction._POLICIES", {EvictionStrategy.LRU: Spy})
    return told


@pytest.mark.parametrize("leaves", [1, 3])
def test_a_policy_is_told_the_tree(told, leaves):
    played(WorldModel(config(eviction_strategy="lru")), leaves=leaves)
    below, roots = [each for each in told if each.depth], [each for each in told if each.depth == 0]
    assert len(below) == 3 * 2 * 12
    assert len(roots) == 3 * 2
    assert {each.actions for each in told} == {ACTIONS}
    assert {each.env for each in told} == {0, 1}
    assert all(each.visits is each.prior is None for each in roots)
    went_on: dict = {}
    for number, each in enumerate(below):
        search = number // 24
        assert 0 < each.prior < 1
        children = went_on.setdefault((search, each.env, each.parent), [])
        if leaves == 1 and not children:
            assert each.visits == 0  # the first that goes on from there
        assert each.visits >= len(children) if leaves == 1 else each.visits >= 0
        children.append(each.prior)
    assert 4 < max(each.visits for each in below) <= 12 - leaves
    assert all(sum(priors) < 1 + 1e-6 for priors in went_on.values()) or leaves > 1


def test_a_recorded_search_says_the_same(told, tmp_path):
    list(record_model(tmp_path / "trace", config(eviction_strategy="lru"), 3, 0))
    recorded = [
        (key, parent, env, visits, prior)
        for step in steps_of(tmp_path / "trace")
        for key, parent, env, visits, prior in zip(
            step.keys, step.parents, step.envs, step.visits or [None] * 2, step.priors or [None] * 2, strict=True
        )
    ]
    assert recorded == [(each.key, each.parent, each.env, each.visits, each.prior) for each in told]
    assert TraceReader(tmp_path / "trace").header.actions == ACTIONS


def test_a_recorder_asks_for_it_where_the_cache_does_not(tmp_path):
    list(record_model(tmp_path / "trace", config(), 1, 0))
    below = [step for step in steps_of(tmp_path / "trace") if step.is_recurrent]
    assert len(below) == 12
    assert all(None not in step.visits and None not in step.priors for step in below)


def test_nothing_is_collected_where_nobody_looks(monkeypatch):
    def fail(_):
        raise AssertionError("collected")

    monkeypatch.setattr("kvcache.world_model.tree.Trees.info", property(fail))
    played(WorldModel(config()))
