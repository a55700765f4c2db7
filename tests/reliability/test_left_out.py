"""One row that does not fit hides nothing: it is left out, counted and named, and the rest is read."""

import json
import math

import pytest
from asv_files import commit_name, write_results
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.gate.thresholds import Thresholds, ThresholdsError
from kvbench.history.commits import Commits, HistoryError, read_commits
from kvbench.history.series import read_history
from kvbench.parse import DEEPEST, parse_json, parse_toml
from kvbench.results.asv import load_durations, load_results, read_asv
from kvbench.results.decode import LeftOut, ResultsError
from kvbench.trace.schema import TraceHeader

GOOD = {("x.track_a", "new"): [1.0, 2.0, 3.0], ("x.track_b", "new"): [4.0, 5.0, 6.0]}
DEEP = "[" * 1000 + "]" * 1000
HUGE = 10**400
WRONG = [
    None,
    True,
    7,
    -1,
    1.5,
    "text",
    [],
    ["a"],
    {},
    {"a": 1},
    [[]],
    HUGE,
    math.nan,
    math.inf,
    "\ud800",
    "x" * 10_000,
]


def change(folder, edit, place=1):
    """Edit one commit's file."""
    path = folder / "vm" / f"{commit_name(place)}-env.json"
    content = json.loads(path.read_text())
    content = edit(content) or content
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def text_with(**replaced):
    """Of a file, with other text for marked places."""

    def edit(content):
        text = json.dumps(content)
        for before, after in replaced.items():
            text = text.replace(before, after)
        return text

    return edit


def result(place, value, name="x.track_a"):
    def edit(content):
        content["results"][name][place] = value

    return edit


ROWS = {
    "other parameters": result(1, [["'new'"], ["'more'"]]),
    "fewer values": result(0, []),
    "more values": result(0, [1.0, 2.0]),
    "a list as parameter": result(1, [[["a"]]]),
    "a text as value": result(0, ["fast"]),
    "a huge integer": result(0, [HUGE]),
    "an infinite value": result(0, [math.inf]),
    "a boolean": result(0, [True]),
    "parameters as a text": result(1, "new"),
    "no list": lambda content: content["results"].update({"x.track_a": "new"}),
    "more sets than memory": lambda content: content["results"].update(
        {"x.track_a": [None, [["a"] * 10_000] * 9, "1", 0, 0.1]}
    ),
}


@pytest.mark.parametrize("edit", ROWS.values(), ids=ROWS)
def test_one_row_of_asv(tmp_path, edit):
    path = change(write_results(tmp_path, GOOD), edit)
    left_out = LeftOut()
    values = load_results(tmp_path, left_out)["value"].tolist()
    assert sorted(values) == [1.0, 3.0, 4.0, 5.0, 6.0]
    assert len(left_out) == 1
    (line,) = left_out.lines
    assert line.startswith(f"1 result left out: {path}: ")
    assert "x.track_a" in line
    shown = CliRunner().invoke(main, ["results", str(tmp_path)])
    assert shown.exit_code == 0
    assert "".join(line.split()) in "".join(shown.stderr.split())
    made = CliRunner().invoke(main, ["report", "--results", str(tmp_path), "--output", str(tmp_path / "html")])
    assert made.exit_code == 0
    assert "1 result left out" in made.stderr
    assert path.name in (tmp_path / "html" / "index.html").read_text()


FILES = {
    "empty": lambda path: path.write_text(""),
    "cut off": lambda path: path.write_text(path.read_text()[:100]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "deep": lambda path: path.write_text(DEEP),
    "a deep part": lambda path: path.write_text(path.read_text().replace('"some CPU"', DEEP)),
    "version 1": lambda path: path.write_text(path.read_text().replace('"version": 2', '"version": 1')),
    "a list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "Latin-1": lambda path: path.write_bytes(path.read_text().replace("some CPU", "größer").encode("latin-1")),
    "no machine": lambda path: path.write_text(path.read_text().replace('"machine"', '"x"')),
    "two dates": lambda path: path.write_text('{"date": 1, ' + path.read_text()[1:]),
    "a loop": lambda path: (path.unlink(), path.symlink_to(path)),
}


@pytest.mark.parametrize("spoil", FILES.values(), ids=FILES)
def test_one_file_of_asv(tmp_path, spoil):
    write_results(tmp_path, GOOD)
    path = tmp_path / "vm" / f"{commit_name(1)}-env.json"
    spoil(path)
    left_out = LeftOut()
    assert sorted(load_results(tmp_path, left_out)["value"]) == [1.0, 3.0, 4.0, 6.0]
    assert list(left_out.faults) == [str(path)]
    assert len(load_durations(tmp_path, LeftOut())) == 2
    assert {machine for machine, _ in read_asv(tmp_path, LeftOut()).settings()} == {"vm"}
    with pytest.warns(UserWarning, match="1 result left out: "):
        load_results(tmp_path)
    for options in ([], ["--durations"]):
        shown = CliRunner().invoke(main, ["results", str(tmp_path), *options])
        assert (shown.exit_code, path.name in "".join(shown.stderr.split())) == (0, True)


def test_a_file_of_the_first_version_is_to_be_updated(tmp_path):
    change(write_results(tmp_path, GOOD), lambda content: content.update(version=1))
    assert "run 'asv update'" in CliRunner().invoke(main, ["results", str(tmp_path)]).stderr


def test_files_of_the_first_version_are_counted_and_the_rest_is_read(tmp_path):
    write_results(tmp_path, {("x.track_a", "new"): [1.0] * 30})
    for place in range(29):
        change(tmp_path, lambda content: content.update(version=1), place)
    left_out = LeftOut()
    assert len(load_results(tmp_path, left_out)) == 1
    (line,) = left_out.lines
    assert line.startswith("29 files left out: ")
    assert line.endswith(" and 28 more: of asv's version 1: run 'asv update'")


def test_a_byte_order_mark_is_none_of_the_content(tmp_path):
    change(write_results(tmp_path, GOOD), lambda content: f"\ufeff{json.dumps(content)}")
    left_out = LeftOut()
    assert len(load_results(tmp_path, left_out)) == 6
    assert not left_out
    assert Thresholds.parse("\ufeff[time]\ndirection = 'lower'", "t").time.direction == "lower"


@pytest.mark.parametrize("field", ["unit", "version", "param_names"])
@pytest.mark.parametrize("value", WRONG, ids=[repr(each)[:20] for each in WRONG])
def test_one_benchmark_that_is_described_wrongly(tmp_path, field, value):
    write_results(tmp_path, GOOD)
    described = json.loads((tmp_path / "benchmarks.json").read_text())
    described["x.track_a"][field] = value
    (tmp_path / "benchmarks.json").write_text(json.dumps(described))
    frame = load_results(tmp_path, left_out := LeftOut())
    assert sorted(frame["value"])[-3:] == [4.0, 5.0, 6.0]
    if not isinstance(value, str | list):
        assert len(frame) == 3
        assert "x.track_a" in left_out.lines[0]


@pytest.mark.parametrize(
    "field", ["version", "commit_hash", "env_name", "date", "params", "result_columns", "results", "durations"]
)
@pytest.mark.parametrize("value", WRONG, ids=[repr(each)[:20] for each in WRONG])
def test_wrong_types_in_one_file(tmp_path, field, value):
    path = change(write_results(tmp_path, GOOD), lambda content: content.update({field: value}))
    for options in ([], ["--durations"], ["--csv", str(tmp_path / "out.csv")]):
        shown = CliRunner().invoke(main, ["results", str(tmp_path), *options])
        assert shown.exit_code == 0, shown.output
        assert shown.stderr.count("left out") <= 1
    frame = load_results(tmp_path, left_out := LeftOut())
    assert {1.0, 3.0, 4.0, 6.0} <= set(frame["value"])
    assert set(left_out.faults) <= {str(path)}


def test_one_value_twice(tmp_path):
    path = change(write_results(tmp_path, GOOD), lambda content: None)
    path.with_name("copy.json").write_text(path.read_text())
    frame = load_results(tmp_path, left_out := LeftOut())
    assert len(frame) == 6
    fault = "'x.track_a', backend=new: there twice (the first of 2)"
    assert left_out.lines == [f"2 results left out: {path.with_name('copy.json')}: {fault}"]


def test_where_nothing_fits_the_first_fault_ends_it(tmp_path):
    write_results(tmp_path, {("x.track_a", "new"): [1.0]})
    path = change(tmp_path, lambda content: content.update(date="x"), place=0)
    shown = CliRunner().invoke(main, ["results", str(tmp_path)])
    assert shown.exit_code == 1
    assert shown.stderr.splitlines()[-1].startswith(f"Error: {path}: Expected int, got str (at $.date)")


def test_many_bad_files_are_counted_and_some_named(tmp_path):
    write_results(tmp_path, {("x.track_a", "new"): [1.0] * 30})
    for place in range(29):
        change(tmp_path, lambda content: "{", place)
    load_results(tmp_path, left_out := LeftOut())
    assert len(left_out.lines) == 11
    assert left_out.lines[-1] == "19 results left out of 19 more files"


def test_a_tuple_is_a_parameter_of_its_own(tmp_path):
    for text in ("(1, 2)", "[1, 2]", "x, y=z", "a=b", "{1: 2, 3: 4}"):
        series = read_history(write_results(tmp_path / text[:2], {("x.track_a", text): [1.0, 2.0]}), Commits()).series
        assert [each.cell for each in series] == [{"backend": text}]


class TestReplaysAndBenchmarks:
    STATS = {"min": 1, "q1": 2, "median": 3, "q3": 4, "max": 5, "rounds": 6}  # noqa: RUF012

    @pytest.mark.parametrize("value", WRONG, ids=[repr(each)[:20] for each in WRONG])
    def test_one_benchmark_of_several(self, tmp_path, value):
        benchmarks = [{"name": f"test_{name}", "stats": self.STATS} for name in "abc"]
        benchmarks[1] = {"name": "test_b", "stats": {**self.STATS, "median": value}}
        content = {"machine_info": {}, "datetime": "now", "benchmarks": benchmarks}
        (tmp_path / "b.json").write_text(json.dumps(content))
        made = CliRunner().invoke(
            main, ["report", "--benchmark", str(tmp_path / "b.json"), "--output", str(tmp_path / "html")]
        )
        assert made.exit_code == 0, made.output
        page = (tmp_path / "html" / "backends.html").read_text()
        assert "test_a" in page
        assert "test_c" in page
        if value not in (7, -1, 1.5):
            assert "1 result left out" in made.stderr
            assert "test_b" not in page

    def test_what_is_not_read_may_be_no_number(self, tmp_path):
        stats = {**self.STATS, "ops": math.nan}
        content = {"machine_info": {}, "datetime": "now", "benchmarks": [{"name": "test_a", "stats": stats}]}
        (tmp_path / "b.json").write_text(json.dumps(content))
        made = CliRunner().invoke(
            main, ["report", "--benchmark", str(tmp_path / "b.json"), "--output", str(tmp_path / "html")]
        )
        assert (made.exit_code, "left out" in made.stderr) == (0, False)


class TestBounds:
    @pytest.mark.parametrize(
        "text", [DEEP, '{"a":' * 1000 + "1" + "}" * 1000, "[" * 200_000, "[" * 99_999 + "]" * 99_998]
    )
    def test_deep_json(self, text):
        with pytest.raises(ValueError, match="deep"):
            parse_json(text)

    @pytest.mark.parametrize(
        "text", [f"a = {DEEP}", ".".join("a" * 3000) + " = 1", "a = " + "{b=" * 900 + "1" + "}" * 900]
    )
    def test_deep_toml(self, text):
        with pytest.raises(ValueError, match="deep"):
            parse_toml(text)
        with pytest.raises(ThresholdsError, match="deep"):
            Thresholds.parse(text, "t")

    def test_as_deep_as_is_read(self):
        parse_json("[" * DEEPEST + "]" * DEEPEST)

    @pytest.mark.parametrize(
        "text",
        [
            "NaN",
            "-Infinity",
            "1e999",
            str(HUGE),
            "9" * 5000,
            str(2**63),
            '{"a": 1, "a": 1}',
            '{"\\u0000": 1, "\\u0001": 2}',
        ],
    )
    def test_json_that_is_none(self, text):
        with pytest.raises(ValueError, match=r"number|range|twice"):
            parse_json(text)

    @pytest.mark.parametrize(
        "text", ["a = " + "9" * 5000, f"a = {HUGE}", "a = 1\na = 2", "a = \x00", "=", "[[a]]\n[a]"]
    )
    def test_toml_that_is_none(self, text):
        with pytest.raises(ThresholdsError, match="t: not TOML: "):
            Thresholds.parse(text, "t")

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "true", "'1'", "[1]", "-1", "1979-05-27"])
    def test_limits_that_are_none(self, value):
        with pytest.raises(ThresholdsError, match=r"t: \[time\]: "):
            Thresholds.parse(f"[time]\ndirection = 'lower'\nrelative = {value}", "t")

    @pytest.mark.parametrize("text", [DEEP, '{"format": "kvcache-trace", "format": "x"}', "{", str(HUGE)])
    def test_a_header_of_a_trace(self, text):
        with pytest.raises(ValueError, match="header"):
            TraceHeader.from_json(text)

    @pytest.mark.parametrize("since", ["0", "00", "9" * 5000, "\N{ARABIC-INDIC DIGIT ZERO}", "-1", "x\ud800"])
    def test_since(self, tmp_path, since):
        with pytest.raises((HistoryError, UnicodeEncodeError)):
            read_commits(tmp_path, since)


def test_a_report_of_a_file_that_is_none_is_one_line(tmp_path):
    for kind in ("--replay", "--benchmark", "--training", "--trace"):
        for place, content in enumerate(
            (b"", b"\xff\xfe", b"[]", b"null", DEEP.encode(), b"\xef\xbb\xbf{}", b'{"a": NaN}')
        ):
            path = tmp_path / f"{place}.json"
            path.write_bytes(content)
            shown = CliRunner().invoke(main, ["report", kind, str(path), "--output", str(tmp_path / "html")])
            assert (shown.exit_code, isinstance(shown.exception, SystemExit)) == (1, True), content
            assert shown.stderr.splitlines()[-1].startswith(f"Error: {path}: ")
    assert isinstance(ResultsError("a", "b"), ValueError)
