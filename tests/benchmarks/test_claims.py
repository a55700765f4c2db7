"""Claims that are about time, with room: what benchmarks/claims.py prints is far on the right side of them."""

import statistics
from dataclasses import replace

import claims
import pytest
from overhead import EmptyBackend, gate_laps, operation_laps, replay_laps

from kvcache import GEOMETRIES, CacheConfig, EvictionStrategy
from kvcache.trace.drive import OPERATIONS
from kvcache.trace.operations import OPERATION_KINDS
from kvcache.trace.replay import Replay
from kvcache.trace.summary import ratio


@pytest.mark.parametrize("strategy", EvictionStrategy, ids=lambda each: each.value)
def test_bookkeeping_costs_at_most_twice_what_cachetools_does(strategy):
    assert statistics.median(claims.bookkeeping_ratios(strategy, pairs=5)) <= 2


@pytest.mark.parametrize("geometry", ["cartpole", "pong"])
def test_a_recurrent_step_of_the_new_cache_is_no_slower_than_legacys(geometry):
    replay = Replay(
        claims.synthetic(GEOMETRIES[geometry], seed=3, searches=2), CacheConfig(GEOMETRIES[geometry]), ["legacy", "new"]
    )
    replay.time(2)
    assert ratio(replay.reports["legacy"], replay.reports["new"])["median"] >= 1


def test_the_harness_adds_less_than_a_microsecond_to_an_operation():
    geometry = replace(GEOMETRIES["cartpole"], num_simulations=5)  # short searches: many clears
    steps = claims.synthetic(geometry, seed=3, searches=40)
    # Others on the machine only add to it: the least of three medians is the harness's own.
    in_replay = [replay_laps(steps, geometry, repetitions=1) for _ in range(3)]
    alone = [operation_laps(geometry, repetitions=100) for _ in range(3)]
    for runs, operations in ((in_replay, OPERATIONS), (alone, OPERATION_KINDS)):
        assert all(tuple(laps) == operations for laps in runs)
        for operation in operations:
            empty, new = (min(medians) for medians in zip(*(laps[operation] for laps in runs), strict=True))
            assert 0 < empty < 1, operation
            assert empty < new, operation  # it is new that works, and the empty one not


def test_the_gate_adds_less_than_a_microsecond_to_a_call():
    runs = [gate_laps() for _ in range(2)]
    for what in ("operation", "call_of_a_replay"):
        assert 0 < min(laps[what] for laps in runs) < 1, what


def test_the_empty_backend_stands_in_for_any():
    """A replay drives it like another, and it neither keeps nor counts anything."""
    backend = EmptyBackend(CacheConfig(GEOMETRIES["cartpole"]))
    sizes = [0] * 8
    assert backend.lookup(range(8), backend.hash_states(None), None) == backend.assemble() == sizes
    assert len(backend.keys_values_wm) == backend.batch_bytes == 0


def test_what_is_printed(capsys):
    claims.main(["allocations"])
    assert "50 inserts x 10 clears: 50 slots allocated, 0 tensors after the first round" in capsys.readouterr().out


def test_an_unknown_claim_is_refused_by_name():
    with pytest.raises(SystemExit, match="unknown: nonsense"):
        claims.main(["nonsense"])
