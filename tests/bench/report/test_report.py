"""Whole reports: planted changes, hostile names, size and time, what is missing, what is left from before."""

import json
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from asv_files import commit_name, write_results
from git_history import make_history
from made_reports import SEEN
from pages import Page, read_csv
from replay_files import replay, synthetic

from kvbench.report import MOST_HISTORIES, Inputs, ReportError, build_report
from kvbench.results.decode import ResultsError

COMMITS = 24
PLANTED = 15
BACKENDS = ("legacy", "new")
UNITS = {"suite.track_time": "us", "suite.track_bytes_copied": "bytes", "suite.track_bytes_reserved": "bytes"}


def history(seed):
    """Identical commits: times with the noise of processes (MEASURING.md), bytes without any."""
    rng = np.random.default_rng(seed)
    values = {}
    for number in range(20):
        for backend in BACKENDS:
            noise = np.exp(rng.integers(0, 3, COMMITS) * 0.11 + rng.normal(0, 0.02, COMMITS))
            values[f"suite.track_time_{number}", backend] = 100 * noise
    values |= {(name, backend): np.full(COMMITS, 4096.0) for name in list(UNITS)[1:] for backend in BACKENDS}
    return values


def write(folder, values, commits=()):
    listed = {key: each.tolist() for key, each in values.items()}
    return write_results(folder, listed, commits=commits, units=UNITS)


def regressions(pages):
    return Page(next(page for page in pages if page.name == "regressions.html"))


@pytest.mark.parametrize("seed", range(3))
def test_identical_commits_show_no_change(tmp_path, seed):
    pages = build_report(Inputs(write(tmp_path / "results", history(seed)), repository=tmp_path), tmp_path / "html")
    page = regressions(pages)
    assert "change-points-worse" not in page.tables
    assert "change-points-better" not in page.tables
    assert "0 change points for the worse, 0 for the better" in page.text


def test_planted_changes_show_at_their_commits(tmp_path):
    folder, names = make_history(tmp_path / "repository", [f"change {number}" for number in range(COMMITS)])
    values = history(0)
    values["suite.track_time_7", "new"][PLANTED:] *= 2  # it copies twice
    values["suite.track_bytes_copied", "new"][PLANTED:] *= 2
    values["suite.track_bytes_reserved", "new"][PLANTED + 3 :] += 1
    pages = build_report(
        Inputs(write(tmp_path / "results", values, names), repository=folder, since="10"), tmp_path / "html"
    )
    rows = regressions(pages).rows("change-points-worse")
    found = {(row["metric"], row["parameters"]): row for row in rows}
    assert set(found) == {
        (f"suite.{name}", "backend=new") for name in ("time_7", "bytes_copied", "bytes_reserved")
    }  # fmt: skip
    slow, copied, reserved = (
        found[f"suite.{name}", "backend=new"] for name in ("time_7", "bytes_copied", "bytes_reserved")
    )
    for row, place in ((slow, PLANTED), (copied, PLANTED), (reserved, PLANTED + 3)):
        assert row["commit"] == names[place][:8]
        assert row["measured before at"] == names[place - 1][:8]
        assert row["unmeasured between"] == 0
        assert row["author"] == "somebody"
        assert row["subject"] == f"change {place}"
    assert copied["certainty, %"] == reserved["certainty, %"] == 100
    assert 99 <= slow["certainty, %"] < 100
    assert slow["change, %"] == pytest.approx(100, abs=25)
    assert copied["change, %"] == 100
    assert (reserved["before"], reserved["after"]) == (4096, 4097)
    assert regressions(pages).rows("change-points-worse")[0]["metric"] in (
        "suite.bytes_copied",
        "suite.time_7",
    )  # largest first
    front = Page(pages[0])
    assert "new commits" not in front.text  # all were measured
    assert [row["metric"] for row in front.rows("standing")][-1] == "suite.bytes_reserved"


@pytest.mark.parametrize(
    ("measured", "shown"),
    [
        ([0, 2], "4 of 4 new commits (in the last 4 commits): the last measured is {2}, 6 commits ago"),
        ([0, 6], "3 of 4 new commits (in the last 4 commits): the last measured is {6}, 2 commits ago"),
        (
            [],
            "4 of 4 new commits (in the last 4 commits): this repository has no measured commit, --repository gives "
            "another",
        ),
    ],
)
def test_how_many_of_the_new_commits_were_measured(tmp_path, measured, shown):
    folder, names = make_history(tmp_path / "repository", [f"change {number}" for number in range(9)])
    commits = [names[place] for place in measured] or [commit_name(0), commit_name(1)]
    values = {("suite.track_bytes_reserved", "new"): np.ones(2)}
    results = write(tmp_path / "results", values, commits)
    page = Page(build_report(Inputs(results, repository=folder, since="4"), tmp_path / "html")[0])
    assert shown.format(*(name[:8] for name in names)) in page.text


def test_commits_nobody_measured_stand_beside_the_change(tmp_path):
    folder, names = make_history(tmp_path / "repository", [f"change {number}" for number in range(9)])
    values = {("suite.track_bytes_reserved", "new"): np.array([1.0, 2.0])}
    results = write(tmp_path / "results", values, [names[1], names[7]])
    (row,) = regressions(build_report(Inputs(results, repository=folder), tmp_path / "html")).rows(
        "change-points-worse"
    )
    assert row["unmeasured between"] == 5


def test_histories_with_change_points_come_first_the_worst_of_all_before_them(tmp_path):
    values = {(f"suite.track_bytes_reserved_{number}", "new"): np.ones(4) for number in range(6)}
    values["suite.track_bytes_reserved_3", "new"] = np.array([1.0, 1.0, 2.0, 2.0])
    values["suite.track_bytes_reserved_5", "new"] = np.array([1.0, 1.0, 9.0, 9.0])
    results = write_results(
        tmp_path / "results",
        {key: each.tolist() for key, each in values.items()},
        units=dict.fromkeys([name for name, _ in values], "bytes"),
    )
    pages = build_report(Inputs(results, repository=tmp_path, histories=3), tmp_path / "html")
    (histories,) = [Page(each) for each in pages if each.name == "histories.html"]
    found = [int(name.split("reserved-")[1].split("-")[0]) for name in histories.tables]
    assert found == [5, 3, 0]


def test_a_series_that_changes_is_drawn_among_more_than_there_are_colours(tmp_path):
    values = {
        ("suite.track_bytes_reserved", f"new:{letter}"): [1 + place / 10] * 3
        for place, letter in enumerate("abcdefghij")
    }
    values["suite.track_bytes_reserved", "new:j"] = [1.0, 1.0, 2.0]
    results = write_results(tmp_path / "results", values, units=UNITS)
    pages = build_report(Inputs(results, repository=tmp_path), tmp_path / "html")
    (histories,) = [Page(each) for each in pages if each.name == "histories.html"]
    assert "8 of 10 series are drawn, those with change points first" in histories.text
    drawn = [letter for letter in "abcdefghij" if f"</i>new:{letter}" in histories.source]
    assert drawn == list("abcdefgj")
    assert histories.source.index("</i>new:j") < histories.source.index("</i>new:a")
    assert f">{commit_name(2)[:8]}</text>" in histories.source


def test_of_which_commit_everything_is(tmp_path):
    folder, names = make_history(tmp_path / "repository", ["first", "second", "third"])
    trace = synthetic(tmp_path / "trace.parquet")
    files = []
    for name, commit in {
        "old": names[0],
        "changed": f"{names[2]}-dirty",
        "lost": commit_name(3),
        "unknown": None,
    }.items():
        files.append(replay(trace, tmp_path / f"{name}.json", "--repetitions", "0"))
        content = json.loads(files[-1].read_text())
        content["machines"]["cpu"]["kvcache_commit"] = commit
        files[-1].write_text(json.dumps(content))
    benchmark = tmp_path / "benchmark.json"
    commit = {"id": names[1], "dirty": True}
    benchmark.write_text(json.dumps({"machine_info": {}, "datetime": "now", "commit_info": commit, "benchmarks": []}))
    results = write(tmp_path / "results", {("suite.track_bytes_reserved", "new"): np.ones(2)}, names[:2])
    page = Page(build_report(Inputs(results, files, [benchmark], repository=folder), tmp_path / "html")[0])
    first, second, third = (name[:8] for name in names)
    assert {row["source"]: row["commit"] for row in page.rows("machines")} == {
        "old.json": f"{first}, 2 commits ago",
        "changed.json": f"{third}, newest, with changes",
        "lost.json": f"{commit_name(3)[:8]}, not in this repository",
        "unknown.json": "",
        "benchmark.json": f"{second}, 1 commit ago, with changes",
        "asv, vm": f"up to {second}, 1 commit ago",
    }
    assert f"old.json, commit {first}" in page.text


def test_what_is_left_alone_changes_because_of_the_machine(tmp_path):
    values = {(f"suite.track_time_{number}", "legacy"): np.ones(12) for number in range(5)}
    values |= {(f"suite.track_time_{number}", "new"): np.ones(12) for number in range(5)}
    values["suite.track_time_0", "legacy"] = np.repeat([1.0, 3.0], 6)
    pages = build_report(Inputs(write(tmp_path / "results", values), repository=tmp_path), tmp_path / "html")
    page = regressions(pages)
    assert "0 change points for the worse, 0 for the better" in page.text
    (row,) = page.rows("change-points-machine")
    assert (row["verdict"], row["parameters"]) == ("machine", "backend=legacy")
    assert "the machine or the harness changed" in page.text


def test_a_change_that_legacy_shows_too_is_the_machines(tmp_path):
    values = {(f"suite.track_time_{number}", name): np.ones(12) for number in range(5) for name in BACKENDS}
    for name in BACKENDS:
        values["suite.track_time_0", name] = np.repeat([1.0, 3.0], 6)  # a kind of work at which the machine was slow
    values["suite.track_time_1", "new"] = np.repeat([1.0, 3.0], 6)
    pages = build_report(Inputs(write(tmp_path / "results", values), repository=tmp_path), tmp_path / "html")
    assert [row["metric"] for row in regressions(pages).rows("change-points-worse")] == ["suite.time_1"]


def test_a_suite_that_grew_while_the_machine_was_slow_shows_no_change(tmp_path):
    pace = np.where(np.arange(12) < 8, 1, 1.6)
    values = {(f"suite.track_time_{number}", name): 100 * pace for number in range(4) for name in BACKENDS}
    young = np.where(np.arange(12) < 8, np.nan, 160.0)
    values |= {(f"suite.track_time_young_{number}", name): young for number in range(12) for name in BACKENDS}
    pages = build_report(Inputs(write(tmp_path / "results", values), repository=tmp_path), tmp_path / "html")
    assert "0 change points for the worse, 0 for the better" in regressions(pages).text


def test_what_came_last_is_not_blamed_on_others_and_said_to_be_open(tmp_path):
    folder, names = make_history(tmp_path / "repository", [f"change {number}" for number in range(12)])
    values = {("suite.track_time", "new"): np.where(np.arange(12) < 10, 100.0, 200.0)}
    pages = build_report(
        Inputs(write(tmp_path / "results", values, names), repository=folder, since="4"), tmp_path / "html"
    )
    assert "times not decided" in Page(pages[0]).text
    assert "change-points-worse" not in regressions(pages).tables
    short = {("suite.track_time", "new"): np.array([1.0, 2.0])}
    pages = build_report(Inputs(write(tmp_path / "short", short), repository=folder), tmp_path / "html")
    assert "1 of the 1 measured series are too short" in regressions(pages).text


def test_change_points_by_commit(tmp_path):
    folder, names = make_history(tmp_path / "repository", [f"change {number}" for number in range(6)])
    values = {(f"suite.track_bytes_{number}", "new"): np.ones(6) for number in range(4)}
    for number, (place, factor) in enumerate([(2, 2.0), (2, 5.0), (2, 0.5), (4, 0.1)]):
        values[f"suite.track_bytes_{number}", "new"][place:] *= factor
    listed = {key: each.tolist() for key, each in values.items()}
    units = {name: "bytes" for name, _ in values}
    results = write_results(tmp_path / "results", listed, commits=names, units=units)
    rows = regressions(build_report(Inputs(results, repository=folder), tmp_path / "html")).rows(
        "change-points-by-commit"
    )
    assert [(row["commit"], row["subject"], row["for the worse"], row["for the better"]) for row in rows] == [
        (names[4][:8], "change 4", 0, 1), (names[2][:8], "change 2", 2, 1),
    ]  # fmt: skip
    assert [(row["the worst, or the best, %"], row["of metric"]) for row in rows] == [
        (-90, "suite.bytes_3"),
        (400, "suite.bytes_1"),
    ]


def test_growth_is_that_of_the_last_commit_that_measured_it(tmp_path):
    cells = [f"axis{size}" for size in (1, 2, 4)]
    whole = {
        ("operations.Growth.track_time", cell): [float(place + 1), float(place + 1)] for place, cell in enumerate(cells)
    }
    whole["operations.Growth.track_time", "axis1"][1] = 50.0
    for cell in cells[1:]:
        whole["operations.Growth.track_time", cell][1] = float("nan")
    results = write_results(tmp_path / "results", whole, param="point")
    for path in results.rglob("*.json"):
        path.write_text(path.read_text().replace("axis", "slots="))
    build_report(Inputs(results, repository=tmp_path), tmp_path / "html")
    (file,) = (tmp_path / "html" / "data").glob("growth-slots-*.csv")
    rows = read_csv(file)
    assert [list(row.values()) for row in rows] == [["1", "1.0"], ["2", "2.0"], ["4", "3.0"]]
    assert f"commit {commit_name(0)[:8]}" in (tmp_path / "html" / "backends.html").read_text()


def test_files_have_different_names_and_read_once(tmp_path):
    trace = synthetic(tmp_path / "trace.parquet")
    files = []
    for folder in "ab":
        (tmp_path / folder).mkdir()
        files.append(replay(trace, tmp_path / folder / "replay.json", "--repetitions", "0"))
    twice = [*files, tmp_path / "a" / ".." / "a" / "replay.json"]
    page = Page(build_report(Inputs(replays=twice, repository=tmp_path), tmp_path / "html")[0])
    assert [row["source"] for row in page.rows("machines")] == [str(file) for file in files]
    assert {row["from"].partition(",")[0] for row in page.rows("verdicts")} == {str(file) for file in files}


def test_pages_begin_with_links_to_their_parts(tmp_path):
    trace = synthetic(tmp_path / "trace.parquet")
    file = replay(trace, tmp_path / "replay.json", "--repetitions", "1")
    build_report(Inputs(replays=[file], repository=tmp_path), tmp_path / "html")
    page = Page(tmp_path / "html" / "backends.html")
    parts = [link for link in page.links if "#part-" in link]
    assert len(parts) == 3
    assert all(f'id="{link.partition("#")[2]}"' in page.source for link in parts)


def test_results_without_a_value_are_said_to_be_that(tmp_path):
    results = write_results(tmp_path / "results", {("suite.track_time", "new"): [1.0]})
    for path in (results / "vm").glob("*-env.json"):
        path.unlink()
    page = Page(build_report(Inputs(results, repository=tmp_path), tmp_path / "html")[0])
    assert any("no value of the benchmarks" in row["why"] for row in page.rows("not-measured"))


def test_a_metric_of_unknown_direction_is_neither_better_nor_worse(tmp_path):
    values = {("suite.track_score", "new"): [50.0] * 8 + [100.0] * 8}
    results = write_results(tmp_path / "results", values, units={"suite.track_score": "points"})
    pages = build_report(Inputs(results, repository=tmp_path), tmp_path / "html")
    page = regressions(pages)
    assert "0 change points for the worse, 0 for the better" in page.text
    (row,) = page.rows("change-points-other")
    assert ("verdict" in row, row["metric"], row["change, %"]) == (False, "suite.score", pytest.approx(100))
    (histories,) = [Page(each) for each in pages if each.name == "histories.html"]
    assert "whether lower is better is not known" in histories.text
    assert "legacy" not in Page(pages[0]).text.partition("What was not measured")[0]


def processor_seconds(inputs, folder):
    """What making pages takes of the processor (others may be busy too), and the pages."""
    worked = time.process_time()
    pages = build_report(inputs, folder)
    return time.process_time() - worked, pages


# A part of the benchmarks shows as much: each has figures and rows of its own.
BENCHMARKS = [30, pytest.param(200, marks=pytest.mark.full)]
LARGEST = {30: 2e6, 200: 3e6}  # bytes of a page


@pytest.mark.slow
@pytest.mark.parametrize("benchmarks", BENCHMARKS)
def test_many_commits_and_benchmarks(tmp_path, benchmarks):
    """500 commits: four times the commits take less than eight times as long, and no page is large."""
    rng = np.random.default_rng(0)
    names = [(f"suite.track_time_{number}", "new") for number in range(benchmarks)]
    values = {name: 100 * np.exp(rng.normal(0, 0.03, 500)) for name in names}
    for number, name in list(enumerate(names))[::10]:
        values[name][20 + number :] *= 1.5
    fewer = write(tmp_path / "fewer", {name: each[:125] for name, each in values.items()})
    quarter, _ = processor_seconds(Inputs(fewer, repository=tmp_path), tmp_path / "quarter")
    results = write(tmp_path / "results", values)
    seconds, pages = processor_seconds(Inputs(results, repository=tmp_path), tmp_path / "html")
    largest = max(page.stat().st_size for page in pages)
    print(f"{seconds:.1f} s of the processor; a quarter of the commits {quarter:.1f} s; largest {largest / 1e6:.2f} MB")
    assert len(regressions(pages).rows("change-points-worse")) == benchmarks / 10
    assert sum(len([tag for tag in Page(page).tags if tag == "svg"]) for page in pages) == min(
        benchmarks, MOST_HISTORIES
    )
    assert seconds < 8 * quarter
    assert largest < LARGEST[benchmarks]


@pytest.mark.slow
@pytest.mark.parametrize("benchmarks", BENCHMARKS)
def test_everything_changes_at_every_commit(tmp_path, benchmarks):
    """Series that change at all of 500 commits take less than eight times as long as at 125."""
    units = {f"suite.track_bytes_{number}": "bytes" for number in range(benchmarks)}

    def made(commits, name):
        values = (1 + np.arange(commits) % 7).astype(float).tolist()
        results = write_results(tmp_path / f"{name}-results", {(each, "new"): values for each in units}, units=units)
        return processor_seconds(Inputs(results, repository=tmp_path), tmp_path / name)

    quarter, _ = made(125, "quarter")
    seconds, pages = made(500, "html")
    largest = max(page.stat().st_size for page in pages)
    print(f"{seconds:.1f} s of the processor; a quarter of the commits {quarter:.1f} s; largest {largest / 1e6:.2f} MB")
    data = tmp_path / "html" / "data"
    changes = sum(len(read_csv(data / f"change-points-{word}.csv")) for word in ("worse", "better"))
    assert changes == benchmarks * 499
    assert seconds < 8 * quarter
    assert largest < LARGEST[benchmarks]


def test_hostile_names_are_shown_as_text(hostile):
    ours = None
    for path in hostile:
        page = Page(path)
        ours = ours or page.scripts
        assert page.scripts == ours  # the report's own, and no other
        assert len(ours) == 1
        assert page.handlers == []
        assert {"img", "iframe", "object", "embed", "base", "form"}.isdisjoint(page.tags)
        assert SEEN in page.text
        assert "\x00" not in page.source
        assert "\x1b" not in page.source
        assert "{{7*7}}" in page.text  # nor is it a template
        assert "49" not in page.text.split("{{")[0][-3:]
        for start in [place for place in range(len(page.source)) if page.source.startswith("<svg", place)]:
            svg = page.source[start : page.source.index("</svg>", start) + len("</svg>")]
            ElementTree.fromstring(svg)  # whole, whatever was written in it


def test_hostile_names_are_no_formulas_and_no_paths(hostile):
    folder = hostile[0].parent
    for path in folder.rglob("*"):
        assert path.is_dir() or path.name.replace("-", "").replace(".", "").isalnum()
    text = "".join(Page(path).text for path in hostile)
    assert "$x^2$" in text


def test_profiles_are_linked_by_address(hostile):
    (link,) = [each for each in Page(hostile[0]).links if each.startswith("../profile/")]
    assert link == "../profile/%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E%23%3F.json"


def test_nothing_is_loaded_and_no_other_script_may_run(hostile):
    for path in hostile:
        page = Page(path)
        assert "Content-Security-Policy" in page.source
        assert "default-src 'none'" in page.source
        assert not [link for link in page.links if link.startswith(("http", "//", "file"))]
        assert "@import" not in page.source


def test_single_operations_have_a_panel_each_whose_labels_tell_them_apart(tmp_path):
    stats = {"min": 1, "q1": 2, "median": 3, "q3": 4, "max": 5, "rounds": 6}
    places = [f"new:{kind}-visual-match" for kind in ("paged-resident", "paged", "slab-resident", "slab")]
    names = [f"test_operation[{place}-{kind}]" for place in places for kind in ("store", "clear_all")]
    content = {
        "machine_info": {}, "datetime": "now",
        "benchmarks": [{"name": name, "stats": stats} for name in [*names, "test_replay[a-b]"]],
    }  # fmt: skip
    (tmp_path / "b.json").write_text(json.dumps(content))
    build_report(Inputs(benchmarks=[tmp_path / "b.json"], repository=tmp_path), tmp_path / "html")
    source = (tmp_path / "html" / "backends.html").read_text()
    for heading in ("Store: b.json", "Clear all: b.json", "Single operations: b.json"):
        assert heading in source
    for place in places:
        assert source.count(f">{place}</text>") == 2
    assert ">replay[a-b]</text>" in source


def test_what_was_not_measured_is_said(tmp_path):
    trace = synthetic(tmp_path / "trace.parquet")
    file = replay(trace, tmp_path / "replay.json", "--repetitions", "0", "--device", "cpu", "--device", "cuda")
    page = Page(build_report(Inputs(replays=[file], repository=tmp_path), tmp_path / "html")[0])
    rows = {row["what"]: row["why"] for row in page.rows("not-measured")}
    assert rows["replays on cuda"] == "skipped: no CUDA device"
    assert rows["new against legacy, every geometry, cuda"] == "skipped: no CUDA device"
    assert "not given" in rows["asv's history"]
    assert any("pong" in what and "cpu" in what for what in rows)
    assert "not timed" in page.text


def test_what_asv_skipped_and_what_failed_is_said(tmp_path):
    values = {("suite.track_time", "new"): [1.0, None], ("suite.track_time", "legacy"): [float("nan"), float("nan")]}
    page = Page(build_report(Inputs(write_results(tmp_path / "r", values), repository=tmp_path), tmp_path / "html")[0])
    rows = {row["what"]: row["why"] for row in page.rows("not-measured")}
    assert rows["suite.time, backend=new on vm"] == f"failed at {commit_name(1)[:8]}"
    assert rows["2 values on vm"] == "no such backend in that commit: legacy (2 of 2 commits)"


def test_pages_of_an_earlier_report_do_not_stay_and_others_do(tmp_path):
    output = tmp_path / "html"
    many = write(tmp_path / "many", {(f"suite.track_time_{number}", "new"): np.arange(1.0, 4.0) for number in range(3)})
    build_report(Inputs(many, repository=tmp_path), output)
    (output / "mine.html").write_text("my own")
    (output / "files.txt").write_text((output / "files.txt").read_text() + "../many/benchmarks.json\n")
    before = {path for path in output.rglob("*") if path.is_file()}
    one = write(tmp_path / "one", {("suite.track_time_0", "new"): np.arange(1.0, 4.0)})
    build_report(Inputs(one, repository=tmp_path), output)
    after = {path for path in output.rglob("*") if path.is_file()}
    assert {path.name.rsplit("-", 1)[0] for path in before - after} == {
        "history-vm-suite-track-time-1", "history-vm-suite-track-time-2",
    }  # fmt: skip
    assert (output / "mine.html").read_text() == "my own"
    assert (tmp_path / "many" / "benchmarks.json").exists()


def test_the_data_of_a_thousand_change_points_is_whole(tmp_path):
    values = {("suite.track_bytes_reserved", "new"): np.arange(1.0, 1203.0)}
    pages = build_report(Inputs(write(tmp_path / "results", values), repository=tmp_path), tmp_path / "html")
    assert len(regressions(pages).rows("change-points-worse")) == 1000
    assert len(read_csv(tmp_path / "html" / "data" / "change-points-worse.csv")) == 1201


def test_every_number_of_the_data_can_be_read(tmp_path):
    values = {("suite.track_bytes_reserved", "new"): np.array([500.0, 1000.5]), ("suite.track_time", "new"): np.ones(2)}
    build_report(Inputs(write(tmp_path / "results", values), repository=tmp_path), tmp_path / "html")
    texts = {"verdict", "metric", "parameters", "machine", "unit", "commit", "measured before at", "author", "subject",
             "date", "what", "why", "according to", "of metric", "source", "device", "machine and versions", "when",
             "command"}  # fmt: skip
    read = {path.name: read_csv(path) for path in (tmp_path / "html" / "data").glob("*.csv")}
    numbers = [row[name] for rows in read.values() for row in rows for name in row if name not in texts and row[name]]
    assert len(numbers) > 5
    assert all(isinstance(float(each), float) for each in numbers)
    (point,) = read["change-points-worse.csv"]
    assert (point["before"], point["after"]) == ("500.0", "1000.5")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("nothing", ReportError, "no folder of profiles"),
        ("results", ResultsError, "give what 'kvbench profile' wrote"),
    ],
)
def test_no_folder_of_profiles(tmp_path, name, error, words):
    results = write(tmp_path / "results", {("suite.track_time", "new"): np.ones(2)})
    with pytest.raises(error, match=words):
        build_report(Inputs(results, profile=tmp_path / name, repository=tmp_path), tmp_path / "html")
    assert not (tmp_path / "html").exists()
