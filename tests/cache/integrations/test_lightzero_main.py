"""What LightZero main (commit 9f717c80, 2026-08-21) has and 0.2.0 has not, in a checkout of it.

Main is on no package index. Build a checkout ("python setup.py build_ext --inplace") and put it first in
``PYTHONPATH``.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lzero", reason="LightZero is not installed: tox -e lightzero")

from lightzero_driver import ENVS, Driver, NamedDriver, is_main, largest_difference, make_model

if not is_main():
    pytest.skip("this is LightZero 0.2.0: put a built checkout of main first in PYTHONPATH", allow_module_level=True)

from digests import digests

from kvcache.integrations import lightzero
from kvcache.integrations.lightzero.guard import check_class
from kvcache.integrations.lightzero.main_2026_08 import Main202608

NEW = {"use_new_cache_manager": True}
EXACT = {**NEW, "cache_exact_layout": True}


@pytest.fixture(autouse=True)
def installed():
    lightzero.install()
    yield
    lightzero.uninstall()


def searches(**config):
    """Environments come, go and begin episodes one by one: rows of one root are of many sizes."""
    driver, found = NamedDriver(make_model(**config)), []
    for step in range(15):
        if step in (4, 8):
            driver.restart([step % ENVS])
            clear_environment(driver.model.world_model, step % ENVS)
        found += driver.search([[0, 1, 2], [2, 0], [1, 2]][step % 3])
    return found, driver


def clear_environment(world_model, env):
    """As main's policies do at the end of an episode."""
    if world_model.use_new_cache_manager:
        world_model.kv_cache_manager.init_pools[env].clear()
        world_model.kv_cache_manager.clear_recur_cache()
    else:
        world_model.past_kv_cache_init_infer_envs[env].clear()
        world_model.past_kv_cache_recurrent_infer.clear()


class TestSameAsLightZero:
    @pytest.mark.parametrize("rotary", [False, True], ids=["absolute", "rotary"])
    @pytest.mark.parametrize("resident", [False, True], ids=["paged", "paged-resident"])
    def test_environments_by_name(self, rotary, resident):
        theirs, legacy = searches(rotary_emb=rotary)
        ours, new = searches(rotary_emb=rotary, **EXACT, cache_resident_batch=resident)
        assert legacy.distinct > 0.75
        assert largest_difference(ours, theirs) == 0
        for name in ("hit_count", "total_query_count", "root_hit_cnt", "root_total_query_cnt"):
            assert getattr(new.model.world_model, name) == getattr(legacy.model.world_model, name) > 0
        assert new.model.world_model.current_infer_env_ids == [1, 2]

    def test_its_own_manager(self):
        ours, _ = searches(**EXACT)
        lightzero.uninstall()
        theirs, driver = searches(**NEW)
        assert type(driver.model.world_model.kv_cache_manager).__module__.startswith("lzero.")
        assert largest_difference(ours, theirs) == 0

    @pytest.mark.parametrize("rotary", [False, True], ids=["absolute", "rotary"])
    def test_replay_roots_bring_their_contexts(self, rotary):
        theirs, legacy = reanalyzed(rotary_emb=rotary)
        ours, new = reanalyzed(rotary_emb=rotary, **EXACT)
        assert largest_difference(ours, theirs) == 0
        for name in ("reanalysis_root_seed_count", "reanalysis_root_seed_hit_count"):
            assert getattr(new.model.world_model, name) == getattr(legacy.model.world_model, name) == ENVS

    def test_ppo(self):
        from lzero.model.unizero_ppo_model import UniZeroPPOModel

        theirs = NamedDriver(make_model(of=UniZeroPPOModel))
        ours = NamedDriver(make_model(of=UniZeroPPOModel, **EXACT))
        assert type(ours.model.world_model).__name__ == "PPOWorldModel"
        for _ in range(5):
            assert largest_difference(ours.search(), theirs.search()) == 0
        assert lightzero.backend_of(ours.model) is not None


def reanalyzed(**config):
    """Searches of replay roots with contexts of several lengths, long enough that windows slide."""
    driver = Driver(make_model(**config))
    world_model, found = driver.model.world_model, driver.search()
    world_model.reanalyze_phase = True
    contexts = [torch.from_numpy(driver.random.standard_normal((size, 32)).astype(np.float32)) for size in (1, 3, 5)]
    latents = np.stack([context[-1:].numpy() for context in contexts])
    found.append(np.asarray(world_model.seed_reanalysis_root_caches(latents, contexts)))
    for simulation in range(5):
        output = driver.recurrent(latents, simulation, [simulation] * ENVS, np.array([0, 3, 7]))
        latents = output.latent_state.numpy()
        found += [np.asarray(output.value), latents]
    world_model.clear_caches()
    world_model.reanalyze_phase = False
    return found + driver.search(), driver


class TestItsOwnNames:
    def test_the_manager_is_a_stand_in(self):
        driver = Driver(make_model(**NEW))
        manager, backend = driver.model.world_model.kv_cache_manager, lightzero.backend_of(driver.model)
        driver.search()
        assert manager.get_stats_summary() == backend.get_stats_summary()
        assert manager.get_stats_summary()["hierarchy"]["hits"] > 0
        manager.reset_stats()
        assert backend.get_stats_summary()["hierarchy"]["hits"] == 0
        manager.init_pools[1].clear()
        assert [len(pool) for pool in backend.init_pools] == [1, 0, 1]
        manager.clear_init_caches()
        assert not any(map(len, backend.init_pools))
        assert len(backend.recur_pool)
        manager.clear_all()
        assert not len(backend.recur_pool)

    def test_nothing_is_built_for_a_model_that_never_searches(self):
        model = make_model(**NEW).world_model
        model.clear_caches()
        model.kv_cache_manager.reset_stats()
        assert model.kv_cache_manager.get_stats_summary() == {"stats_enabled": False}

    def test_names_must_be_as_many_as_rows(self):
        model = make_model(**NEW)
        with pytest.raises(ValueError, match="ready_env_id names 2 environments, and the batch has 3 rows"):
            model.initial_inference(torch.zeros(3, 5), [-1] * 3, torch.zeros(3, 5), np.zeros(3, int), [0, 1])


class TestRefused:
    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"exact_kv_window_reset": True}, "exact_kv_window_reset=True computes a full window anew"),
            ({"rebuild_kv_window_from_tokens": True}, "rebuild_kv_window_from_tokens=True"),
            ({"task_embed_option": "register_task_embed"}, "task_embed_option='register_task_embed'.*register tokens"),
            ({"cache_resident_batch": True}, "masks zeros in front.*cache_exact_layout=True"),
        ],
    )
    def test_by_name_when_the_model_is_made(self, config, message):
        with pytest.raises(lightzero.UnsupportedLightZeroError, match=message):
            make_model(**NEW, **config)

    def test_a_model_without_the_new_cache_may_have_them(self):
        make_model(exact_kv_window_reset=True)

    def test_the_multi_task_world_model(self):
        from lzero.model.unizero_world_models.world_model import WorldModel
        from lzero.model.unizero_world_models.world_model_multitask import WorldModelMT

        with pytest.raises(lightzero.UnsupportedLightZeroError, match="WorldModelMT has its own retrieve_or_generate"):
            check_class(WorldModelMT, WorldModel, Main202608.reads)


def test_digests_from_the_text_are_those_of_the_methods():
    import lzero

    found = digests(Path(lzero.__file__).parent.parent)
    assert {name: found[name] for name in Main202608.reads} == Main202608.reads
