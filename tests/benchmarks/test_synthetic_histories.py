"""Synthetic histories: steps are where they are said to be, and the report's judgement finds them."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
synthetic_histories = pytest.importorskip("synthetic_histories")
Told = synthetic_histories.Told


@pytest.mark.parametrize("noise", synthetic_histories.NOISES)
def test_steps_are_where_they_are_said_to_be(noise):
    made = synthetic_histories.make_history(0, noise)
    values = made.values(over_legacy=True)
    steps = [np.median(values[series][place:]) / np.median(values[series][:place]) / factor
             for (series, place), factor in made.steps.items()]  # fmt: skip
    assert np.median(np.abs(np.log(steps))) < 0.04
    raw, paired = (
        np.median([np.std(np.diff(np.log(each))) for each in made.values(over)]) / math.sqrt(2)
        for over in (False, True)
    )
    assert (raw > 0.15, paired < 0.13) == (True, True)


def test_what_is_told_is_found_once_and_else_false():
    made = synthetic_histories.make_history(0, "mild")
    (series, place), _ = next(iter(made.steps.items()))
    told = [Told(series, place + 1), Told(series, place - 1), Told(series, place, False)]
    found = synthetic_histories.score([made], [told])
    assert (found.found, found.false, found.steps) == (1, 2, len(made.steps))
    clean = synthetic_histories.make_history(0, "mild", with_steps=False)
    assert synthetic_histories.score([clean], [[Told(0, 9)]]).false_in_clean == 1


@pytest.mark.slow
def test_the_reports_judgement_finds_them_and_makes_none_up():
    histories = [synthetic_histories.make_history(0, "mild", with_steps=steps) for steps in (True, False)]
    found = synthetic_histories.score(histories, [synthetic_histories.kvbench_points(each) for each in histories])
    assert (found.precision > 0.9, found.recall > 0.8, found.false_in_clean) == (True, True, 0)
    alone = synthetic_histories.score(
        histories, [synthetic_histories.asv_regressions(each, True) for each in histories]
    )
    assert alone.recall < found.recall
