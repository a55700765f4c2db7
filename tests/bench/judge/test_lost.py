"""Benchmarks that have no values any more are told with the commit since which."""

import json
import math

import pytest
from asv_files import commit_name, write_results

from kvbench.history.commits import Commit, Commits
from kvbench.history.series import read_history
from kvbench.judge.lost import find_lost

NAN = math.nan
NONE = "absent"  # not even asv's word for it


def lost(folder, new=(7,)):
    known = tuple(Commit(commit_name(place), "somebody", "") for place in range(10))
    commits = Commits(known, frozenset(commit_name(place) for place in new))
    return [(each.state, each.benchmark, each.number, each.previous, each.commit, each.is_new)
            for each in find_lost(read_history(folder, commits), commits)]  # fmt: skip


def written(folder, values):
    """Two benchmarks; of the second some values are not even in the files."""
    present = [1.0 if each == NONE else each for each in values]
    write_results(folder, {("x.track_a", "new"): [1.0] * 10, ("x.track_b", "new"): present})
    for place, value in enumerate(values):
        file = folder / "vm" / f"{commit_name(place)}-env.json"
        content = json.loads(file.read_text())
        if value == NONE:
            del content["results"]["x.track_b"]
        file.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.0] * 7 + [None] * 3, ("fails", 6, 7)),
        ([1.0] * 9 + [None], ("fails", 8, 9)),
        ([1.0] * 7 + [NAN] * 3, ("is skipped", 6, 7)),
        ([1.0] * 7 + [NAN, None, None], ("fails", 6, 7)),
        ([1.0] * 7 + [NONE] * 3, ("is gone", 6, 7)),
        ([1.0] * 6 + [NONE, None, NONE, NONE], ("fails", 5, 7)),
        ([1.0] * 8 + [NONE] * 2, None),  # a run may be partial
        ([1.0] * 4 + [None] * 3 + [1.0] * 3, None),
        ([None] * 10, None),  # it never worked
    ],
)
def test_since_when(tmp_path, values, found):
    told = [(state, previous, commit) for state, _, _, previous, commit, _ in lost(written(tmp_path, values))]
    assert told == ([(found[0], commit_name(found[1]), commit_name(found[2]))] if found else [])


def test_a_benchmark_that_the_suite_no_longer_has(tmp_path):
    written(tmp_path, [1.0] * 7 + [NONE] * 3)
    described = json.loads((tmp_path / "benchmarks.json").read_text())
    del described["x.track_b"]
    (tmp_path / "benchmarks.json").write_text(json.dumps(described))
    assert lost(tmp_path) == [("is gone", "x.track_b", 1, commit_name(6), commit_name(7), True)]


def test_series_of_a_benchmark_are_told_together(tmp_path):
    write_results(tmp_path, {("x.track_a", name): [1.0] * 5 + [None] * 5 for name in ("new", "legacy")})
    assert lost(tmp_path) == [("fails", "x.a", 2, commit_name(4), commit_name(5), False)]
    assert lost(tmp_path, new=[5])[0][-1]
