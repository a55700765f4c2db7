"""Two commits of a history: which they are, counters exactly, times by the change points between them."""

from collections import Counter

import numpy as np
import pytest
from asv_files import commit_name, write_results

from kvbench.history.commits import Commits
from kvbench.history.series import read_history
from kvbench.judge.change_points import judge_history
from kvbench.judge.two_commits import compare_commits, find_pair
from kvbench.judge.verdict import Verdict

NAN = float("nan")


def judged(folder, values, unit="bytes"):
    """The history of values by backend, each of a benchmark of its own, and its judgement."""
    series = {(f"suite.track_{backend}", backend): list(map(float, each)) for backend, each in values.items()}
    units = {name: unit for name, _ in series}
    history = read_history(write_results(folder, series, units=units), Commits())
    return history, judge_history(history, Commits())


@pytest.fixture(scope="module")
def times(tmp_path_factory):
    """One time of six doubles in the middle of twelve commits."""
    steady = {f"a{number}": [100.0] * 12 for number in range(5)}
    return judged(tmp_path_factory.mktemp("times"), steady | {"slower": np.repeat([100.0, 200.0], 6)}, "us")


@pytest.mark.parametrize(
    ("base", "head", "wanted"),
    [
        (4, 8, {"worse": 1, "same": 5}),
        (8, 4, {"better": 1, "same": 5}),
        (6, 8, {"same": 6}),
        (3, 5, {"same": 6}),
        (4, 11, {"worse": 1, "not decided": 5}),  # a step at the end would not be seen yet
        (0, 8, {"worse": 1, "not decided": 5}),  # nor one at the beginning
        (10, 11, {"not decided": 6}),
    ],
)
def test_times(times, base, head, wanted):
    found = compare_commits(*times, commit_name(base), commit_name(head))
    assert Counter(str(each.verdict) for each in found) == wanted
    ratios = {each.ratio for each in found if each.verdict in (Verdict.WORSE, Verdict.BETTER)}
    assert all(ratio == pytest.approx(2 if head > base else 0.5) for ratio in ratios)


def test_counters_are_compared_exactly(tmp_path):
    values = {"more": [100, 100.001], "fewer": [2, 1], "same": [7, 7], "none": [0, 0], "some": [0, 3]}
    found = {
        each.series.cell["backend"]: each
        for each in compare_commits(*judged(tmp_path, values), *map(commit_name, (0, 1)))
    }
    assert {name: str(each.verdict) for name, each in found.items()} == {
        "more": "worse", "fewer": "better", "same": "same", "none": "same", "some": "worse",
    }  # fmt: skip
    assert found["fewer"].percent == -50
    assert found["some"].percent is None
    assert found["some"].size > found["more"].size


def test_what_was_not_measured_at_both_is_not_compared_and_what_fails_is(tmp_path):
    values = {"new": [NAN, 1], "gone": [1, NAN]}
    history, judgement = judged(tmp_path / "a", values)
    assert compare_commits(history, judgement, *map(commit_name, (0, 1))) == []
    results = write_results(tmp_path / "b", {("suite.track_it", "new"): [1.0, None]}, units={"suite.track_it": "bytes"})
    history = read_history(results, Commits())
    (failed,) = compare_commits(history, judge_history(history, Commits()), *map(commit_name, (0, 1)))
    assert failed.verdict is Verdict.FAILED


def test_a_machine_alone_compares_its_own_commits(tmp_path):
    folder = tmp_path / "results"
    value = {("suite.track_it", "new"): [1.0, 2.0]}
    units = {"suite.track_it": "bytes"}
    write_results(folder, value, units=units, machine="a", commits=[commit_name(0), commit_name(3)])
    write_results(
        folder, value, units=units, machine="b", commits=[commit_name(1), commit_name(2)], dates=[10**12, 10**12 + 1]
    )
    history = read_history(folder, Commits())
    pair = find_pair(history, Commits())
    assert pair == (commit_name(0), commit_name(3))  # b has no part in it: it measured neither
    (only,) = compare_commits(history, judge_history(history, Commits()), *pair)
    assert (only.series.machine, only.base, only.head) == ("a", 1.0, 2.0)


def test_which_two_commits(tmp_path):
    history, _ = judged(tmp_path, {"new": [1, 2, 3, 4]})
    names = [commit_name(place) for place in range(4)]
    assert find_pair(history, Commits()) == (names[2], names[3])
    assert find_pair(history, Commits(), head=names[1]) == (names[0], names[1])
    assert find_pair(history, Commits(), base=names[0]) == (names[0], names[3])
    assert find_pair(history, Commits(), names[3], names[0]) == (names[3], names[0])
    assert find_pair(history, Commits(), head=names[0]) == ("", "")
    assert find_pair(history, Commits(), base=names[3]) == ("", "")


@pytest.mark.parametrize("environments", [1, 2])
def test_of_two_environments_what_came_with_the_second_is_no_commits(tmp_path, environments):
    values = {(f"suite.track_{name}", name): [4.0] * 10 + [5.0] * 10 + [6.0] * 10 for name in "abc"}
    of = [{"python": "3.11", "params": {"python": "3.11"}}] * 20 + [
        {"python": f"3.{10 + environments}", "params": {"python": f"3.{10 + environments}"}}
    ] * 10
    units = {name: "bytes" for name, _ in values}
    history = read_history(write_results(tmp_path, values, units=units, environments=of), Commits())
    judgement = judge_history(history, Commits())

    def found(base, head):
        compared = compare_commits(history, judgement, commit_name(base), commit_name(head))
        ((verdict, ratio),) = {(str(each.verdict), round(each.ratio, 3)) for each in compared}
        return verdict, ratio

    own, border = (
        (("worse", 1.25), ("with the environment", 1.2)) if environments == 2 else (("worse", 1.5), ("worse", 1.2))
    )
    assert found(5, 15) == ("worse", 1.25)
    assert found(5, 25) == own
    assert found(15, 25) == border
    assert found(25, 5) == ("better", round(1 / own[1], 3))
