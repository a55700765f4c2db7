"""Pages of a history whose environment changes: the line breaks, the change is named, and no commit is blamed."""

import csv
import re

import pytest
from asv_files import commit_name, write_results
from git_history import make_history

from kvbench.history.commits import Commits
from kvbench.history.series import read_history
from kvbench.report import Inputs, build_report
from kvbench.report.history_figures import history_panels

COUNT, TIME = "x.track_operations", "x.time_it"
OLD = {"python": "3.11", "params": {"python": "3.11"}}
NEW = {"python": "3.12", "params": {"python": "3.12"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("environments")
    values = {(COUNT, "new"): [4.0] * 4 + [5.0] * 4 + [6.0] * 4, (TIME, "new"): [4.0] * 8 + [7.0] * 4}
    of = [OLD] * 8 + [NEW] * 4
    results = write_results(folder / "results", values, units={COUNT: "operations", TIME: "seconds"}, environments=of)
    alarms = []
    inputs = Inputs(results, repository=folder, histories=2)
    build_report(inputs, folder / "html", alarm=lambda found, described: alarms.extend(found))
    return folder / "html", alarms


def rows(folder, name):
    (file,) = folder.rglob(f"{name}*.csv")
    return list(csv.DictReader(file.open()))


def test_steps_of_commits_and_of_the_environment_are_told_apart(made):
    folder, _ = made
    assert [row["commit"] for row in rows(folder, "change-points-worse")] == [commit_name(4)[:8]]
    with_it = rows(folder, "change-points-with-the-environment")
    assert {row["subject"] for row in with_it} == {"python 3.11 to 3.12"}
    assert len(with_it) == 2
    assert [row["commit"] for row in rows(folder, "change-points-by-commit")] == [commit_name(4)[:8]]


def test_each_change_of_the_environment_is_listed(made):
    (row,) = rows(made[0], "environments")
    assert (row["what changed"], row["first commit"]) == ("python 3.11 to 3.12", commit_name(8)[:8])
    assert (row["series that rose"], row["that fell"]) == ("2", "0")


def test_a_machine_whose_environment_never_changed_stands_beside_one_whose_did(tmp_path):
    values = {(COUNT, "new"): [4.0] * 4}
    write_results(tmp_path / "results", values, environments=[OLD] * 2 + [NEW] * 2)
    results = write_results(tmp_path / "results", values, machine="other", environments=[OLD] * 4)
    build_report(Inputs(results, repository=tmp_path, histories=0), tmp_path / "html")
    assert [row["machine"] for row in rows(tmp_path / "html", "environments")] == ["vm"]


def test_commits_that_the_repository_does_not_know_are_newest_first_as_well(tmp_path):
    values = {(COUNT, "new"): [9.0] + [1.0] * 2 + [2.0] * 3 + [3.0] * 3}
    names = [f"{place}" * 40 for place in range(9)]
    results = write_results(tmp_path / "results", values, units={COUNT: "operations"}, commits=names)
    build_report(Inputs(results, repository=tmp_path, histories=0), tmp_path / "html")
    found = [row["commit"] for row in rows(tmp_path / "html", "change-points-by-commit")]
    assert found == [names[place][:8] for place in (6, 3, 1)]


def test_columns_that_no_row_fills_are_in_the_data_alone(made):
    page = (made[0] / "regressions.html").read_text()
    table = page[page.index('id="change-points-by-commit"') :].partition("</table>")[0]
    assert ">for the worse<" in table
    assert ">author<" not in table
    assert ">subject<" not in table
    assert {row["author"] for row in rows(made[0], "change-points-by-commit")} == {""}


def test_lines_break_there_and_the_figure_says_why(made):
    text = (made[0] / "histories.html").read_text()
    assert text.count("Lines break where the environment changed: python 3.11 to 3.12 at 00000000.") == 2
    svgs = re.findall("<svg.*?</svg>", text, re.DOTALL)
    assert all(">python 3.11 to 3.12<" in svg for svg in svgs)


def test_a_gap_in_each_line(made):
    history = read_history(made[0].parent / "results", Commits())
    for panel in history_panels(history, [], 2):
        assert panel.plot.breaks == [7.5]


def test_nobody_is_alarmed(made):
    assert made[1] == []


def test_the_table_of_machines_has_a_row_for_each_environment_and_claims_no_command(made):
    found = [(row["commit"], row["machine and versions"], row["command"]) for row in rows(made[0], "machines")]
    assert found == [
        ("from 00000000 up to 00000000", "python 3.11, cpu some CPU", ""),
        ("from 00000000 up to 00000000", "python 3.12, cpu some CPU", ""),
    ]


def test_nothing_is_said_of_a_suite_that_the_files_do_not_say(made):
    pages = "".join(page.read_text() for page in made[0].glob("*.html"))
    for said in ("tox -e asv", "that the suite measures", "over legacy", "the machine's pace"):
        assert said not in pages
    assert "Machines</h2>" not in (made[0] / "regressions.html").read_text()


def test_that_nothing_new_was_measured_is_no_good_news(tmp_path):
    repository, names = make_history(tmp_path / "repository", [f"subject {number}" for number in range(12)])
    results = write_results(tmp_path / "results", {(COUNT, "new"): [1.0, 1.0]}, commits=names[:2])
    told = []
    inputs = Inputs(results, repository=repository, histories=0)
    build_report(inputs, tmp_path / "html", alarm=lambda found, described: told.append(described))
    assert told == ["in the last 10 commits, of which none was measured"]
