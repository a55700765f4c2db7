"""Backends by name, and the contract that all of them keep."""

import pytest
from conformance import AMPLE, ENVS, GEOMETRY, BackendConformance

from kvcache.config import CacheConfig
from kvcache.legacy import RecurrentMissError
from kvcache.registry import BACKENDS, make_backend
from kvcache.storage import STORAGES


class TestLegacy(BackendConformance):
    backend = "legacy"


class TestLegacy020(BackendConformance):
    backend = "legacy-0.2.0"
    recurrent_miss = RecurrentMissError


class TestNewPrivate(BackendConformance):
    backend = "new:private"


class TestNewSlab(BackendConformance):
    backend = "new:slab"

    def check_reserved_bytes(self, reserved):
        assert reserved["init"] == ENVS * GEOMETRY.entry_bytes()
        assert reserved["recur"] == AMPLE * GEOMETRY.entry_bytes()


class TestNewPaged(BackendConformance):
    backend = "new:paged"

    def check_reserved_bytes(self, reserved):
        page = GEOMETRY.entry_bytes() // GEOMETRY.context_length
        assert reserved["init"] == ENVS * 2 * page
        assert reserved["recur"] == AMPLE * 2 * page


class TestNew(TestNewPaged):
    """Paged by default, under another name: the rarest histories are that one's to find."""

    backend = "new"
    test_any_search_gets_what_the_naive_cache_gives = None


class TestNewAuto(TestNewPaged):
    """Paged, and resident where contexts are longer than here."""

    backend = "new:auto"
    test_any_search_gets_what_the_naive_cache_gives = None


class TestNewPagedResident(BackendConformance):
    backend = "new:paged-resident"
    pads_behind = True
    check_reserved_bytes = TestNewPaged.check_reserved_bytes


class TestNewPagedResidentUndisturbed(TestNewPagedResident):
    """Where nobody writes into the batch it keeps what it holds."""

    poisons = False


class TestNewPagedExact(BackendConformance):
    backend = "new:paged-exact"
    check_reserved_bytes = TestNewPaged.check_reserved_bytes


class TestNewReference(BackendConformance):
    backend = "new:reference"


def test_every_backend_is_held_to_the_contract():
    suites = [BackendConformance]
    for each in suites:
        suites += each.__subclasses__()
    assert {each.backend for each in suites[1:]} >= set(BACKENDS)


def test_the_new_backend_can_be_had_with_every_storage():
    for storage in STORAGES:
        backend = make_backend(f"new:{storage}", CacheConfig(GEOMETRY))
        assert all(type(pool.storage) is STORAGES[storage] for pool in (*backend.init_pools, backend.recur_pool))


def test_the_configurations_storage_is_the_new_backends():
    backend = make_backend("new", CacheConfig(GEOMETRY, storage="reference"))
    assert type(backend.recur_pool.storage) is STORAGES["reference"]


def test_each_call_makes_a_fresh_backend():
    config = CacheConfig(GEOMETRY)
    for name in BACKENDS:
        assert make_backend(name, config) is not make_backend(name, config)


@pytest.mark.parametrize("name", ["", "New", "new:", "legacy-0.3"])
def test_an_unknown_name_is_a_value_error_that_lists_those_there_are(name):
    with pytest.raises(ValueError, match="choose one of") as raised:
        make_backend(name, CacheConfig(GEOMETRY))
    assert repr(name) in str(raised.value)
    assert all(known in str(raised.value) for known in BACKENDS)


def test_the_new_backend_refuses_an_unknown_storage_or_strategy():
    with pytest.raises(ValueError, match="unknown storage 'disk': choose one of private, reference"):
        make_backend("new", CacheConfig(GEOMETRY, storage="disk"))
    with pytest.raises(ValueError, match="unknown eviction strategy 'mru': choose one of fifo, lru, priority"):
        make_backend("new", CacheConfig(GEOMETRY, eviction_strategy="mru"))
