"""Change points of a history: the machine's pace is no change of the code, and machines stay apart."""

import numpy as np
import pytest
from asv_files import write_results

from kvbench.history.commits import Commits
from kvbench.history.series import read_history
from kvbench.judge.change_points import judge_history


def judge(folder):
    return judge_history(read_history(folder, Commits()), Commits())


def test_the_pace_is_what_legacy_shows_and_excuses_the_machine(tmp_path):
    slow = np.where(np.arange(12) < 6, 1.0, 1.8)
    values = {(f"x.track_time_{kind}", "legacy"): (10 * kind * slow).tolist() for kind in (1, 2, 3)}
    values |= {(f"x.track_time_{kind}", "new"): (3 * kind * slow).tolist() for kind in (1, 2, 3)}
    values["x.track_time_4", "new"] = (7 * slow * np.where(np.arange(12) < 6, 1.0, 3.0)).tolist()
    found = judge(write_results(tmp_path, values))
    assert found.pace["vm"][-1] / found.pace["vm"][0] == pytest.approx(1.8)
    changed = {(point.series.metric, point.change.position) for point in found.change_points}
    assert changed == {("x.time_4", 6)}


def test_without_controls_there_is_no_pace(tmp_path):
    assert judge(write_results(tmp_path, {("x.track_time", "legacy"): [1.0] * 8})).pace == {}


def test_machines_stay_apart(tmp_path):
    for machine, value in (("a", 1.0), ("b", 9.0)):
        units = {"x.track_miss_rate": "%"}
        write_results(tmp_path, {("x.track_miss_rate", "new"): [value]}, machine=machine, units=units)
    assert judge(tmp_path).change_points == []
