"""``kvbench report``: its options, and what it says to the person at the keyboard."""

import subprocess
import sys

import pytest
from asv_files import write_results
from click.testing import CliRunner
from git_history import make_history

from kvbench.cli import main
from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvcache.geometry import GEOMETRIES


def invoke(*arguments):
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "trace.parquet"
    list(write_synthetic_trace(path, SyntheticSearch(GEOMETRIES["cartpole"], 1, 0)))
    return path


def test_a_report_of_a_trace(trace, tmp_path):
    result = invoke("--trace", trace, "--output", tmp_path / "html", "--command", "make it so")
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "html" / "index.html") in result.stdout
    assert "make it so" in (tmp_path / "html" / "index.html").read_text()
    assert list((tmp_path / "html").glob("trace-*.html"))


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--results", "{}/cut.json"], "is a file"),
        (["--results", "{}/nothing"], "no such file: give what 'asv run'"),
        (["--replay", "{}/nothing.json"], "no such file"),
        (["--replay", "{}/cut.json"], "not JSON, or cut off"),
        (["--benchmark", "{}/cut.json"], "not JSON, or cut off"),
        (["--trace", "{}/nothing.parquet"], "no such file"),
        (["--trace", "{}/cut.json"], "not a Parquet file"),
        (["--trace", "{trace}", "--profile", "{}/cut.json"], "is a file"),
        (["--trace", "{trace}", "--profile", "{}/none"], "no folder of profiles"),
        (["--trace", "{trace}", "--since", "0"], "wants a number from 1 on"),
        (["--trace", "{trace}", "--since", "no-such-tag"], "no git repository"),
        (["--trace", "{trace}", "--output", "{}/cut.json"], "is a file"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(trace, tmp_path, arguments, fault):
    (tmp_path / "cut.json").write_text('{"format": "kvcache-rep')
    given = [each.replace("{trace}", str(trace)).replace("{}", str(tmp_path)) for each in arguments]
    if "--output" not in given:
        given += ["--output", tmp_path / "html"]
    result = invoke(*given, "--repository", tmp_path)
    assert result.exit_code == (2 if fault == "is a file" else 1)
    assert fault in result.stderr
    assert "Traceback" not in result.output
    assert not isinstance(result.exception, ValueError)
    assert not (tmp_path / "html").exists()


def test_what_an_earlier_report_left_stays(tmp_path):
    (tmp_path / "html").mkdir()
    assert invoke("--replay", tmp_path / "none.json", "--output", tmp_path / "html" / "a" / "b").exit_code == 1
    assert list(tmp_path.rglob("*")) == [tmp_path / "html"]


@pytest.mark.parametrize("name", ["index.html", "backends-2.html", "trace-mine.html", "data"])
def test_what_somebody_else_put_there_stays(trace, tmp_path, name):
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / name).write_text("MINE")
    result = invoke("--trace", trace, "--repository", tmp_path, "--output", tmp_path / "html")
    assert result.exit_code == 1
    assert str(tmp_path / "html" / name) in result.stderr
    assert [path.name for path in (tmp_path / "html").iterdir()] == [name]
    assert (tmp_path / "html" / name).read_text() == "MINE"


def test_a_report_replaces_its_own_pages_also_where_its_listing_was_spoiled(trace, tmp_path):
    arguments = ("--trace", trace, "--repository", tmp_path, "--output", tmp_path / "html")
    assert invoke(*arguments).exit_code == 0
    listing = tmp_path / "html" / "files.txt"
    listing.write_bytes(listing.read_bytes() + b"\xff\xfe\n")
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output


def test_a_profile_alone_is_something_to_report(trace, tmp_path):
    profile = ["profile", str(trace), "--backend", "new", "--searches", "1", "--output", str(tmp_path / "profile")]
    assert CliRunner().invoke(main, profile).exit_code == 0
    result = invoke("--profile", tmp_path / "profile", "--repository", tmp_path, "--output", tmp_path / "html")
    assert result.exit_code == 0, result.output
    assert "../profile/" in (tmp_path / "html" / "index.html").read_text()


def test_nothing_to_report(tmp_path):
    result = invoke("--output", tmp_path / "html")
    assert result.exit_code == 2
    assert (
        "give --results, --replay, --benchmark, --trace, --profile, --training, --search, --sweep, --gpu or --gate"
        in result.stderr
    )


def test_the_command_line_starts_without_the_reports_libraries():
    """They are an extra: other commands do without them."""
    code = (
        "import kvbench.cli, sys; print([name for name in ('matplotlib', 'jinja2', 'ruptures') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


STEP = [1.0] * 4 + [3.0] * 4


def history_of(folder, values, unit="%"):
    """Eight commits, of which the last five are new, and results of them."""
    repository, names = make_history(folder / "repository", [f"subject {place}" for place in range(8)], tag=2)
    write_results(folder / "results", {("x.track_it", "new"): values}, commits=names, units={"x.track_it": unit})
    return ["--results", folder / "results", "--repository", repository, "--output", folder / "html"], names


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (STEP, 3),
        ([1.0] * 8, 0),
        ([3.0] * 4 + [1.0] * 4, 0),  # for the better
        ([1.0] * 2 + [3.0] * 6, 0),  # as old as the tag
        ([1.0] * 4 + [3.0] * 2 + [1.0] * 2, 0),  # mended since
        ([1.0] * 4 + [None] * 4, 3),  # fails
        ([1.0] * 4 + [float("nan")] * 4, 3),  # skipped
    ],
)
def test_a_new_regression_fails_on_request(tmp_path, values, code):
    arguments, _ = history_of(tmp_path, values)
    assert invoke(*arguments).exit_code == 0
    result = invoke(*arguments, "--fail-on-new")
    assert result.exit_code == code, result.output
    assert (tmp_path / "html" / "regressions.html").exists()


def test_it_says_which_commit_which_metric_and_how_much(tmp_path):
    arguments, names = history_of(tmp_path, STEP)
    result = invoke(*arguments, "--fail-on-new", "--summary", tmp_path / "summary.md")
    text = (tmp_path / "summary.md").read_text()
    for each in (names[4][:8], "x.it", "backend=new", "+200.0 %", "1 to 3 %", "subject 4", "1 new regression since v1"):
        assert each in result.stdout
        assert each in text
    assert text.startswith("## 1 new regression")
    assert "| commit | metric |" in text


def test_without_a_history_nothing_can_be_new(trace, tmp_path):
    result = invoke("--trace", trace, "--output", tmp_path / "html", "--fail-on-new")
    assert result.exit_code == 2
    assert "give --results as well" in result.stderr


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--head", "HEAD"], "was not measured: the last measured commits are"),
        (["--base", "no-such-tag"], "it has no commit 'no-such-tag': the last measured commits are"),
        (["--base", "{first}", "--head", "{first}"], "are one commit"),
        (["--head", "{first}"], "has no measured commit before it"),
        (["--base", "{last}"], "has no measured commit after it"),
        (["--gate", "{}/none.json"], "no such file: give what 'kvbench gate --json' wrote"),
    ],
)
def test_two_commits_that_cannot_be_compared_are_said_to_be_that(tmp_path, options, fault):
    repository, names = make_history(tmp_path / "repository", [f"subject {place}" for place in range(4)])
    write_results(
        tmp_path / "results", {("x.track_it", "new"): [1.0, 2.0]}, commits=names[:2], units={"x.track_it": "%"}
    )
    places = {"{first}": names[0][:8], "{last}": names[1], "{}": str(tmp_path)}
    for each, value in places.items():
        options = [option.replace(each, value) for option in options]
    history = ["--results", tmp_path / "results", "--repository", repository, "--output", tmp_path / "html"]
    result = invoke(*history, *options)
    assert result.exit_code == 1
    assert fault in result.stderr
    assert len([line for line in result.stderr.splitlines() if not line.endswith("...")]) == 1
    assert not (tmp_path / "html").exists()


def test_two_commits_are_of_a_history(trace, tmp_path):
    result = invoke("--trace", trace, "--output", tmp_path / "html", "--base", "HEAD~1")
    assert result.exit_code == 2
    assert "give --results as well" in result.stderr
