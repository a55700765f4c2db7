"""The chance of a largest statistic: never below what noise shows, and not far above."""

import numpy as np
import pytest

from kvbench.judge.scan import chance_of_largest, normal_of_t


@pytest.mark.parametrize("number", [8, 40])
def test_it_bounds_what_noise_shows(number):
    values = np.random.default_rng(0).normal(size=(40_000, number))
    before = np.arange(3, number - 2)
    sums = np.cumsum(values, axis=1)
    distances = sums[:, -1:] * before / number - sums[:, before - 1]
    largest = (np.abs(distances) / np.sqrt(before * (number - before) / number)).max(axis=1)
    for limit in (2.5, 3.0, 3.5):
        seen = (largest > limit).mean()
        assert 0.9 * seen < chance_of_largest(limit, number, 3) < 1.6 * seen + 1e-3


def test_it_falls_with_the_statistic_and_rises_with_the_places():
    chances = [chance_of_largest(each, 40, 3) for each in (0.0, 1.0, 3.0, 6.0, 11.9, 12.1, 30.0)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] == 1
    assert chance_of_largest(4, 10, 3) < chance_of_largest(4, 100, 3)
    assert chance_of_largest(4, 6, 3) == pytest.approx(6.3e-5, rel=0.05)  # one place: the normal distribution


def test_few_degrees_of_freedom_make_less_sure():
    assert normal_of_t(4, 1e6) == pytest.approx(4, abs=0.01)
    assert normal_of_t(4, 5) < 2.7
