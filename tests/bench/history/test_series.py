"""asv's results as series, and the order of their commits."""

import json
import math

import pytest
from asv_files import START, commit_name, write_results
from git_history import make_history

from kvbench.history.commits import Commits, read_commits
from kvbench.history.series import read_history

EXACT = {"x.track_bytes_reserved": "bytes", "x.track_miss_rate": "%"}


def read(folder, commits=None):
    return read_history(folder, commits or Commits())


def test_a_series_for_each_cell(tmp_path):
    write_results(tmp_path, {("x.track_time", "new"): [3.0, None, 4.0], ("x.track_time", "legacy"): [5.0, 5.0, 5.0]})
    history = read(tmp_path)
    new, legacy = history.series
    assert (new.metric, new.param("backend"), new.unit, new.is_exact) == ("x.time", "new", "us", False)
    assert new.values.tolist()[::2] == [3.0, 4.0]
    assert math.isnan(new.values[1])
    assert new.failed.tolist() == [False, True, False]
    assert legacy.values.tolist() == [5.0] * 3
    assert history.commits == {"vm": [commit_name(each) for each in range(3)]}
    at = list(history.at("vm", "x.track_time"))
    assert at[0] == (commit_name(2), {"backend=new": 4.0, "backend=legacy": 5.0})
    assert at[1] == (commit_name(1), {"backend=legacy": 5.0})
    assert list(history.at("vm", "x.other")) == []


@pytest.mark.parametrize(
    ("name", "unit", "exact"),
    [
        ("x.track_bytes_reserved", "bytes", True), ("x.track_miss_rate", "%", True), ("x.track_time", "us", False),
        ("x.track_time_over_legacy", "ratio", False), ("x.peakmem_all", "bytes", False),
        ("x.time_it", "seconds", False), ("x.track_copied", "bytes per step", True), ("x.track_score", "points", False),
        ("x.track_other", "unit", False),
    ],
)  # fmt: skip
def test_what_is_deterministic(tmp_path, name, unit, exact):
    (series,) = read(write_results(tmp_path, {(name, "new"): [1.0]}, units={name: unit})).series
    assert series.is_exact is exact


def test_the_repository_orders_commits_of_one_moment(tmp_path):
    folder, names = make_history(tmp_path / "repository", ["a", "b", "c", "d"])
    values = {("x.track_miss_rate", "new"): [1.0, 2.0, 3.0, 4.0]}
    shuffled = [names[2], names[0], names[3], names[1]]
    write_results(tmp_path / "results", values, commits=shuffled, dates=[START] * 4, units=EXACT)
    history = read(tmp_path / "results", read_commits(folder))
    assert history.commits["vm"] == names
    assert history.series[0].values.tolist() == [2.0, 4.0, 1.0, 3.0]


def test_unknown_commits_stand_in_the_order_of_their_dates(tmp_path):
    values = {("x.track_miss_rate", "new"): [1.0, 2.0]}
    write_results(tmp_path, values, dates=[START + 5, START], units=EXACT)
    assert read(tmp_path).series[0].values.tolist() == [2.0, 1.0]


def test_unknown_commits_leave_the_others_in_the_repositorys_order(tmp_path):
    folder, names = make_history(tmp_path / "repository", ["a", "b", "c"])
    commits = [names[2], commit_name(7), names[0], commit_name(8), names[1]]
    dates = [START, START + 1, START, START - 1, START]  # of known ones all the same
    write_results(
        tmp_path / "results", {("x.track_miss_rate", "new"): [1.0] * 5}, commits=commits, dates=dates, units=EXACT
    )
    found = read(tmp_path / "results", read_commits(folder)).commits["vm"]
    assert found == [commit_name(8), *names, commit_name(7)]


def test_a_child_that_is_dated_before_its_parent_comes_after_it(tmp_path):
    folder, names = make_history(tmp_path / "repository", ["parent", "child"])
    commits = [names[1], commit_name(7), names[0]]
    dates = [START, START + 1, START + 2]  # the unknown one is younger than the child and older than its parent
    write_results(
        tmp_path / "results", {("x.track_miss_rate", "new"): [1.0] * 3}, commits=commits, dates=dates, units=EXACT
    )
    assert read(tmp_path / "results", read_commits(folder)).commits["vm"] == [commit_name(7), *names]


def test_legacys_own_times_are_controls(tmp_path):
    values = {("x.track_time", name): [1.0] for name in ("legacy", "legacy-0.2.0", "new", "legacyish")}
    values[("x.track_bytes_reserved", "legacy")] = [1.0]
    found = {
        (each.metric, each.param("backend")): each.is_control
        for each in read(write_results(tmp_path, values, units=EXACT)).series
    }
    assert {name for name, control in found.items() if control} == {("x.time", "legacy"), ("x.time", "legacy-0.2.0")}


@pytest.mark.parametrize("version", ["1", "2"])
def test_results_without_a_value_are_an_empty_history(tmp_path, version):
    folder = write_results(tmp_path, {("x.track_time", "new"): [1.0]})
    if version == "1":
        for path in (folder / "vm").glob("*-env.json"):
            path.unlink()
    else:
        described = json.loads((folder / "benchmarks.json").read_text())
        described["x.track_time"]["version"] = "2"
        (folder / "benchmarks.json").write_text(json.dumps(described))
    history = read(folder)
    assert history.is_empty
    assert history.series == ()
    assert history.skipped == ()


def test_machines_stay_apart(tmp_path):
    for machine, value in (("a", 1.0), ("b", 9.0)):
        write_results(tmp_path, {("x.track_miss_rate", "new"): [value]}, machine=machine, units=EXACT)
    assert {each.machine: each.values.tolist() for each in read(tmp_path).series} == {"a": [1.0], "b": [9.0]}


def test_hostile_names_are_fit_to_be_shown(tmp_path):
    name = "x.track_\x00<script>"
    (series,) = read(write_results(tmp_path, {(name, "\x1b[2Jnew"): [1.0]})).series
    assert "\x00" not in series.benchmark
    assert "<script>" in series.benchmark
    assert "\x1b" not in series.params


@pytest.mark.parametrize(
    ("param", "unit", "exact", "known"),
    [
        ("backend", "%", True, True),
        ("backend", "ratio", False, True),
        ("case", "%", False, False),
        ("case", "ratio", False, False),
        ("case", "seconds", False, True),
        ("case", "operations", True, True),
    ],
)
def test_what_is_known_of_another_projects_metric(tmp_path, param, unit, exact, known):
    values = {("x.track_it", "new"): [1.0, 2.0]}
    (series,) = read(write_results(tmp_path, values, units={"x.track_it": unit}, param=param)).series
    assert (series.is_exact, series.lower_is_better) == (exact, known)
