"""What a backend is built from, read out of any object with attributes."""

from dataclasses import FrozenInstanceError, dataclass, fields
from types import SimpleNamespace

import pytest
import torch
from conformance import GEOMETRY

from kvcache.backend import EMPTY, MISS
from kvcache.config import CacheConfig
from kvcache.geometry import Geometry
from kvcache.storage import DEFAULT_STORAGE


class AttributeDict(dict):
    """As EasyDict: keys are attributes; a missing one is an AttributeError."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class WorldModelConfig:
    num_layers: int = 3
    num_heads: int = 4
    embed_dim: int = 64
    context_length: int = 10
    num_simulations: int = 25
    rotary_emb: bool = True
    game_segment_length: int = 200
    init_pool_size: int = 7
    recur_pool_size: int = 9
    eviction_strategy: str = "lru"
    cache_storage: str = "reference"
    device: str = "cpu"
    dtype: torch.dtype = torch.float16


EVERYTHING = {field.name: field.default for field in fields(WorldModelConfig)}

KINDS = [WorldModelConfig, SimpleNamespace, AttributeDict]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@each_kind
def test_every_attribute_is_read_from_any_kind_of_object(kind):
    assert CacheConfig.from_object(kind(**EVERYTHING), 6) == CacheConfig(
        Geometry("custom", 3, 4, 64, 10, 6, 25, "rotary"),
        game_segment_length=200,
        init_pool_size=7,
        recur_pool_size=9,
        eviction_strategy="lru",
        storage="reference",
        device="cpu",
        dtype=torch.float16,
    )


# Nothing said of shapes: they are UniZero's for batches, and entries stored one by one may have any.
DEFAULTS = CacheConfig(Geometry(env_num=3, positions="absolute"), checks_entries=False)


@pytest.mark.parametrize(
    "config",
    [object(), SimpleNamespace(), AttributeDict(), SimpleNamespace(unrelated=1)],
    ids=lambda c: type(c).__name__,
)
def test_missing_attributes_take_their_defaults(config):
    assert CacheConfig.from_object(config, 3) == DEFAULTS


def test_a_plain_dict_is_read_by_its_keys():
    config = CacheConfig.from_object({"num_layers": 3, "cache_storage": "slab", "unrelated": 1}, 3)
    assert config == CacheConfig.from_object(SimpleNamespace(num_layers=3, cache_storage="slab"), 3)
    assert config.geometry.num_layers == 3
    assert CacheConfig.from_object({}, 3) == DEFAULTS


@each_kind
def test_none_is_as_good_as_missing(kind):
    assert CacheConfig.from_object(kind(**dict.fromkeys(EVERYTHING)), 3) == DEFAULTS


def test_the_defaults_are_written_down():
    geometry = DEFAULTS.geometry
    assert (geometry.num_layers, geometry.num_heads, geometry.embed_dim) == (2, 8, 768)
    assert (geometry.context_length, geometry.num_simulations) == (8, 50)
    assert (DEFAULTS.eviction_strategy, DEFAULTS.storage, DEFAULTS.resident_batch) == ("auto", "paged", False)
    assert DEFAULT_STORAGE == "private"  # of a pool by itself
    assert (DEFAULTS.device, DEFAULTS.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize(("rotary", "positions"), [(True, "rotary"), (False, "absolute"), (None, "absolute")])
def test_positions_follow_the_rotary_switch(rotary, positions):
    assert CacheConfig.from_object(SimpleNamespace(rotary_emb=rotary), 1).geometry.positions == positions


@pytest.mark.parametrize(
    ("attributes", "init", "recur"),
    [
        ({}, 256, 50 * 3),
        ({"num_simulations": 128}, 256, 128 * 3),
        ({"num_simulations": 129}, 258, 129 * 3),
        ({"num_simulations": 400, "game_segment_length": 20}, 20, 400 * 3),
        ({"game_segment_length": 1000}, 1000, 50 * 3),
    ],
)
def test_default_pool_sizes(attributes, init, recur):
    config = CacheConfig.from_object(SimpleNamespace(**attributes), 3)
    assert (config.default_init_pool_size, config.default_recur_pool_size) == (init, recur)
    assert config.init_pool_size is config.recur_pool_size is None


@pytest.mark.parametrize("name", ["num_layers", "num_heads", "embed_dim", "context_length", "num_simulations"])
@pytest.mark.parametrize("value", [0, -2, 1.5, "8", True])
def test_a_bad_shape_is_a_value_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer"):
        CacheConfig.from_object(SimpleNamespace(**{name: value}), 3)


@pytest.mark.parametrize("env_num", [0, -1, 2.0, "3", None, True])
def test_a_bad_number_of_environments_is_a_value_error(env_num):
    with pytest.raises(ValueError, match="env_num must be a positive integer"):
        CacheConfig.from_object(SimpleNamespace(), env_num)


@pytest.mark.parametrize("name", ["game_segment_length", "init_pool_size", "recur_pool_size"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "2", True, False])
def test_a_bad_pool_size_is_a_value_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer or None, got {value!r}"):
        CacheConfig(GEOMETRY, **{name: value})
    with pytest.raises(ValueError, match=name):
        CacheConfig.from_object(SimpleNamespace(**{name: value}), 3)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        CacheConfig(GEOMETRY).init_pool_size = 2


def test_what_lookup_reports_instead_of_a_size_is_no_size_of_anything_stored():
    assert MISS < EMPTY == 0


@pytest.mark.parametrize("name", ["init_pool_bytes", "recur_pool_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1e9, "2", True])
def test_bytes_that_are_no_number_of_them_are_a_value_error(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer or None, got {value!r}"):
        CacheConfig(GEOMETRY, **{name: value})
    with pytest.raises(ValueError, match=name):
        CacheConfig.from_object(SimpleNamespace(**{name: value}), 3)


@pytest.mark.parametrize("kind", [SimpleNamespace, AttributeDict], ids=lambda kind: kind.__name__)
def test_bytes_and_a_resident_batch_are_read_too(kind):
    entry_bytes = 3 * 2 * 64 * 10 * 2  # layers, K and V, width, tokens, float16
    sizes = {"init_pool_size": None, "recur_pool_size": None}
    limits = {"init_pool_bytes": 3 * entry_bytes, "recur_pool_bytes": 6 * entry_bytes - 1}
    attributes = EVERYTHING | sizes | limits | {"cache_storage": "paged", "cache_resident_batch": True}
    config = CacheConfig.from_object(kind(**attributes), 6)
    assert (config.init_pool_bytes, config.recur_pool_bytes) == tuple(limits.values())
    assert (config.entry_bytes, config.init_entries, config.recur_entries) == (entry_bytes, 3, 5)
    assert config.resident_batch is True


@pytest.mark.parametrize("pool", ["init", "recur"])
def test_bytes_are_refused_beside_a_size_and_below_one_entry(pool):
    with pytest.raises(ValueError, match=f"{pool}_pool_size and {pool}_pool_bytes are both set"):
        CacheConfig.from_object(SimpleNamespace(**{f"{pool}_pool_size": 3, f"{pool}_pool_bytes": 10**9}), 3)
    half = GEOMETRY.entry_bytes(2)
    limit = {f"{pool}_pool_bytes": half}
    assert getattr(CacheConfig(GEOMETRY, dtype=torch.float16, **limit), f"{pool}_entries") == 1
    with pytest.raises(ValueError, match=f"{pool}_pool_bytes is {half}: one entry takes {2 * half} bytes"):
        CacheConfig(GEOMETRY, **limit)


def test_one_pool_may_have_bytes_and_the_other_a_size():
    config = CacheConfig(GEOMETRY, init_pool_bytes=2 * GEOMETRY.entry_bytes(), recur_pool_size=7)
    assert (config.init_entries, config.recur_entries) == (2, 7)
