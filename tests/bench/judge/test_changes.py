"""Changes of series: deterministic ones exactly, measured ones where noise does not explain them."""

import math

import numpy as np
import pytest

from kvbench.judge.changes import Change, Measured, exact_changes
from kvbench.judge.changes import measured_changes as changes_of

NAN = math.nan


def measured_changes(series, paces, controls=()):
    """Of series of one family."""
    given = zip(series, paces, controls or [None] * len(series), strict=True)
    return changes_of([Measured(*each) for each in given])[0]


def positions(found):
    return [[change.position for change in changes] for changes in found]


def process_noise(rng, commits, gap=0.22):
    """Identical code (MEASURING.md): one of three values up to 25 % apart from process to process, 2 % within one."""
    return 100 * np.exp(rng.integers(0, 3, commits) * gap / 2 + rng.normal(0, 0.02, commits))


class TestExact:
    def test_every_change_counts(self):
        assert exact_changes([5.0, 5.0, 7.0, 7.0, 6.0]) == [Change(2, 5.0, 7.0, 1.4), Change(4, 7.0, 6.0, 6 / 7)]

    def test_what_was_not_measured_is_passed_over(self):
        assert exact_changes([NAN, 5.0, NAN, 5.0, NAN, 8.0]) == [Change(5, 5.0, 8.0, 1.6)]

    def test_from_zero(self):
        assert exact_changes([0.0, 3.0, 0.0]) == [Change(1, 0.0, 3.0, math.inf), Change(2, 3.0, 0.0, 0.0)]

    def test_nothing_changes(self):
        assert exact_changes([1.0] * 9) == []


class TestMeasured:
    @pytest.mark.parametrize("commits", [6, 8, 12, 20, 50])
    def test_identical_commits_show_none(self, commits):
        rng = np.random.default_rng(commits)
        for _ in range(5):
            series = [process_noise(rng, commits) for _ in range(200)]
            assert positions(measured_changes(series, [None] * 200)) == [[]] * 200

    @pytest.mark.parametrize("commits", [6, 8, 12])
    def test_code_that_takes_twice_as_long_is_found_at_its_commit(self, commits):
        rng = np.random.default_rng(commits)
        found = 0
        for _ in range(10):
            series = [process_noise(rng, commits) for _ in range(50)]
            series[7][commits // 2 :] *= 2.2
            judged = positions(measured_changes(series, [None] * 50))
            found += judged[7] == [commits // 2]
            assert all(not changes for place, changes in enumerate(judged) if place != 7)
        assert found >= (9 if commits > 6 else 7)  # three values on either side are few

    def test_an_outlier_is_no_change(self):
        series = np.full(30, 100.0)
        series[13] = 400.0
        assert positions(measured_changes([series], [None])) == [[]]

    @pytest.mark.parametrize("outliers", [(13,), (13, 14), (13, 15), (12, 14, 16), (0, 1), (0, 29), (28, 29)])
    def test_what_passes_or_has_only_begun_is_no_change(self, outliers):
        series = 100 * np.exp(np.random.default_rng(1).normal(0, 0.01, 30))
        series[list(outliers)] *= 2
        assert positions(measured_changes([series], [None])) == [[]]

    @pytest.mark.parametrize("place", range(1, 15))
    def test_a_change_stands_where_it_is_or_is_not_decided_yet(self, place):
        series = 100 * np.exp(np.random.default_rng(place).normal(0, 0.01, 15))
        series[place:] *= 2
        assert positions(measured_changes([series], [None])) == [[place] if 3 <= place <= 12 else []]

    def test_an_outlier_near_a_change_does_not_move_it(self):
        for outlier, factor in ((7, 0.5), (7, 4), (12, 0.5), (12, 4)):
            series = np.repeat([100.0, 200.0], 10)
            series[outlier] *= factor
            assert positions(measured_changes([series], [None])) == [[10]]

    def test_small_effects_do_not_matter_however_sure(self):
        series = np.repeat([100.0, 104.0], 2000)
        assert positions(measured_changes([series], [None])) == [[]]
        assert positions(measured_changes([np.repeat([100.0, 130.0], 2000)], [None])) == [[2000]]

    def test_a_slow_machine_is_no_regression(self):
        rng = np.random.default_rng(0)
        pace = np.where(np.arange(20) < 10, 1.0, 2.0)
        series = [process_noise(rng, 20) * pace for _ in range(10)]
        assert any(map(len, measured_changes(series, [None] * 10)))
        assert not any(map(len, measured_changes(series, [pace] * 10)))

    def test_what_a_series_shares_with_its_control_is_no_change_of_its_own(self):
        rng = np.random.default_rng(0)
        slow = np.where(np.arange(16) < 8, 1.0, 2.0)
        control = process_noise(rng, 16) * slow
        shared, own, other_way = (process_noise(rng, 16) * factor for factor in (slow, slow**2, 1 / slow))
        series = [shared, own, other_way, process_noise(rng, 16)]
        assert positions(measured_changes(series, [None] * 4)) == [[8], [8], [8], []]
        assert positions(measured_changes(series, [None] * 4, [control] * 4)) == [[], [8], [8], []]

    @pytest.mark.parametrize("factor", [2, 3, 10, 0.1])
    @pytest.mark.parametrize("place", [1, 9])
    def test_an_outlier_of_the_control_hides_nothing(self, factor, place):
        rng = np.random.default_rng(1)
        series, control = process_noise(rng, 14) * np.repeat([1.0, 2.2], 7), process_noise(rng, 14)
        control[place] *= factor
        assert positions(measured_changes([series], [None], [control])) == [[7]]

    def test_a_changes_size_is_what_its_control_does_not_share(self):
        control = np.repeat([100.0, 150.0], 10)
        ((change,),) = measured_changes([control * np.repeat([1.0, 2.0], 10)], [None], [control])
        assert (change.before, change.after) == (100.0, 300.0)
        assert change.ratio == pytest.approx(2.0)

    def test_a_change_whose_neighbour_is_rejected_is_tested_against_what_they_make_together(self):
        rng = np.random.default_rng(2)
        quiet = [process_noise(rng, 60) for _ in range(199)]
        bump = process_noise(rng, 60, 0.0)
        bump[:33] *= np.exp(rng.normal(0, 0.12, 33))  # the way up is lost in this noise, the way down would not be
        bump[33:36] *= 1.3
        assert positions(measured_changes([bump, *quiet], [None] * 200)) == [[]] * 200

    def test_a_control_that_was_hardly_measured_excuses_nothing(self):
        series, control = np.repeat([100.0, 200.0], 8), np.full(16, NAN)
        control[[0, 1, 2, 14, 15]] = [100, 100, 100, 200, 200]
        assert positions(measured_changes([series], [None], [control])) == [[8]]

    def test_a_control_that_changes_the_other_way_hides_nothing(self):
        series, control = np.repeat([100.0, 150.0], 8), np.repeat([100.0, 50.0], 8)
        assert positions(measured_changes([series], [None], [control])) == [[8]]

    def test_the_change_is_given_with_medians_and_without_the_pace(self):
        pace = np.where(np.arange(20) < 10, 1.0, 1.5)
        series = np.where(np.arange(20) < 10, 100.0, 200.0) * pace
        ((change,),) = measured_changes([series], [pace])
        assert (change.position, change.before, change.after) == (10, 100.0, 300.0)
        assert change.ratio == pytest.approx(2.0)
        assert 0.99 < change.certainty <= 1

    def test_places_are_those_of_the_series_with_its_gaps(self):
        series = np.full(24, NAN)
        series[::2] = np.repeat([10.0, 40.0], 6)
        series[4] = 0.0  # no time
        assert positions(measured_changes([series], [None])) == [[12]]

    def test_too_few_values_say_nothing(self):
        assert positions(measured_changes([np.array([1.0, 1.0, 9.0, 9.0, 9.0])], [None])) == [[]]

    def test_no_series(self):
        assert measured_changes([], []) == []
