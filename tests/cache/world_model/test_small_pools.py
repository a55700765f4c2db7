"""Pools too small for a search: legacy's stale hits change results, and the new cache only misses.

The reference is an unlimited legacy cache, which loses nothing, made to miss where another cache did.
"""

import functools
from dataclasses import replace

import pytest
from lookups import CountMisses, MissLike, MissWhereStale
from test_model import CACHES, EXACT, ROUNDING, each_position, model_of
from test_search import same

from kvcache import KVCacheManager, LegacyCache, ObservedCache, ShadowCache
from kvcache.world_model import SearchConfig
from kvcache.world_model.play import play

pytestmark = pytest.mark.slow

SLOTS = 4  # of 8 x 3 that a search fills

each_new = pytest.mark.parametrize("name", sorted(set(CACHES) - {"legacy"}))


def searched(model):
    return list(play(model, 20, 0, SearchConfig(num_simulations=8), episode_length=6))


def small(name, positions, **options):
    return model_of(CACHES[name], positions=positions, recur_pool_size=SLOTS, **options)


def unlimited(positions, misses=()):
    """A model whose legacy cache loses nothing, and misses only on purpose."""
    model = model_of({}, positions=positions, recur_pool_size=8 * 3)
    if misses:
        model.cache = ObservedCache(model.cache, MissLike(misses))
    return model


@functools.cache
def wanted(positions):
    """What an unlimited cache finds."""
    return searched(unlimited(positions))


def counted(model):
    """The misses of the model's cache from now on, which grow."""
    counter = CountMisses()
    model.cache = ObservedCache(model.cache, counter)
    return counter.misses


@each_position
def test_legacys_stale_hits_change_what_is_found(positions):
    validated = small("legacy", positions, cache_validation_mode=True)
    found = searched(validated)
    assert validated.cache.report.stale_hits > 0
    assert not same(found, wanted(positions))[0]
    assert same(found, searched(small("legacy", positions))) == (True, 0)  # it is not validation that changes it


@each_position
def test_nothing_but_the_stale_hits_changes_it(positions):
    """With a miss in the place of each, a small legacy cache finds what an unlimited one finds with the same misses."""
    model = small("legacy", positions)
    observer = MissWhereStale(model.cache)
    model.cache = ObservedCache(model.cache, observer)
    stale = observer.misses
    found = searched(model)
    assert sum(map(len, stale)) > 0
    assert same(found, searched(unlimited(positions, stale))) == (True, 0)
    assert not same(found, searched(small("legacy", positions)))[0]


@each_new
@each_position
def test_new_finds_what_an_unlimited_cache_finds_with_the_same_misses(name, positions):
    model = small(name, positions)
    misses = counted(model)
    found = searched(model)
    assert sum(map(len, misses)) > 0
    assert not same(found, wanted(positions))[0]
    equal, off = same(found, searched(unlimited(positions, misses)))
    assert equal
    assert off == 0 if name in EXACT[positions] else off < ROUNDING


@each_new
@each_position
def test_what_new_finds_in_a_small_pool_is_what_an_unlimited_cache_finds(name, positions):
    """Lookup by lookup: each context is compared with that of an unlimited legacy cache, and only misses differ."""
    model = small(name, positions)
    model.cache = ShadowCache(
        KVCacheManager(model.config.cache_config),
        LegacyCache(replace(model.config.cache_config, recur_pool_size=8 * 3)),
    )
    model.cache.position_shift = model.transformer.position_shift()
    misses = counted(model)
    searched(model)
    report = model.cache.report
    assert (report.only_shadow, report.only_primary, report.stale_hits) == (sum(map(len, misses)), 0, 0)
    assert report.compared == report.lookups - report.only_shadow > 0


@each_new
@pytest.mark.parametrize(("positions", "slots"), [("rotary", 14), ("absolute", 18)])
def test_as_long_as_nothing_misses_new_finds_what_an_unlimited_cache_finds(name, positions, slots):
    """So many slots that some searches go by before the first miss: until then all is the same."""
    model = model_of(CACHES[name], positions=positions, recur_pool_size=slots)
    misses = counted(model)
    found = []
    for search in play(model, 20, 0, SearchConfig(num_simulations=8), episode_length=6):
        if any(misses):
            break
        found.append(search)
    assert any(misses)
    assert len(found) > 5
    equal, off = same(found, wanted(positions)[: len(found)])
    assert equal
    assert off == 0 if name in EXACT[positions] else off < ROUNDING
