"""Claims that are about time, with room: what benchmarks/claims.py prints is far on the right side of them."""

import statistics

import claims
import pytest

from kvcache import GEOMETRIES, CacheConfig, EvictionStrategy
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


def test_what_is_printed(capsys):
    claims.main(["allocations"])
    assert "50 inserts x 10 clears: 50 slots allocated, 0 tensors after the first round" in capsys.readouterr().out


def test_an_unknown_claim_is_refused_by_name():
    with pytest.raises(SystemExit, match="unknown: nonsense"):
        claims.main(["nonsense"])
