"""The drop-in in LightZero itself: the same outputs as LightZero's own cache. Run by ``tox -e lightzero``.

All of it holds for LightZero 0.2.0 and for main as of commit 9f717c80 (2026-08-21), whichever is imported: put a built
checkout of main first in ``PYTHONPATH``. What only main has is in ``test_lightzero_main.py``.
"""

import copy
import gc
import io
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

pytest.importorskip("lzero", reason="LightZero is not installed: tox -e lightzero")

from lightzero_driver import Driver, is_main, largest_difference, make_model

from kvcache import KVCacheManager, ObservedCache, ShadowCache, ThreadError
from kvcache.integrations import lightzero

NEW = {"use_new_cache_manager": True}
EXACT = {**NEW, "cache_exact_layout": True}
RESIDENT = {"cache_storage": "paged", "cache_resident_batch": True}
STORAGES = [{"cache_storage": "private"}, {"cache_storage": "slab"}, {"cache_storage": "paged"}]

NAME = "LightZero main of 2026-08-21 (9f717c80)" if is_main() else "LightZero 0.2.0"

only_0_2_0 = pytest.mark.skipif(is_main(), reason="LightZero main differs")


@pytest.fixture(autouse=True)
def installed():
    lightzero.install()
    yield
    lightzero.uninstall()


def outputs(searches=12, rows=lambda step: 3, restart_every=9, **config):
    """All outputs of searches whose windows slide, and the driver."""
    driver = Driver(make_model(**config))
    found = []
    for step in range(searches):
        if step % restart_every == 0:
            driver.restart()
        found += driver.search(rows(step))
    return found, driver


def world_model_of(driver):
    return driver.model.world_model


def test_lightzero_lets_all_be_printed_but_evictions_are_not():
    lightzero.uninstall()
    log = logging.getLogger("kvcache")
    log.setLevel(logging.NOTSET)
    lightzero.install()
    assert logging.getLogger().level == logging.DEBUG, "LightZero's root logger: else nothing is to be kept quiet"
    assert not logging.getLogger("kvcache.pool").isEnabledFor(logging.DEBUG)
    assert log.isEnabledFor(logging.INFO)
    log.setLevel(logging.DEBUG)
    lightzero.uninstall()
    lightzero.install()
    assert log.level == logging.DEBUG
    log.setLevel(logging.NOTSET)


class TestSameAsLightZero:
    @pytest.mark.parametrize("rotary", [False, True], ids=["absolute", "rotary"])
    @pytest.mark.parametrize("storage", [*STORAGES, RESIDENT], ids=lambda each: "-".join(map(str, each.values())))
    def test_exact_mode_has_the_same_bits(self, storage, rotary):
        theirs, legacy = outputs(rotary_emb=rotary)
        ours, new = outputs(rotary_emb=rotary, **EXACT, **storage)
        assert legacy.distinct > 0.75
        assert largest_difference(ours, theirs) == 0
        assert world_model_of(new).hit_count == world_model_of(legacy).hit_count > 0
        assert world_model_of(new).root_hit_cnt == world_model_of(legacy).root_hit_cnt > 0

    @pytest.mark.parametrize(
        "storage",
        [*STORAGES, pytest.param(RESIDENT, marks=only_0_2_0)],
        ids=lambda each: "-".join(map(str, each.values())),
    )
    def test_the_default_layout_differs_by_roundings(self, storage):
        theirs, _ = outputs()
        ours, _ = outputs(**NEW, **storage)
        assert largest_difference(ours, theirs) < 2e-5

    def test_a_row_is_a_batch_row_and_evaluation_may_have_fewer(self):
        """Environments end one by one: rows move up, and find contexts of the rows before."""

        def rows(step):
            return [[0, 1, 2], [0, 1, 2], [1, 2], [1, 2], [2]][step % 5]

        theirs, _ = outputs(15, rows, restart_every=5)
        ours, _ = outputs(15, rows, restart_every=5, **EXACT)
        assert largest_difference(ours, theirs) == 0

    def test_continuous_actions(self):
        theirs, legacy = outputs(continuous=True)
        ours, _ = outputs(continuous=True, **EXACT)
        assert legacy.distinct > 0.75
        assert largest_difference(ours, theirs) == 0

    def test_mixed_precision(self):
        with torch.autocast("cpu", torch.float16):
            theirs, _ = outputs()
            ours, _ = outputs(**EXACT)
        assert largest_difference(ours, theirs) == 0

    def test_reanalysis_looks_nothing_up(self):
        theirs = reanalyzed()
        assert largest_difference(reanalyzed(**EXACT), theirs) == 0
        assert largest_difference(reanalyzed(**EXACT, cache_validation_mode=True), theirs) == 0

    def test_weights_change_and_the_cache_is_cleared_where_lightzero_clears_it(self):
        assert largest_difference(retrained(**EXACT), retrained()) == 0


def reanalyzed(**config):
    """A search of 2 samples of 3 timesteps, after a search of environments."""
    driver = Driver(make_model(**config))
    found = driver.search()
    model = driver.model
    model.world_model.reanalyze_phase = True
    latents = driver.random.standard_normal((8, 1, 32)).astype(np.float32)
    for simulation in range(3):
        start = np.array([[0, 1, 2], [5, 6, 7]])
        output = driver.recurrent(latents, simulation, [0] * 8, start)
        latents = output.latent_state.numpy()
        found.append(np.asarray(output.value))
    model.world_model.reanalyze_phase = False
    return found + driver.search()


def retrained(**config):
    """Searches, a step of training, and searches again."""
    driver = Driver(make_model(**config))
    found = [each for _ in range(6) for each in driver.search()]
    with torch.no_grad():
        for parameter in driver.model.parameters():
            parameter.mul_(1.01)
    found += driver.search()  # LightZero goes on with old contexts until it clears them
    driver.model.world_model.precompute_pos_emb_diff_kv()
    driver.model.world_model.clear_caches()
    return found + [each for _ in range(8) for each in driver.search()]


class TestRecurrentMiss:
    @only_0_2_0
    def test_lightzero_fails_and_the_new_cache_generates(self):
        with pytest.raises(TypeError):
            miss()
        assert np.isfinite(miss(**NEW).value).all()

    @pytest.mark.skipif(not is_main(), reason="LightZero 0.2.0 fails")
    def test_main_generates_and_so_does_the_new_cache(self):
        assert np.array_equal(miss(**EXACT).value, miss().value)

    def test_a_small_pool(self):
        found, driver = outputs(**NEW, recur_pool_size=3)
        assert world_model_of(driver).hit_count < world_model_of(driver).total_query_count
        assert all(np.isfinite(each).all() for each in found)


def miss(**config):
    driver = Driver(make_model(**config))
    driver.search()
    return driver.recurrent(np.ones((3, 1, 32), np.float32), 0, [0, 0, 0], np.zeros(3, int))


class TestValidation:
    def test_every_retrieval_is_compared(self):
        _, driver = outputs(**EXACT, cache_validation_mode=True)
        backend = lightzero.backend_of(driver.model)
        assert isinstance(backend, ShadowCache)
        assert backend.report.compared == backend.report.lookups > 0
        assert backend.report.largest_difference == 0

    def test_a_small_pool_shows_legacys_stale_hits(self):
        """LightZero main removes an overwritten key from its dict, so that it has none."""
        _, driver = outputs(**EXACT, cache_validation_mode=True, recur_pool_size=6)
        assert (lightzero.backend_of(driver.model).report.stale_hits > 0) != is_main()


def pools_of(world_model):
    """What policies clear, environment by environment."""
    return world_model.kv_cache_manager.init_pools if is_main() else world_model.past_kv_cache_init_infer_envs


class TestClears:
    def test_a_policy_clears_one_environment_after_the_other(self):
        _, driver = outputs(**NEW)
        backend, model = lightzero.backend_of(driver.model), world_model_of(driver)
        assert any(map(len, backend.init_pools))
        for cache in pools_of(model):
            cache.clear()
        if is_main():
            model.kv_cache_manager.clear_recur_cache()
        else:
            model.past_kv_cache_recurrent_infer.clear()
        model.keys_values_wm_list.clear()
        assert not any(map(len, backend.init_pools))
        assert not len(backend.recur_pool)

    def test_a_root_clears_the_recurrent_pool(self):
        _, driver = outputs(**NEW)
        last = [row.tobytes() for nodes in driver.latents[-driver.simulations :] for row in nodes]
        assert len(lightzero.backend_of(driver.model).recur_pool) == len(set(last))


class TestInstances:
    def test_one_process_holds_both(self):
        legacy, new = Driver(make_model()), Driver(make_model(**EXACT))
        for _ in range(6):
            assert largest_difference(new.search(), legacy.search()) == 0
        assert lightzero.backend_of(legacy.model) is None
        assert lightzero.backend_of(new.model.world_model) is lightzero.backend_of(new.model)

    @pytest.mark.parametrize(
        "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
    )
    def test_a_copy_has_an_empty_cache_of_its_own(self, copied):
        _, driver = outputs(**NEW)
        try:
            other = copied(driver.model)
        except (pickle.PicklingError, AttributeError) as error:
            pytest.skip(f"LightZero's own model has no pickle: {error}")
        backend, own = lightzero.backend_of(other), lightzero.backend_of(driver.model)
        assert backend is not own
        assert not len(backend.recur_pool)
        assert not any(map(len, backend.init_pools))
        for cache in pools_of(other.world_model):
            cache.clear()
        assert any(map(len, own.init_pools))
        fresh = Driver(other)
        assert largest_difference(fresh.search(), Driver(make_model(**NEW)).search()) == 0

    def test_nothing_is_added_to_the_state(self):
        new, legacy = make_model(**NEW), make_model()
        Driver(new).search()
        assert list(new.state_dict()) == list(legacy.state_dict())
        saved = io.BytesIO()
        torch.save(new.state_dict(), saved)
        saved.seek(0)
        legacy.load_state_dict(torch.load(saved, weights_only=True))

    def test_a_run_is_resumed_from_a_checkpoint(self):
        theirs, ours = make_model(seed=1), make_model(seed=2, **EXACT)
        for model in (theirs, ours):
            model.load_state_dict(make_model(seed=3).state_dict())
            model.world_model.precompute_pos_emb_diff_kv()
        assert largest_difference(Driver(ours).search(), Driver(theirs).search()) == 0

    def test_more_environments_than_it_was_made_for(self):
        driver = Driver(make_model(**NEW, env_num=2))
        with pytest.raises(lightzero.UnsupportedLightZeroError, match=r"3 environments.*env_num=2"):
            driver.search()

    def test_a_compiled_model(self):
        """LightZero wraps its models so. Only the attributes of the wrapped model are used."""
        driver = Driver(torch.compile(make_model(**EXACT)))
        assert largest_difference(driver.search(), Driver(make_model()).search()) == 0

    def test_calls_can_be_observed(self):
        from kvcache.integrations.lightzero.installation import attachment_of

        driver, calls = Driver(make_model(**NEW)), []

        def observer(operation, call, *args):
            calls.append(operation)
            return call(*args)

        attachment_of(driver.model).observe(lambda backend: ObservedCache(backend, observer))
        driver.search()
        assert {"lookup", "assemble", "store", "hash_states"} <= set(calls)


class TestInstallation:
    def methods(self):
        from lzero.model.unizero_world_models.world_model import WorldModel

        return dict(vars(WorldModel))

    def test_uninstall_restores_identity(self):
        during = self.methods()
        lightzero.uninstall()
        before = self.methods()
        assert lightzero.install() == NAME
        assert lightzero.installed()
        replaced = {name for name in before if before[name] is not self.methods()[name]}
        assert replaced | {"clear_caches"} == {
            "__init__", "clear_caches", "retrieve_or_generate_kvcache", "trim_and_pad_kv_cache",
            "update_cache_context", "wm_forward_for_initial_infererence", "forward_initial_inference",
            "forward_recurrent_inference",
        }  # fmt: skip
        lightzero.uninstall()
        assert not lightzero.installed()
        assert self.methods() == before != during

    def test_install_twice_is_once(self):
        before = self.methods()
        lightzero.install()
        assert self.methods() == before

    @pytest.mark.parametrize("safe", [False, True])
    def test_a_second_thread(self, safe):
        """It is refused, or has each inference for itself: the searches go on as in one thread."""
        alone, driver = Driver(make_model(**NEW)), Driver(make_model(**NEW, cache_thread_safe=safe))
        wanted = [alone.search(), alone.search()]
        assert largest_difference(driver.search(), wanted[0]) == 0
        with ThreadPoolExecutor(1) as worker:
            found = worker.submit(driver.search)
            if safe:
                assert largest_difference(found.result(60), wanted[1]) == 0
            else:
                with pytest.raises(ThreadError, match="cache belongs to thread 'MainThread'"):
                    found.result(60)

    def test_models_that_were_made_before_are_served(self):
        lightzero.uninstall()
        theirs, ours = Driver(make_model()), Driver(make_model(**EXACT))
        for driver in (theirs, ours):
            driver.search()
        lightzero.install()
        assert isinstance(lightzero.backend_of(ours.model), KVCacheManager)
        assert lightzero.backend_of(theirs.model) is None
        world_model_of(theirs).clear_caches()
        assert largest_difference(ours.search(), theirs.search()) == 0
        lightzero.uninstall()
        lightzero.install()
        world_model_of(theirs).clear_caches()
        assert largest_difference(ours.search(), theirs.search()) == 0

    def test_a_model_that_is_not_served_is_found_when_it_was_made_before(self):
        lightzero.uninstall()
        model = make_model(**NEW, cache_storge="paged")
        with pytest.raises(ValueError, match="unknown settings cache_storge"):
            lightzero.install()
        assert not lightzero.installed()
        assert lightzero.backend_of(model) is None
        del model
        gc.collect()

    def test_a_class_with_methods_of_its_own_is_refused_by_name(self):
        class Another(type(make_model().world_model)):
            def trim_and_pad_kv_cache(self, is_init_infer=True):
                return []

        model = make_model().world_model
        model.config.use_new_cache_manager = True
        with pytest.raises(lightzero.UnsupportedLightZeroError, match=r"Another has its own trim_and_pad_kv_cache"):
            Another(model.config, model.tokenizer)

    def test_a_model_goes_on_with_lightzeros_own_cache_when_it_is_uninstalled(self):
        driver, legacy = Driver(make_model(**EXACT)), Driver(make_model())
        driver.search(), legacy.search()
        other = copy.deepcopy(driver.model)
        lightzero.uninstall()
        legacy.model.world_model.clear_caches()
        assert largest_difference(driver.search(), legacy.search()) == 0
        assert lightzero.backend_of(driver.model) is None
        Driver(other).search()

    def test_another_lightzero_is_refused_by_name(self, monkeypatch):
        from lzero.model.unizero_world_models.world_model import WorldModel

        lightzero.uninstall()
        monkeypatch.setattr(WorldModel, "update_cache_context", lambda self: None)
        monkeypatch.delattr(WorldModel, "clear_caches")
        with pytest.raises(lightzero.UnsupportedLightZeroError) as error:
            lightzero.install()
        for part in ("is not one that kvcache knows", NAME, "update_cache_context: expected", "clear_caches: expected",
                     "no such method"):  # fmt: skip
            assert part in str(error.value)
        assert not lightzero.installed()

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"cache_storge": "paged"}, "unknown settings cache_storge.*cache_storage"),
            ({"use_new_cache_manager": "yes"}, "use_new_cache_manager must be True or False"),
            ({**NEW, "cache_storage": "tape"}, "unknown storage 'tape'"),
            ({**NEW, "context_length": 2}, "context_length is 2: so short a context keeps no past"),
            ({**NEW, "init_pool_size": 0}, "init_pool_size must be a positive integer"),
            ({**NEW, "eviction_strategy": "random"}, "random"),
            ({**NEW, "cache_storage": "slab", "cache_resident_batch": True}, "no resident batch"),
        ],
    )
    def test_a_bad_setting_is_found_when_the_model_is_made(self, config, message):
        with pytest.raises(ValueError, match=message):
            make_model(**config)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_missing_gpu(self):
        """LightZero goes on with the CPU then."""
        Driver(make_model(**NEW, device="cuda")).search()

    def test_the_first_sizes_are_lightzeros_own(self):
        driver = Driver(make_model(**NEW))
        backend = lightzero.backend_of(driver.model)
        assert {pool.pool_size for pool in backend.init_pools} == {256 if is_main() else 2}
        assert backend.recur_pool.pool_size == 18

    def test_counters_are_logged(self, caplog):
        with caplog.at_level("INFO", logger="kvcache.lightzero"):
            outputs(searches=100, **NEW, enable_cache_logging=True)
        assert "100 searches: new: hits" in caplog.text
