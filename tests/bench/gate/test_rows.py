"""Verdicts: exact ones of metrics, and of times ones that neither cry wolf nor sleep."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.gate.rows import compare_metrics, compare_times
from kvbench.gate.thresholds import TIME, Limit, Meant, Thresholds
from kvbench.judge.paired import FEWEST_AT_LAST, FEWEST_PAIRS, worse_level
from kvbench.judge.verdict import Verdict

METRICS = {
    "copies": Limit("lower"),
    "hits": Limit("higher"),
    "stale": Limit("none"),
    "bytes": Limit("lower", relative=0.1),
    "calls": Limit("none", absolute=2),
}
LIMITS = Thresholds(Limit("lower", relative=0.05), METRICS)
NAME = "test_operation[new:private-store]"


def metric(name, base, head, *meant):
    (row,) = compare_metrics(NAME, {name: base}, {name: head}, Thresholds(LIMITS.time, METRICS, meant))
    assert (row.benchmark, row.metric, row.base, row.head, row.ratio) == (NAME, name, base, head, None)
    return row


class TestMetrics:
    @pytest.mark.parametrize(
        ("name", "base", "head", "verdict"),
        [
            ("copies", 10, 10, Verdict.SAME),
            ("copies", 10, 9, Verdict.BETTER),
            ("copies", 10, 11, Verdict.WORSE),
            ("copies", 0, 1, Verdict.WORSE),
            ("hits", 10, 11, Verdict.BETTER),
            ("hits", 10, 9, Verdict.WORSE),
            ("stale", 0, 0, Verdict.SAME),
            ("stale", 5, 6, Verdict.WORSE),
            ("stale", 5, 4, Verdict.WORSE),
            ("bytes", 100, 110, Verdict.SAME),
            ("bytes", 100, 111, Verdict.WORSE),
            ("bytes", 100, 99, Verdict.BETTER),
            ("calls", 5, 3, Verdict.SAME),
            ("calls", 5, 7, Verdict.SAME),
            ("calls", 5, 8, Verdict.WORSE),
        ],
    )
    def test_a_change_counts_by_its_direction_and_beyond_its_limit(self, name, base, head, verdict):
        assert metric(name, base, head).verdict is verdict

    def test_a_move_within_its_limit_says_so(self):
        assert metric("bytes", 100, 110).reason == "within its limit"
        assert metric("bytes", 100, 100).reason == ""

    def test_a_meant_change_passes_with_what_the_commit_says(self):
        row = metric("copies", 10, 12, Meant("copies", "padding", "*store]", absolute=2))
        assert (row.verdict, row.reason) == (Verdict.MEANT, "padding")

    @pytest.mark.parametrize(
        "meant",
        [
            Meant("copies", "", "*store]", absolute=1),
            Meant("copies", "", "*slide]", absolute=2),
            Meant("bytes", "", "*store]", absolute=2),
        ],
    )
    def test_what_is_meant_elsewhere_or_less_of_it_does_not_pass(self, meant):
        assert metric("copies", 10, 12, meant).verdict is Verdict.WORSE

    def test_one_of_several_allowances_is_enough(self):
        meant = [Meant("copies", "little", absolute=1), Meant("copies", "much", absolute=9)]
        assert metric("copies", 10, 12, *meant).reason == "much"

    def test_new_and_gone(self):
        new, gone = compare_metrics(NAME, {"hits": 1}, {"copies": 2}, LIMITS)[::-1]
        assert (new.metric, new.verdict, new.base, new.head) == ("copies", Verdict.NEW, None, 2)
        assert (gone.metric, gone.verdict, gone.base, gone.head) == ("hits", Verdict.GONE, 1, None)

    @pytest.mark.parametrize(("base", "head"), [({"leaks": 1}, {"leaks": 1}), ({}, {"leaks": 0}), ({"leaks": 0}, {})])
    def test_a_metric_without_a_limit_fails_and_says_what_to_do(self, base, head):
        (row,) = compare_metrics(NAME, base, head, LIMITS)
        assert row.verdict is Verdict.FAILED
        assert "kvbench/metrics.py has no metric of this name: add it" in row.reason


def test_what_fails():
    assert {each for each in Verdict if each.fails} == {Verdict.WORSE, Verdict.GONE, Verdict.FAILED}


def times(seed, pairs=10, slower=1.0, noise=0.02, typical=50.0, mode=0.0):
    """Both sides' microseconds; in a quarter of the processes they are higher by ``mode``."""
    random = np.random.default_rng(seed)
    values = typical * np.exp(random.normal(0, noise, (2, pairs))) * (1 + mode * (random.random((2, pairs)) < 0.25))
    return values[0], values[1] * slower


def judge(*sides, limit=LIMITS.time, meant=(), is_last=False):
    """At one look of a run of ten benchmarks and at most 20 pairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return compare_times(NAME, *sides, Thresholds(limit, {}, tuple(meant)), worse_level(20, is_last, 1 / 10))


def verdicts(seeds, **shape):
    return [judge(*times(seed, **shape)).verdict for seed in range(seeds)]


class TestTimes:
    @pytest.mark.parametrize("pairs", [5, 10, 20])
    @pytest.mark.parametrize("mode", [0, 0.25])
    def test_identical_code_is_never_worse(self, pairs, mode):
        assert Verdict.WORSE not in verdicts(30, pairs=pairs, mode=mode)

    def test_identical_code_becomes_the_same(self):
        assert verdicts(20, noise=0.01).count(Verdict.SAME) == 20

    @pytest.mark.parametrize(("slower", "pairs"), [(2.5, 5), (1.3, 7), (1.1, 14)])
    def test_the_larger_a_slowdown_the_fewer_pairs_show_it(self, slower, pairs):
        assert verdicts(20, slower=slower, pairs=pairs, noise=0.015).count(Verdict.WORSE) >= 19

    def test_five_pairs_that_agree_by_chance_are_not_worse(self):
        """A process has one of few speeds: one run in 4,000 has five pairs 25 % apart in a row."""
        base, head = times(0, pairs=5, slower=1.25, noise=0.0001)
        assert judge(base, head).verdict is Verdict.NOT_DECIDED
        base, head = times(0, pairs=8, slower=1.25, noise=0.0001)
        assert judge(base, head).verdict is Verdict.WORSE

    @pytest.mark.parametrize("pairs", [10, 16, 30])
    def test_three_percent_are_never_worse(self, pairs):
        assert Verdict.WORSE not in verdicts(30, slower=1.03, pairs=pairs)

    def test_half_the_time_is_better_as_soon_as_anything_can_be_said(self):
        base, head = times(0, FEWEST_PAIRS, 0.5)
        assert judge(base, head).verdict is Verdict.BETTER

    def test_ten_percent_less_is_better(self):
        assert verdicts(20, slower=0.9, pairs=16).count(Verdict.BETTER) == 20

    def test_noise_and_few_pairs_are_not_decided(self):
        assert judge(*times(0, pairs=5, slower=1.1)).verdict is Verdict.NOT_DECIDED
        assert verdicts(20, slower=1.05, noise=0.1).count(Verdict.NOT_DECIDED) >= 17

    @pytest.mark.parametrize("slower", [0.1, 1, 10])
    def test_fewer_than_the_least_number_of_pairs_decide_nothing(self, slower):
        for pairs in range(1, FEWEST_AT_LAST):
            assert set(verdicts(5, pairs=pairs, slower=slower, noise=0.001)) == {Verdict.NOT_DECIDED}
        assert judge(*times(0, pairs=FEWEST_PAIRS, noise=0.001)).verdict is Verdict.SAME

    def test_what_a_row_says(self):
        base, head = [10.0, 30.0], [20.0, 60.0]
        row = judge(base, head)
        assert (row.benchmark, row.metric, row.base, row.head, row.pairs) == (NAME, TIME, 20.0, 40.0, 2)
        assert row.ratio == pytest.approx(2)
        assert (row.low, row.high) == (None, None)

    def test_a_pairs_common_noise_cancels(self):
        common = np.exp(np.random.default_rng(0).normal(0, 0.5, 12))
        base, head = times(0, pairs=12, slower=1.1, noise=0.01)
        assert judge(base * common, head * common).verdict is Verdict.WORSE

    @pytest.mark.parametrize(("absolute", "verdict"), [(0, Verdict.WORSE), (0.1, Verdict.SAME)])
    def test_a_tenth_of_a_microsecond_is_nothing(self, absolute, verdict):
        """30 % of 200 ns: more than the relative limit, less than the absolute one."""
        assert (
            judge(*times(0, slower=1.3, typical=0.2), limit=Limit("lower", relative=0.05, absolute=absolute)).verdict
            is verdict
        )

    def test_the_absolute_limit_leaves_long_times_alone(self):
        assert (
            judge(*times(0, slower=1.1, pairs=16), limit=Limit("lower", relative=0.05, absolute=0.1)).verdict
            is Verdict.WORSE
        )


class TestMeantTimes:
    @pytest.mark.parametrize("room", [{"relative": 0.4}, {"absolute": 20}])
    def test_a_meant_slowdown_passes_with_what_the_commit_says(self, room):
        row = judge(*times(0, slower=1.3, pairs=12), meant=[Meant(TIME, "it checks more", "*store]", **room)])
        assert (row.verdict, row.reason) == (Verdict.MEANT, "it checks more")

    @pytest.mark.parametrize(
        "meant",
        [
            Meant(TIME, "so", "*store]", relative=0.1),
            Meant(TIME, "so", "*slide]", relative=0.4),
            Meant("copies", "so", relative=0.4),
        ],
    )
    def test_what_is_meant_elsewhere_or_less_of_it_does_not_pass(self, meant):
        row = judge(*times(0, slower=1.3, pairs=12), meant=[meant])
        assert (row.verdict, row.reason) == (Verdict.WORSE, "")

    def test_what_may_be_more_than_is_meant_is_not_yet_meant(self):
        meant = [Meant(TIME, "so", relative=0.2)]
        assert judge(*times(0, slower=1.3, pairs=8), meant=meant).verdict is Verdict.NOT_DECIDED
        assert judge(*times(0, slower=1.3, pairs=12), meant=meant).verdict is Verdict.WORSE
        assert judge(*times(0, slower=1.2, pairs=30), meant=meant).verdict is Verdict.NOT_DECIDED

    def test_an_allowance_that_was_not_needed_is_not_mentioned(self):
        row = judge(*times(0, noise=0.01), meant=[Meant(TIME, "so", relative=0.4)])
        assert (row.verdict, row.reason) == (Verdict.SAME, "")


class TestTies:
    @pytest.mark.parametrize("limit", [Limit("lower"), Limit("lower", relative=0.05, absolute=0.1)])
    @pytest.mark.parametrize("pairs", [1, 2, 5, 12])
    def test_times_that_are_all_equal_have_ratio_one(self, limit, pairs):
        row = judge([5.0] * pairs, [5.0] * pairs, limit=limit)
        assert row.ratio == 1
        decided = limit.relative > 0 and pairs >= FEWEST_AT_LAST
        assert row.verdict is (Verdict.SAME if decided else Verdict.NOT_DECIDED)

    @given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=FEWEST_AT_LAST, max_size=12))
    @settings(max_examples=30)
    def test_coarse_clocks_neither_warn_nor_crash(self, pairs):
        base, head = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
        row = judge(base, head, limit=Limit("lower"))
        assert row.low <= row.ratio <= row.high


SEEDS = st.integers(0, 2**32 - 1)
PAIRS = st.integers(FEWEST_PAIRS, 14)


class TestSymmetry:
    @given(SEEDS, PAIRS, st.floats(0.8, 1.25), st.floats(1e-3, 1e6))
    @settings(max_examples=30)
    def test_the_unit_of_time_changes_nothing(self, seed, pairs, slower, factor):
        base, head = times(seed, pairs, slower)
        row, scaled = judge(base, head), judge(base * factor, head * factor)
        assert scaled.verdict is row.verdict
        assert (scaled.ratio, scaled.low, scaled.high) == pytest.approx((row.ratio, row.low, row.high))

    @given(SEEDS, PAIRS, st.floats(0.8, 1.25))
    @settings(max_examples=30)
    def test_what_is_worse_is_better_the_other_way_round(self, seed, pairs, slower):
        base, head = times(seed, pairs, slower)
        row, swapped = judge(base, head, limit=Limit("lower")), judge(head, base, limit=Limit("lower"))
        assert 1 / swapped.ratio == pytest.approx(row.ratio)
        if row.verdict is Verdict.WORSE:  # "better" is said sooner: nothing is stopped by it
            assert swapped.verdict is Verdict.BETTER

    @given(SEEDS, PAIRS, st.randoms(use_true_random=False))
    @settings(max_examples=20)
    def test_the_order_of_pairs_does_not_matter(self, seed, pairs, random):
        base, head = times(seed, pairs)
        order = random.sample(range(pairs), pairs)
        row, shuffled = judge(base, head), judge(base[order], head[order])
        assert shuffled.verdict is row.verdict
        assert (shuffled.ratio, shuffled.low, shuffled.high) == pytest.approx((row.ratio, row.low, row.high))


class TestInterval:
    @given(SEEDS, PAIRS, st.floats(0.7, 1.6), st.booleans())
    @settings(max_examples=60)
    def test_the_verdict_is_read_from_it(self, seed, pairs, slower, is_last):
        row = judge(*times(seed, pairs, slower, mode=0.25), is_last=is_last)
        assert row.low <= row.ratio <= row.high
        above, below, faster = row.low > 1.05, row.high < 1.05, row.high < 1 / 1.05
        expected = {
            (True, False, False): Verdict.WORSE,
            (False, True, False): Verdict.SAME,
            (False, True, True): Verdict.BETTER,
            (False, False, False): Verdict.NOT_DECIDED,
        }
        assert row.verdict is expected[above, below, faster]

    def test_the_last_look_is_less_strict(self):
        base, head = times(0, pairs=12, slower=1.1)
        early, last = judge(base, head), judge(base, head, is_last=True)
        assert early.low < last.low < last.high == early.high
