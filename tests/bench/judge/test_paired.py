"""The test of times: how sure each look must be, and what its interval is. See benchmarks/operating_curve.py."""

import math

import numpy as np
import pytest
from scipy import stats

from kvbench.judge.paired import (
    FALSE_ALARMS,
    FEWEST_AT_LAST,
    FEWEST_PAIRS,
    LEAST_SPREAD,
    interval,
    judge_ratios,
    pair_of_all,
    worse_level,
)
from kvbench.judge.verdict import Verdict


class TestLevels:
    @pytest.mark.parametrize("most", [5, 6, 20, 100])
    @pytest.mark.parametrize("stopped", [5, 6, 20, 100])
    def test_those_of_all_looks_of_all_questions_are_the_false_alarms_of_a_run(self, most, stopped):
        """However early a run is stopped."""
        looks = range(FEWEST_PAIRS, min(most, stopped) + 1)
        spent = sum(worse_level(most, pairs == looks[-1], 1 / 4) for pairs in looks)
        assert 4 * spent <= FALSE_ALARMS * (1 + 1e-9)
        if stopped >= most > FEWEST_PAIRS:
            assert 4 * spent == pytest.approx(FALSE_ALARMS)

    def test_more_questions_make_each_stricter(self):
        assert worse_level(20, False, 1 / 10) == pytest.approx(worse_level(20, False, 1) / 10)


class TestInterval:
    @pytest.mark.parametrize("pairs", [5, 8, 20])
    def test_it_is_students(self, pairs):
        ratios = np.random.default_rng(pairs).normal(0.1, 0.3, pairs)
        low, high = interval(ratios, 1e-4)
        test = stats.ttest_1samp(ratios, 0)
        assert low == pytest.approx(test.confidence_interval(1 - 2e-4).low)
        assert high == pytest.approx(test.confidence_interval(0.9).high)

    def test_pairs_that_agree_have_the_least_spread(self):
        low, high = interval(np.full(5, 0.2), 1e-4)
        assert low == pytest.approx(0.2 - stats.t.isf(1e-4, 4) * LEAST_SPREAD / 5 / math.sqrt(5))
        assert high == pytest.approx(0.2)

    def test_it_is_taken_along_the_last_axis(self):
        ratios = np.random.default_rng(0).normal(0, 0.1, (3, 4, 7))
        low, high = interval(ratios, 1e-3)
        assert (low.shape, high.shape) == ((3, 4), (3, 4))
        assert (low[2, 1], high[2, 1]) == pytest.approx(interval(ratios[2, 1], 1e-3))


class TestAllTogether:
    def test_a_few_extreme_benchmarks_move_it_little(self):
        assert pair_of_all(np.array([0.1] * 9 + [5.0])) == pytest.approx(0.1)

    def test_a_change_in_half_of_them_shows(self):
        assert pair_of_all(np.array([0.0] * 10 + [0.3] * 10)) == pytest.approx(0.15)


@pytest.mark.parametrize("pairs", range(1, FEWEST_AT_LAST))
def test_fewer_pairs_decide_nothing(pairs):
    assert judge_ratios(np.full(pairs, 3.0), 0.05, 0.05, 0.01) == (Verdict.NOT_DECIDED, None, None)


def test_identical_code_is_called_worse_in_fewer_runs_than_is_allowed():
    """Of 20 benchmarks in 500 runs, at every look, where a process has one of three speeds 25 % apart."""
    random = np.random.default_rng(0)
    processes = random.choice(np.log([1, 1.25, 1.5]), p=[0.6, 0.25, 0.15], size=(2, 500, 20, 20))
    ratios = processes[1] - processes[0] + random.normal(0, 0.01, processes.shape[1:])
    alarms = np.zeros(500, dtype=bool)
    for pairs in range(FEWEST_PAIRS, 21):
        low, _ = interval(ratios[..., :pairs], worse_level(20, pairs == 20, 1 / 20))
        alarms |= (low > math.log(1.05)).any(axis=1)
    assert alarms.mean() <= FALSE_ALARMS
