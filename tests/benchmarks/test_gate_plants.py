"""Each change of benchmarks/gate_plants.py is seen by the gate's benchmarks, by the number or reason it names."""

import math
from dataclasses import replace

import pytest
from gate_plants import PLANTS
from gates import test_gate_long_runs as long_runs
from planted import planted_manager
from traces import TINY, steps_of, synthetic

from kvbench.measure.host import frozen_garbage
from kvbench.metrics import direction_of
from kvbench.replay import endurance, many_searches
from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.fixture import WrongContentError
from kvbench.replay.passes import verify_replay
from kvbench.replay.stream import GEOMETRY, PERIOD
from kvcache import BACKENDS, CacheConfig, manager

pytestmark = pytest.mark.slow

SOUND = manager.KVCacheManager
OF_MEMORY = [name for name, plant in PLANTS.items() if plant.keyword == "memory"]
OF_EVICTION = [name for name, plant in PLANTS.items() if plant.keyword == "eviction" and name != "lru-loop"]
OF_LONG_RUNS = [name for name, plant in PLANTS.items() if plant.keyword == "long_run"]
OF_SEARCHES = [name for name, plant in PLANTS.items() if plant.keyword == "searches"]
OF_REPLAYS = [name for name, plant in PLANTS.items() if plant.keyword.startswith("test_replay")]
ALL_LOOKUPS = ("wrong-row-10000", "wrong-hash")


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    with frozen_garbage():
        yield


def planted(name):
    return planted_manager(PLANTS[name].source)


def of(cache, storage="slab", resident=False):
    return lambda config: cache(replace(config, storage=storage, resident_batch=resident))


@pytest.fixture(scope="module")
def sound_memory():
    return {resident: endurance.memory_counts(of(SOUND, "paged", resident)) for resident in (False, True)}


@pytest.mark.parametrize("name", OF_MEMORY)
def test_memory_that_is_kept_or_leaks(name, sound_memory):
    resident = name == "copy-kept"
    metric = PLANTS[name].shown_by
    found = endurance.memory_counts(of(planted(name), "paged", resident))
    assert found[metric] > 1.05 * sound_memory[resident][metric] + 1
    assert direction_of(metric) == "lower"


def test_python_that_takes_longer_in_large_pools_is_counted(monkeypatch):
    monkeypatch.setattr(endurance, "MOST_GROWN", math.inf)
    sound, found = (endurance.eviction_counts(of(each), "lru") for each in (SOUND, planted("lru-loop")))
    metric = PLANTS["lru-loop"].shown_by
    assert found[metric] > 2 * sound[metric]
    assert direction_of(metric) == "lower"


@pytest.mark.parametrize("name", OF_EVICTION)
def test_calls_that_take_longer_in_large_pools(name, monkeypatch):
    monkeypatch.setattr(endurance, "TRIALS", 1)
    with pytest.raises(WrongContentError, match=PLANTS[name].shown_by):
        endurance.eviction_counts(of(planted(name)), name.partition("-")[0])


@pytest.mark.parametrize("name", OF_LONG_RUNS)
def test_what_only_long_runs_show(name, monkeypatch):
    monkeypatch.setattr(endurance, "TRIALS", 1)
    lookups = endurance.LONG_RUN if name in ALL_LOOKUPS else 6 * PERIOD
    metric = PLANTS[name].shown_by
    if direction_of(metric) is None:
        with pytest.raises(WrongContentError, match=metric):
            endurance.long_run_counts(of(planted(name)), lookups)
    else:
        before, after = (endurance.long_run_counts(of(make), lookups)[metric] for make in (SOUND, planted(name)))
        assert after > before


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    geometry = replace(GEOMETRY, env_num=2, num_simulations=1)
    path = tmp_path_factory.mktemp("searches") / "trace.parquet"
    return geometry, steps_of(synthetic(path, geometry, 64, episode_length=20, clear_ended=True))


@pytest.fixture(scope="module")
def sound_searches(searches):
    return many_searches.search_counts(of(SOUND), *searches)


@pytest.mark.parametrize("name", OF_SEARCHES)
def test_what_only_many_searches_show(name, searches, sound_searches, monkeypatch):
    monkeypatch.setattr(many_searches, "TRIALS", 1)
    metric = PLANTS[name].shown_by
    if direction_of(metric) is None:
        with pytest.raises(WrongContentError, match=metric):
            many_searches.search_counts(of(planted(name)), *searches)
    else:
        found = many_searches.search_counts(of(planted(name)), *searches)
        assert found[metric] > sound_searches[metric]


def test_sound_searches_make_nothing_grow(sound_searches):
    assert [number for name, number in sound_searches.items() if name.endswith("_grown")] == [0, 0, 0]
    assert sound_searches["evictions"] > 0


@pytest.mark.parametrize("name", OF_REPLAYS)
def test_one_wrong_context_in_a_replay(name, tmp_path):
    steps = steps_of(synthetic(tmp_path / "trace.parquet", TINY, 5))
    contents = Contents(TINY)

    def faults(make):
        backend = make(CacheConfig(TINY))
        backend.position_shift = contents.position_shift("cpu", backend.config.dtype)
        return verify_replay(backend, steps, contents, Latents(TINY.embed_dim, "cpu")).faults

    assert faults(SOUND) == []
    assert PLANTS[name].shown_by in faults(planted(name))[0]


def test_numbers_are_the_same_again_and_none_grows(sound_memory):
    again = endurance.memory_counts(of(SOUND, "paged"))
    assert sound_memory[False] == again
    assert again["host_bytes_grown"] == again["tensor_bytes_grown"] == again.get("heap_bytes_grown", 0) == 0


def test_every_strategy_and_every_new_backend_that_copies_is_watched():
    assert long_runs.STRATEGIES == ["fifo", "lru", "priority"]  # tests/cache/test_slots.py has the others
    copying = {name for name in BACKENDS if name.startswith("new:")} - {"new:reference", "new:auto"}
    assert copying <= set(long_runs.BACKENDS)
    assert set(long_runs.EVICTING) <= copying
    assert endurance.LONG_RUN + 2 * PERIOD >= 10_000
