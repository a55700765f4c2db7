"""How far values of the same code scatter: of a family, beside changes and outliers, and for how long."""

import numpy as np
import pytest

from kvbench.judge.spread import Prior, Stickiness, family_prior, middle, rough_spread, stickiness_of

RNG = np.random.default_rng(0)


def test_a_family_says_how_far_its_series_scatter_whatever_changes_in_them():
    family = [RNG.normal(0, 0.05, 40) + np.where(np.arange(40) < 20, 0, place % 2) for place in range(30)]
    assert family_prior(family).variance == pytest.approx(0.05**2, rel=0.15)
    family = [each + np.where(RNG.random(40) < 0.05, 0.5, 0) for each in family]
    assert family_prior(family).variance == pytest.approx(0.05**2, rel=0.7)  # without the outliers' own 0.0125


def test_series_that_are_unalike_make_a_family_worth_less():
    alike = family_prior([RNG.normal(0, 0.05, 40) for _ in range(40)])
    unalike = family_prior([RNG.normal(0, 0.05 * 3 ** RNG.normal(), 40) for _ in range(40)])
    assert unalike.degrees < 5
    assert alike.degrees > 20
    assert family_prior([RNG.normal(0, 0.05, 40)] * 2) == Prior()


def test_a_series_of_few_values_is_moderated_by_its_family():
    variance, degrees = Prior(0.01, 10.0).moderated(4 * 0.04, 4.0)
    assert (variance, degrees) == (pytest.approx((10 * 0.01 + 0.16) / 14), 14)


@pytest.mark.parametrize(("held", "stays"), [(0.0, 0.0), (0.5, 0.8)])
def test_values_that_stay_off_are_seen(held, stays):
    series = []
    for _ in range(200):
        drawn = np.maximum.accumulate(np.where(RNG.random(40) < stays, 0, np.arange(40)))
        series.append(np.sqrt(1 - held) * RNG.normal(size=40) + np.sqrt(held) * RNG.normal(size=40)[drawn])
    found = stickiness_of(series)
    assert found.held == pytest.approx(held, abs=0.15)
    # Means of what stays off are less sure.
    assert found.of_difference(20, 20) / (2 / 20) == pytest.approx(1 if not held else 3.4, rel=0.3)


def test_white_noise_is_no_stickiness():
    assert Stickiness().of_difference(5, 20) == pytest.approx(1 / 5 + 1 / 20)
    assert Stickiness().total == 1


def test_an_outlier_counts_no_more_than_another():
    values = np.array([1.0, 1.1, 0.9, 1.0, 9.0])
    assert middle(values, 0.1) == pytest.approx(1.05, abs=0.02)
    assert middle(values[:4], 0.1) == pytest.approx(1.0)
    assert rough_spread(np.array([1.0])) == 0
