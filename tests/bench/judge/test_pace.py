"""The pace of a machine, from times of what is left alone."""

import numpy as np
import pytest

from kvbench.judge.pace import FEWEST_CONTROLS, machine_pace

NAN = np.nan


def measured(pace, controls, rng, noise=0.02):
    usual = np.exp(rng.normal(3, 1, controls))
    return usual[:, None] * pace * np.exp(rng.normal(0, noise, (controls, len(pace))))


def test_a_slow_machine_is_seen():
    pace = np.array([1, 1, 1, 1.6, 1, 0.8])
    assert machine_pace(measured(pace, 9, np.random.default_rng(0))) == pytest.approx(pace, rel=0.05)


@pytest.mark.parametrize("young", [1, 12, 200])
def test_controls_measured_since_lately_say_nothing_of_before(young):
    pace = np.where(np.arange(12) < 8, 1, 1.6)
    rng = np.random.default_rng(young)
    controls = np.concatenate([measured(pace, 4, rng), measured(pace, young, rng)])
    controls[4:, :8] = NAN
    assert machine_pace(controls) == pytest.approx(pace, rel=0.05)


def test_controls_that_went_say_nothing_of_after():
    pace = np.linspace(1, 2, 10)
    controls = measured(pace, 30, np.random.default_rng(1))
    controls[:12, 6:] = NAN
    controls[12:24, :4] = NAN
    found = machine_pace(controls)
    assert found / np.median(found) == pytest.approx(pace / np.median(pace), rel=0.05)


def test_a_control_that_changes_by_itself_is_outvoted():
    controls = measured(np.ones(10), 7, np.random.default_rng(2))
    controls[0, 5:] *= 5
    controls[1, 3] *= 9
    assert machine_pace(controls) == pytest.approx(np.ones(10), rel=0.05)


def test_long_histories_do_not_drift():
    found = machine_pace(measured(np.ones(400), 20, np.random.default_rng(3), noise=0.1))
    assert found == pytest.approx(np.ones(400), rel=0.12)
    assert found[:100].mean() == pytest.approx(found[-100:].mean(), rel=0.02)


def test_commits_without_a_control_have_none():
    controls = measured(np.ones(5), FEWEST_CONTROLS, np.random.default_rng(4))
    controls[:, 2] = NAN
    controls[:, 4] = 0.0
    controls[:2, 0] = NAN
    assert np.isnan(machine_pace(controls)).tolist() == [False, False, True, False, True]


def test_nothing_to_compare():
    assert machine_pace(np.ones((FEWEST_CONTROLS - 1, 4))) is None
    assert machine_pace(np.where(np.eye(4), 1.0, NAN)) is None


def test_pieces_that_nothing_joins_stand_for_themselves():
    controls = np.full((6, 8), NAN)
    rng = np.random.default_rng(5)
    controls[:3, :4] = measured(np.ones(4), 3, rng)
    controls[3:, 4:] = measured(np.ones(4), 3, rng)
    assert machine_pace(controls) == pytest.approx(np.ones(8), rel=0.05)
