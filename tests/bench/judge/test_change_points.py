"""Change points of a history: the machine's pace is no change of the code, and machines stay apart."""

import numpy as np
import pytest
from asv_files import commit_name, write_results

from kvbench.history.commits import Commit, Commits
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


def sixteen(after=8, factor=1.0):
    return np.where(np.arange(16) < after, 1.0, factor)


def noisy(rng, commits=16, spread=0.03):
    return np.exp(rng.normal(0, spread, commits))


def cells(rng, slow, factors, name="x.track_time"):
    """Cells of legacy and one other backend, whose times share the noise of their processes."""
    values = {}
    for cell, factor in factors.items():
        process = np.exp(rng.normal(0, 0.2, 16)) * slow
        values[name, ("legacy", cell)] = (process * noisy(rng)).tolist()
        values[name, ("new", cell)] = (process * factor * noisy(rng)).tolist()
    return values


def test_a_tenth_is_found_over_legacy_where_times_alone_do_not_show_it(tmp_path):
    rng = np.random.default_rng(0)
    factors = {str(cell): sixteen() for cell in range(9)} | {"9": sixteen(8, 1.15)}
    write_results(tmp_path, cells(rng, 1.0, factors), param=("backend", "cell"))
    found = judge(tmp_path).change_points
    assert [(each.series.params, each.verdict, each.change.position) for each in found] == [
        ("backend=new, cell=9", "worse", 8)
    ]
    assert found[0].percent == pytest.approx(15, abs=5)


def test_what_legacy_alone_shows_is_no_change_of_the_others(tmp_path):
    rng = np.random.default_rng(1)
    values = cells(rng, 1.0, {str(cell): sixteen() for cell in range(8)})
    values["x.track_time", ("legacy", "3")] = (sixteen(8, 3.0) * noisy(rng, spread=0.1)).tolist()
    values["x.track_time", ("new", "3")] = noisy(rng, spread=0.1).tolist()
    write_results(tmp_path, values, param=("backend", "cell"))
    assert {each.verdict for each in judge(tmp_path).change_points} <= {"machine"}


def test_a_quiet_family_is_judged_more_sharply_than_a_noisy_one(tmp_path):
    rng = np.random.default_rng(2)
    quiet = {}
    for cell in range(8):
        process = np.exp(rng.normal(0, 0.2, 16))
        for name, spread in (("quiet", 0.02), ("noisy", 0.15)):
            step = sixteen(8, 1.12) if cell == 0 else 1.0
            quiet[f"x.track_{name}", ("legacy", str(cell))] = process.tolist()
            quiet[f"x.track_{name}", ("new", str(cell))] = (process * step * noisy(rng, spread=spread)).tolist()
    write_results(tmp_path, quiet, param=("backend", "cell"))
    judgement = judge(tmp_path)
    assert {each.series.benchmark for each in judgement.change_points} == {"x.track_quiet"}
    smallest = {family[1]: step for family, step in judgement.smallest.items()}
    assert smallest["x.track_quiet"].middle < 0.12 < smallest["x.track_noisy"].middle
    assert smallest["x.track_quiet"].middle < smallest["x.track_quiet"].latest


def repository(number, new=()):
    commits = tuple(Commit(commit_name(place), "somebody", f"subject {place}") for place in range(number))
    return Commits(commits, frozenset(commit_name(place) for place in new))


def judge_in(folder, commits):
    return judge_history(read_history(folder, commits), commits).change_points


@pytest.mark.parametrize("unit", ["%", "us"])
def test_a_machine_that_measured_few_commits_does_not_shift_the_blame(tmp_path, unit):
    step = np.where(np.arange(40) < 22, 1.0, 3.0)
    units, every = {"x.track_it": unit}, range(0, 40, 4)
    write_results(tmp_path, {("x.track_it", "new"): step.tolist()}, machine="often", units=units)
    seldom = {("x.track_it", "new"): step[::4].tolist()}
    names = [commit_name(place) for place in every]
    write_results(tmp_path, seldom, machine="seldom", units=units, commits=names, dates=[1_795_000_000_000] * 10)
    found = judge_in(tmp_path, repository(40))
    assert [(each.series.machine, each.commit, each.between) for each in found] == [
        ("often", commit_name(22), 0), ("seldom", commit_name(22), 0)
    ]  # fmt: skip


def test_alone_it_tells_of_all_commits_that_may_have_done_it(tmp_path):
    values = {("x.track_it", "new"): [1.0] * 6 + [3.0] * 4}
    names = [commit_name(place) for place in range(0, 40, 4)]
    write_results(tmp_path, values, units={"x.track_it": "%"}, commits=names)
    (found,) = judge_in(tmp_path, repository(40, new=[22]))
    assert found.where == f"{commit_name(20)[:8]}..{commit_name(24)[:8]}"
    assert (found.between, found.is_new) == (3, True)


@pytest.mark.parametrize(
    ("unit", "values", "stands"),
    [
        ("%", [1.0] * 5 + [3.0] * 5, [True]),
        ("%", [1.0] * 4 + [3.0] * 3 + [1.0] * 3, [False, True]),
        ("us", [1.0] * 8 + [3.0] * 8 + [1.0] * 8, [False, True]),
        ("us", [1.0] * 8 + [3.0] * 8 + [1.5] * 8, [True, True]),
        ("%", [0.0] * 4 + [3.0] * 3 + [0.0] * 3, [False, True]),
    ],
)
def test_whether_a_change_still_stands(tmp_path, unit, values, stands):
    write_results(tmp_path, {("x.track_it", "new"): values}, units={"x.track_it": unit})
    found = sorted(judge(tmp_path).change_points, key=lambda each: each.change.position)
    assert [each.stands for each in found] == stands
