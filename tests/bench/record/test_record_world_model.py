"""Recorded searches of the world model: replayed, they find what they found."""

from dataclasses import replace

import pytest
import torch
from test_model import CACHES, GEOMETRY, each_cache

from kvbench.record.world_model import ModelRecorder, record_model
from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import verify_replay
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import read_steps
from kvbench.trace.writer import TraceWriter
from kvcache import LegacyCache, ObservedCache
from kvcache.config import CacheConfig
from kvcache.registry import make_backend
from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig
from kvcache.world_model.play import play


def recorded(path, cache, searches=24, leaves=1, **options):
    config = WorldModelConfig(GEOMETRY, **cache, **options)
    assert list(record_model(path, config, searches, seed=0, leaves=leaves)) == list(range(1, searches + 1))
    return TraceReader(path)


def replayed(reader, backend, **options):
    geometry = reader.header.geometry
    cache = make_backend(backend, CacheConfig(geometry, **options))
    contents = Contents(geometry)
    cache.position_shift = contents.position_shift("cpu", torch.float32)
    return verify_replay(cache, list(read_steps(reader.events())), contents, Latents(geometry.embed_dim, "cpu"))


@each_cache
def test_a_trace_replays_as_it_was_recorded(tmp_path, cache):
    reader = recorded(tmp_path / "trace.parquet", cache)
    header = reader.header
    assert header.backend in ("legacy", "new")
    assert not header.synthetic
    assert (header.source["trained"], header.pools["recur"]) == (False, 18)
    result = replayed(reader, header.backend)
    assert result.faults == []
    assert result.outcomes.recorded == sum(result.outcomes.total.values()) > 400
    assert result.outcomes.disagreements == 0
    assert result.outcomes.total[Outcome.HIT] == result.outcomes.recorded


@pytest.mark.parametrize("name", ["legacy", "slab"])
def test_small_pools_replay_as_they_were_recorded_too(tmp_path, name):
    """Misses of the new cache, and of legacy what it took for hits."""
    reader = recorded(tmp_path / "trace.parquet", CACHES[name], recur_pool_size=5)
    backend = "legacy" if name == "legacy" else "new:slab"
    result = replayed(reader, backend, recur_pool_size=5)
    assert result.faults == []
    assert result.outcomes.disagreements == 0
    assert result.outcomes.total[Outcome.STALE_HIT if name == "legacy" else Outcome.MISS] > 0


def test_recording_changes_nothing(tmp_path):
    found = []
    for records in (False, True):
        model = WorldModel(WorldModelConfig(GEOMETRY))
        if records:
            header = recorded(tmp_path / "other.parquet", {}, searches=1).header
            with TraceWriter(tmp_path / "trace.parquet", header) as writer, ModelRecorder(model, writer):
                searches = list(play(model, 3, 0, SearchConfig(6)))
                assert isinstance(model.cache, ObservedCache)
            assert isinstance(model.cache, LegacyCache)
            assert model.inference_observers == []
        else:
            searches = list(play(model, 3, 0, SearchConfig(6)))
        found.append([each.result.values.tolist() for each in searches])
    assert found[0] == found[1]


def test_what_is_never_asked_cannot_be_recorded(tmp_path):
    config = WorldModelConfig(replace(GEOMETRY, context_length=2))
    with pytest.raises(ValueError, match="a context of 2 tokens keeps no past"):
        next(record_model(tmp_path / "trace.parquet", config, 1, 0))
    assert not list(tmp_path.iterdir())


def test_calls_of_any_shape_clears_and_a_shadowed_cache_are_recorded(tmp_path):
    config = WorldModelConfig(GEOMETRY, cache_validation_mode=True)
    assert len(list(record_model(tmp_path / "first.parquet", config, 1, 0))) == 1
    header = TraceReader(tmp_path / "first.parquet").header
    assert header.backend == "legacy"
    model, seen = WorldModel(config), torch.zeros(3, 4)
    with TraceWriter(tmp_path / "trace.parquet", header) as writer, ModelRecorder(model, writer):
        roots = model.forward_initial_inference(observations=seen, timesteps=4)
        model.forward_recurrent_inference(roots.latents, actions=[0, 1, 2], timesteps=4)
        model.clear_caches()
        model.forward_initial_inference(seen, roots.latents, [0, 0, 0], None, 5)
    events = list(TraceReader(tmp_path / "trace.parquet").events())
    assert [each["scope"] for each in events if each["kind"] == "clear"] == ["recur", "all", "recur"]
    assert [each["hit"] for each in events if each["kind"] == "lookup"] == [True] * 3 + [False] * 3
    assert {each["depth"] for each in events if each["scope"] == "node" and each["kind"] == "lookup"} == {1}


@each_cache
def test_verified_keys_are_recorded_as_the_numbers_they_are(tmp_path, cache):
    plain, verified = (
        list(recorded(tmp_path / f"{verify_keys}.parquet", cache, searches=4, verify_keys=verify_keys).events())
        for verify_keys in (False, True)
    )
    assert plain == verified


@pytest.mark.parametrize("backend", ["legacy", "new"])
@pytest.mark.parametrize("directly", [False, True])
def test_an_episode_that_ends_in_one_environment_is_an_event_of_its_own(tmp_path, backend, directly):
    config = WorldModelConfig(GEOMETRY, use_new_cache_manager=backend == "new", cache_validation_mode=True)
    header = recorded(tmp_path / "other.parquet", {}, searches=1).header
    model, seen = WorldModel(config), torch.zeros(3, 4)
    with TraceWriter(tmp_path / "trace.parquet", header) as writer, ModelRecorder(model, writer):
        roots = model.forward_initial_inference(observations=seen, timesteps=4)
        if directly:
            model.cache.init_pools[2].clear()
            model.cache.init_pools[0].clear()
        else:
            model.cache.clear_init_caches([2, 0, 2])
        model.forward_initial_inference(seen, roots.latents, [0, 0, 0], None, 5)
        model.cache.clear_init_caches()
    reader = TraceReader(tmp_path / "trace.parquet")
    events = list(reader.events())
    clears = [(each["scope"], each["env"]) for each in events if each["kind"] == "clear"]
    assert clears == [("recur", -1), ("init", 2), ("init", 0), ("recur", -1), ("init", -1)]
    assert [each["hit"] for each in events if each["kind"] == "lookup"] == [False, True, False]
    assert reader.header.schema_version == "1.3"
    result = replayed(reader, backend)
    assert (result.faults, result.outcomes.disagreements) == ([], 0)


@each_cache
@pytest.mark.parametrize("pool", [None, 7])
def test_several_leaves_replay_as_they_were_recorded(tmp_path, cache, pool):
    """Also where slots are fewer than the rows of one inference, and where the last inference has fewer rows."""
    reader = recorded(tmp_path / "trace.parquet", cache, searches=8, recur_pool_size=pool, leaves=4)
    assert (reader.header.schema_version, reader.header.source["leaves"]) == ("1.3", 4)
    steps = [step for step in read_steps(reader.events()) if step.is_recurrent]
    assert {(len(step.envs), *sorted(set(step.simulations))) for step in steps} == {(12, 0, 1, 2, 3), (6, 4, 5)}
    for step in steps:
        assert step.envs == [0, 1, 2] * (len(step.envs) // 3)
        assert step.simulations == sorted(step.simulations)
    name = reader.header.backend
    backend = name if name == "legacy" else f"new:{cache['cache_storage']}"
    result = replayed(reader, backend, recur_pool_size=pool)
    assert (result.faults, result.outcomes.disagreements) == ([], 0)
    assert result.outcomes.recorded > 150
    assert (result.outcomes.total[Outcome.HIT] == result.outcomes.recorded) is (pool is None)


def test_one_leaf_is_recorded_as_ever(tmp_path):
    reader = recorded(tmp_path / "trace.parquet", {}, searches=1)
    assert reader.header.schema_version == "1.3"
    assert "leaves" not in reader.header.source


@pytest.mark.parametrize("name", ["legacy", "slab"])
def test_chained_keys_replay_as_they_were_recorded(tmp_path, name):
    reader = recorded(tmp_path / "trace.parquet", CACHES[name], searches=8, chained_keys=True)
    result = replayed(reader, reader.header.backend)
    assert (result.faults, result.outcomes.disagreements) == ([], 0)
    assert result.outcomes.total[Outcome.HIT] == result.outcomes.recorded > 100
