"""Estimates of a replay's memory are no less than it takes, and not much more."""

from dataclasses import replace

import pytest
from traces import steps_of, synthetic

from kvbench.replay import needs as needs_module
from kvbench.replay.needs import Needs, bytes_of_pools, require_for_replay
from kvbench.replay.passes import Replay
from kvcache import BACKENDS, GEOMETRIES, CacheConfig

# Long contexts, so that contents outweigh tables.
GEOMETRY = replace(GEOMETRIES["lunarlander"], context_length=20, num_simulations=12)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    return steps_of(synthetic(tmp_path_factory.mktemp("needs") / "trace", GEOMETRY, searches=3, transpositions=0.2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"recur_pool_size": 20}, {"recur_pool_bytes": 2**24}], ids=str)
def test_a_backend_takes_no_more_than_was_estimated_and_no_less_than_a_sixth(steps, backend, options):
    config = CacheConfig(GEOMETRY, **options)
    replay = Replay(steps, config, [backend])
    replay._warm(backend)
    taken, estimated = replay.reports[backend].peak_bytes, bytes_of_pools(backend, config, Needs.of(steps))
    assert taken <= estimated <= 6 * taken


def test_what_a_trace_stores_is_counted(steps):
    assert Needs.of(steps) == Needs({3: 8}, 3 * 12 * 8, 8)
    assert Needs.of([]) == Needs({}, 0, 0)


def test_backends_that_are_timed_are_there_at_once(steps, monkeypatch):
    config, needs, wanted = CacheConfig(GEOMETRY), Needs.of(steps), []
    monkeypatch.setattr("kvbench.replay.needs.require_memory", lambda name, needed, *_: wanted.append(needed))
    for at_once in (False, True):
        require_for_replay("a replay", config, ["legacy", "new:slab"], needs, at_once)
    laps = needs.stored * (needs_module._STORE_BYTES[True] - needs_module._STORE_BYTES[False])
    assert wanted[1] - wanted[0] == laps + min(bytes_of_pools(each, config, needs) for each in ("legacy", "new:slab"))


def test_a_long_trace_that_is_not_timed_needs_little_for_each_store(monkeypatch):
    wanted = []
    monkeypatch.setattr("kvbench.replay.needs.require_memory", lambda name, needed, *_: wanted.append(needed))
    for nodes in (10**6, 10**7):
        require_for_replay("a replay", CacheConfig(GEOMETRY), ["new:slab"], Needs({}, nodes, 8), at_once=False)
    assert wanted[1] - wanted[0] < 60 * 9 * 10**6
