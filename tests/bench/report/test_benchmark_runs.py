"""Files of pytest-benchmark over time: one chart a benchmark, with commit and environment; a broken one hides none."""

import json
import re

import pytest
from click.testing import CliRunner
from search_files import write_searches
from training_files import backend, results

from kvbench.cli.main import main
from kvbench.report.benchmark_runs import benchmark_run_panels
from kvbench.report.input_files import read_benchmarks
from kvbench.results.decode import LeftOut, write_json

MACHINE = {"python_version": "3.11.7", "cpu": {"brand_raw": "some CPU", "count": 2}, "system": "Linux", "node": "a"}


def run(folder, number, *, machine=None, names=("test_a",), options=None, **fields):
    stats = dict(zip(("min", "q1", "median", "q3", "max"), range(1 + number, 6 + number), strict=True)) | {"rounds": 7}
    of = {"stats": stats, "options": options}
    content = {
        "machine_info": MACHINE | (machine or {}), "datetime": f"2026-01-{30 - number:02}T12:00:00+00:00",
        "commit_info": {"id": f"{number:040x}"},
        "benchmarks": [{"name": name, "fullname": f"t.py::{name}", **of} for name in names],
    }  # fmt: skip
    path = folder / f"{number}.json"
    path.write_text(json.dumps(content | fields))
    return path


def panels(*paths):
    charts, alone = benchmark_run_panels([read_benchmarks(path) for path in paths], "kvbench report")
    return [*charts, *alone]


def test_one_chart_a_benchmark_in_the_order_of_time(tmp_path):
    (first, second) = panels(*(run(tmp_path, number, names=("test_a", "test_b")) for number in range(3)))
    assert [first.title, second.title] == ["t.py::test_a", "t.py::test_b"]
    median, fastest = first.plot.series
    assert list(median.y) == [5e6, 4e6, 3e6]  # the newest file is the first
    assert list(fastest.y) == [3e6, 2e6, 1e6]
    assert first.table.rows[0][:2] == ["2026-01-28", f"{2:040x}"[:8]]
    assert "python 3.11.7, cpu some CPU, num_cpu 2, os Linux" in first.table.rows[0]
    assert "python 3.11.7" in median.hover(0, 5e6, "median")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"machine": {"python_version": "3.12.1"}}, "python 3.11.7 to 3.12.1"),
        ({"machine": {"cpu": {"brand_raw": "another", "count": 2}}}, "cpu some CPU to another"),
        ({"machine": {"release": "6.9"}}, "os Linux to Linux 6.9"),
        ({"options": {"disable_gc": True}}, "with disable_gc True"),
        ({"machine": {"node": "b"}}, ""),  # a name says nothing
    ],
)
def test_a_line_breaks_where_the_environment_changes(tmp_path, change, named):
    (panel,) = panels(run(tmp_path, 2), run(tmp_path, 1), run(tmp_path, 0, **change))
    assert panel.plot.breaks == ([1.5] if named else [])
    assert named in panel.note
    assert [text for _, text in panel.plot.marks] == ([named] if named else [])


def test_what_was_run_once_shows_its_rounds(tmp_path):
    found = panels(run(tmp_path, 0, names=("test_a", "test_once")), run(tmp_path, 1))
    assert [bool(panel.plot.spreads) for panel in found] == [False, True]
    assert [row[0] for row in found[1].table.rows] == ["test_once"]


def test_a_time_that_is_none_comes_first(tmp_path):
    (panel,) = panels(run(tmp_path, 0), run(tmp_path, 1, datetime="yesterday"), run(tmp_path, 2, datetime="2026-01-02"))
    assert [row[0] for row in panel.table.rows] == ["yesterday", "2026-01-02", "2026-01-30"]


@pytest.mark.parametrize("text", ["", "[]", '{"benchmarks": [{}]}'])
def test_a_broken_file_is_named_and_the_rest_is_read(tmp_path, text):
    (broken := tmp_path / "broken.json").write_text(text)
    files = [broken, run(tmp_path, 0), run(tmp_path, 1)]
    options = [part for file in files for part in ("--benchmark", str(file))]
    made = CliRunner().invoke(main, ["report", *options, "--output", str(tmp_path / "html")])
    assert made.exit_code == 0, made.output
    assert f"1 result left out: {broken}: " in made.stderr
    page = re.sub("<script.*?</script>", "", (tmp_path / "html" / "backends.html").read_text(), flags=re.DOTALL)
    assert "t.py::test_a" in page
    for absent in ("legacy", "A replay asks"):
        assert absent not in page
    alone = CliRunner().invoke(main, ["report", *options[:2], "--output", str(tmp_path / "other")])
    assert (alone.exit_code, str(broken) in alone.stderr) == (1, True)


def test_what_is_left_out_is_counted_for_each_kind(tmp_path):
    left_out = LeftOut()
    for number in range(3):
        left_out.add(tmp_path / f"{number}.json", "of an old version", alike=True)
    left_out.add(tmp_path / "broken.json", "not JSON")
    assert left_out.lines == [
        f"3 files left out: {tmp_path / '0.json'} and 2 more: of an old version",
        f"1 result left out: {tmp_path / 'broken.json'}: not JSON",
    ]


def test_any_kind_of_file_that_is_broken_hides_no_other(tmp_path):
    good = {"--training": tmp_path / "training.json", "--search": write_searches(tmp_path / "search.json", "legacy")}
    write_json(good["--training"], results(backend("legacy"), backend("new")))
    (broken := tmp_path / "broken.json").write_text("{")
    options = [part for kind, file in good.items() for each in (broken, file) for part in (kind, str(each))]
    made = CliRunner().invoke(main, ["report", *options, "--output", str(tmp_path / "html")])
    assert made.exit_code == 0, made.output
    assert f"left out: {broken}: not JSON, or cut off" in made.stderr
