"""A replay's sentences say its numbers, and no speed where caches return other things."""

import msgspec
import pytest
from replay_files import replay, tiny

from kvbench.report.answers import answers
from kvbench.results.replay import Ratio, ReplayResults


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A replay with default pools, and one with small ones; without times."""
    folder = tmp_path_factory.mktemp("answers")
    options = "--repetitions", "0", "--capacity", "default", "--capacity", "recur=5", "--eviction", "fifo"
    file = replay(tiny(folder / "trace.parquet"), folder / "replay.json", *options)
    return msgspec.json.decode(file.read_bytes(), type=ReplayResults).replays


def timed(one, median, p25, p75):
    ratio = Ratio(median=median, p25=p25, p75=p75, lowest_repetition=p25, highest_repetition=p75)
    return msgspec.structs.replace(one, baseline_over_backend={"legacy": ratio, "new": ratio})


def counted(one, **counts):
    """The same with other counts of every backend."""
    total = {"lookups": 1000, "hit": 0, "stale_hit": 0, "context_mismatch": 0, "miss": 0, "wrong_content": 0} | counts
    backends = [
        msgspec.structs.replace(each, outcomes=msgspec.structs.replace(each.outcomes, total=total))
        for each in one.backends
    ]
    return msgspec.structs.replace(one, backends=backends)


def test_alike_caches_are_compared_in_memory_alone_where_nothing_was_timed(found):
    alike = counted(found[0], hit=1000)
    legacy, new = (sum(each.bytes_reserved.values()) for each in alike.backends)
    (said,) = answers(alike)
    assert said == (
        f"default pools: new takes {100 * new / legacy:.0f} % of legacy's memory; "
        "each of the two answers every lookup right."
    )


@pytest.mark.parametrize(
    ("ratio", "speed"),
    [
        ((4.81, 3.7, 5.9), "is 4.8 times as fast as legacy (3.7 to 5.9)"),
        ((0.5, 0.4, 0.6), "is 0.5 times as fast as legacy (0.4 to 0.6)"),
        ((1.2, 0.9, 1.4), "is about as fast as legacy (0.9 to 1.4 times)"),
    ],
)
def test_a_speed_has_its_quartiles_and_is_none_where_they_hold_1(found, ratio, speed):
    (said,) = answers(timed(counted(found[0], hit=1000), *ratio))
    assert f"new {speed}, in " in said


def test_no_speed_and_no_memory_where_one_returns_what_the_other_misses(found):
    legacy, new = found[1].backends
    assert legacy.count("stale_hit") == new.count("miss") > 0
    (said,) = answers(timed(found[1], 4.8, 3.7, 5.9))
    share = f"{legacy.rate('stale_hit'):.1f} %"
    assert said == (
        f"recur=5: legacy returns another state's content in {share} of its lookups; new misses {share} of its lookups."
    )


def test_what_both_return_wrong_is_said(found):
    (said,) = answers(counted(found[0], hit=900, stale_hit=99, wrong_content=1))
    assert said.endswith(
        "each of the two returns content that was never stored in 0.1 % of its lookups and "
        "returns another state's content in 9.9 %."
    )


def test_a_share_that_is_small_is_not_said_to_be_none(found):
    (said,) = answers(counted(found[0], hit=999_999, miss=1, lookups=1_000_000))
    assert "misses 0.0001 % of its lookups" in said


def test_a_cache_alone_has_a_sentence_of_its_own(found):
    alone = msgspec.structs.replace(found[1], backends=found[1].backends[:1])
    (said,) = answers(alone)
    assert said.startswith("recur=5: legacy returns another state's content in ")


def test_a_cache_that_was_asked_for_nothing_answers_nothing_right(found):
    assert answers(counted(found[0], lookups=0))[0].endswith("each of the two was asked for nothing.")
