"""A step where another environment follows is the environment's: no commit is blamed, and those within it still are."""

import math

import numpy as np
import pytest
from asv_files import commit_name, write_results

from kvbench.history.commits import Commit, Commits
from kvbench.history.series import read_history
from kvbench.judge.change_points import judge_history
from kvbench.judge.lost import find_lost
from kvbench.judge.verdict import Verdict
from kvbench.report.alarm import find_alarms

COUNT, TIME = "x.track_operations", "x.track_time"
UNITS = {COUNT: "operations", TIME: "us"}
NAME = "virtualenv-py3.11-torch2.12-OMP_NUM_THREADS1"
MACHINE = {"os": "Linux 6.1", "num_cpu": "2", "ram": "16373756000"}


def files(python="3.11", torch="2.12", threads="1", more=None, machine=None, kind="virtualenv", name=""):
    """What asv's file of a commit says of its environment, most of it twice."""
    requirements = ({"torch": torch} if torch else {}) | (more or {})
    variables = {"OMP_NUM_THREADS": threads}
    parts = [*(f"{each}{value}" for each, value in requirements.items()), f"OMP_NUM_THREADS{threads}"]
    return {
        "python": python, "requirements": requirements, "env_vars": variables,
        "env_name": "-".join([kind, f"py{python}", *parts]) + name,
        "params": MACHINE | {"python": python} | requirements | variables | (machine or {}),
    }  # fmt: skip


OTHERS = {
    "python 3.11 to 3.12": files(python="3.12"),
    "torch 2.12 to 2.13": files(torch="2.13"),
    "with numba 0.60": files(more={"numba": "0.60"}),
    "without torch 2.12": files(torch=""),
    "OMP_NUM_THREADS 1 to 2": files(threads="2"),
    "cpu some CPU to another": files(machine={"cpu": "another"}),
    "os Linux 6.1 to Linux 6.9": files(machine={"os": "Linux 6.9"}),
    "num_cpu 2 to 4": files(machine={"num_cpu": "4"}),
    "ram 16373756000 to 32747512000": files(machine={"ram": "32747512000"}),
    "environment type virtualenv to conda": files(kind="conda"),
    "with numba": files(name="-numba"),
}
PYTHON = files(python="3.12")


def environments(*runs):
    """Of commits: runs of so many in each environment."""
    return [other for number, other in runs for _ in range(number)]


def step(*levels):
    return [level for number, level in levels for _ in range(number)]


def judged(folder, values, runs, known=True):
    number = len(next(iter(values.values())))
    commits = Commits(tuple(Commit(commit_name(place), "somebody", "a subject") for place in range(number)))
    write_results(folder, values, units=UNITS, environments=environments(*runs))
    return judge_history(read_history(folder, commits), commits if known else Commits()).change_points


def cells(found):
    return [(each.series.benchmark, each.verdict, each.change.position) for each in found]


@pytest.mark.parametrize(("named", "other"), OTHERS.items(), ids=OTHERS)
def test_no_commit_is_blamed_for_what_came_with_another_environment(tmp_path, named, other):
    values = {(COUNT, "new"): step((6, 10.0), (6, 12.0)), (TIME, "new"): step((6, 10.0), (6, 15.0))}
    found = judged(tmp_path, values, [(6, files()), (6, other)])
    assert sorted(cells(found)) == [(COUNT, Verdict.ENVIRONMENT, 6), (TIME, Verdict.ENVIRONMENT, 6)]
    assert {each.environment for each in found} == {named}
    assert sorted(round(each.percent) for each in found) == [20, 50]


def test_a_requirement_without_a_version_says_no_other(tmp_path):
    of = files(name="-python") | {"requirements": {"torch": "2.12", "python": ""}}
    (found,) = judged(tmp_path, {(COUNT, "new"): step((2, 1.0), (2, 2.0))}, [(2, of), (2, files())])
    assert (found.verdict, found.environment) == (Verdict.ENVIRONMENT, "without python")


@pytest.mark.parametrize("place", ["python", "requirements", "env_vars", "params"])
def test_files_that_say_two_things_are_of_another_environment(tmp_path, place):
    other = files() | {place: files("3.12", "2.13", "2")[place]}
    (found,) = judged(tmp_path, {(COUNT, "new"): step((3, 1.0), (3, 2.0))}, [(3, files()), (3, other)])
    assert (found.verdict, " or " in found.environment) == (Verdict.ENVIRONMENT, True)


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_commits_are_told_from_it_within_each_environment(tmp_path, noise):
    rng = np.random.default_rng(0)
    levels = step((8, 10.0), (8, 20.0), (8, 40.0), (8, 20.0))
    times = (np.array(levels) * np.exp(rng.normal(0, noise, 32))).tolist()
    found = judged(tmp_path, {(COUNT, "new"): levels, (TIME, "new"): times}, [(16, files()), (16, PYTHON)])
    assert sorted(cells(found)) == [
        (name, verdict, place)
        for name in (COUNT, TIME)
        for verdict, place in ((Verdict.BETTER, 24), (Verdict.ENVIRONMENT, 16), (Verdict.WORSE, 8))
    ]
    stands = {(each.series.benchmark, each.change.position): each.stands for each in found}
    assert {stands[COUNT, 8], stands[TIME, 8]} == {False}  # taken back at 24, in the other environment


def test_noise_alone_is_no_step_of_an_environment(tmp_path):
    rng = np.random.default_rng(1)
    values = {(TIME, f"new-{place}"): np.exp(rng.normal(0, 0.15, 24)).tolist() for place in range(40)}
    assert judged(tmp_path, values, [(12, files()), (12, PYTHON)]) == []


def test_too_few_values_beside_it_are_not_decided_yet(tmp_path):
    assert judged(tmp_path, {(TIME, "new"): step((10, 10.0), (2, 20.0))}, [(10, files()), (2, PYTHON)]) == []


def test_one_that_returns(tmp_path):
    values = {(COUNT, "new"): step((4, 10.0), (4, 12.0), (4, 10.0)), (TIME, "new"): step((4, 1.0), (4, 2.0), (4, 1.0))}
    found = judged(tmp_path, values, [(4, files()), (4, PYTHON), (4, files())])
    assert sorted(cells(found)) == [(name, Verdict.ENVIRONMENT, place) for name in (COUNT, TIME) for place in (4, 8)]
    assert {each.change.position: (each.environment, each.stands) for each in found} == {
        4: ("python 3.11 to 3.12", False),
        8: ("python 3.12 to 3.11", True),
    }


def test_memory_that_nearly_agrees_is_the_same(tmp_path):
    ram = [files(machine={"ram": str(16373756000 + 4096 * place)}) for place in range(12)]
    found = judged(tmp_path, {(COUNT, "new"): step((6, 1.0), (6, 2.0))}, [(1, each) for each in ram])
    assert cells(found) == [(COUNT, Verdict.WORSE, 6)]


def test_two_environments_beside_each_other_are_two_lines_and_each_breaks(tmp_path):
    for python, factor in (("3.11", 1.0), ("3.12", 3.0)):
        values = {(COUNT, "new"): [factor * each for each in step((6, 10.0), (6, 20.0))]}
        of = environments((6, files(python)), (6, files(python, "2.13")))
        write_results(tmp_path, values, units=UNITS, environments=of, file=python)
    found = judge_history(read_history(tmp_path, Commits()), Commits()).change_points
    assert {(each.series.machine, each.verdict, each.environment) for each in found} == {
        (f"vm (python {python})", Verdict.ENVIRONMENT, "torch 2.12 to 2.13") for python in ("3.11", "3.12")
    }


def test_the_pace_is_of_each_environment_alone(tmp_path):
    slower = np.array(step((6, 1.0), (6, 1.5)))
    values = {(f"x.track_time_{kind}", "legacy"): (kind * slower).tolist() for kind in (1, 2, 3)}
    write_results(tmp_path, values, environments=environments((6, files()), (6, PYTHON)))
    judgement = judge_history(read_history(tmp_path, Commits()), Commits())
    assert judgement.pace["vm"] == pytest.approx(np.ones(12))
    assert {each.verdict for each in judgement.change_points} == {Verdict.ENVIRONMENT}


def test_what_is_lost_with_an_environment_says_so(tmp_path):
    values = {(COUNT, "new"): step((6, 1.0), (6, None)), (TIME, "new"): step((9, 1.0), (3, math.nan))}
    runs = environments((6, files()), (6, PYTHON))
    history = read_history(write_results(tmp_path, values, units=UNITS, environments=runs), Commits())
    lost = {each.state: each.environment for each in find_lost(history, Commits())}
    assert lost == {"fails": "python 3.11 to 3.12", "is skipped": ""}


@pytest.mark.parametrize(
    ("other", "alarming"),
    [(files(machine={"cpu": "another", "os": "Linux 6.9"}), [COUNT]), (PYTHON, []), (files(threads="2"), [])],
)
def test_a_count_that_rises_on_another_machine_is_not_passed_over(tmp_path, other, alarming):
    values = {(COUNT, "new"): step((6, 1.0), (6, 2.0)), (COUNT, "less"): step((6, 2.0), (6, 1.0))}
    values[TIME, "new"] = step((6, 1.0), (6, 2.0))
    names = [commit_name(place) for place in range(12)]
    commits = Commits(tuple(Commit(name, "somebody", "a subject") for name in names), frozenset(names))
    history = read_history(
        write_results(tmp_path, values, units=UNITS, environments=environments((6, files()), (6, other))), commits
    )
    judgement = judge_history(history, commits)
    assert {each.verdict for each in judgement.change_points} == {Verdict.ENVIRONMENT}
    alarms = find_alarms(judgement)
    assert [(each.metric, each.params) for each in alarms] == [("x.operations", "backend=new") for _ in alarming]
    told = "the machine changed as well: cpu some CPU to another, os Linux 6.1 to Linux 6.9"
    assert all(each.subject == told for each in alarms)
