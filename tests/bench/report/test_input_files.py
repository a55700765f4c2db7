"""Replay results are read whole, or refused with what is wrong."""

import json
from typing import ClassVar

import msgspec
import pytest
from replay_files import replay, synthetic

from kvbench.report.backends import step_panels
from kvbench.report.input_files import read_benchmarks, read_replays
from kvbench.results.decode import LeftOut, ResultsError
from kvbench.results.pytest_benchmark import STATISTICS
from kvbench.results.replay import Capacity


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    file = replay(synthetic(folder / "trace.parquet"), folder / "replay.json", "--repetitions", "1")
    return json.loads(file.read_text())


def write(folder, content):
    (folder / "replay.json").write_text(json.dumps(content))
    return folder / "replay.json"


def changed(content, *path, value=None):
    """A copy with one field replaced, or taken away."""
    copied = json.loads(json.dumps(content))
    inner = copied
    for name in path[:-1]:
        inner = inner[name]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copied


def test_what_a_replay_wrote(tmp_path, content):
    file = read_replays(write(tmp_path, content))
    assert file.command.startswith("kvbench replay ")
    assert file.content.machines["cpu"]["processor"] == content["machines"]["cpu"]["processor"]
    (result,) = file.content.replays
    assert (result.trace.file, result.device, result.trace.synthetic) == ("trace.parquet", "cpu", True)
    assert result.capacity == Capacity("default")
    legacy, new = result.backends
    assert result.first is legacy
    assert new.latency_us["store"].p50 == new.distributions["store"][50]
    assert new.rate("hit") + new.rate("context_mismatch") == pytest.approx(100)
    assert sum(sum(each.values()) for each in new.timeline.counts("simulation").values()) == new.count("lookups")


@pytest.mark.parametrize(("clear_share", "last"), [(0.01, "clear"), (None, "store")])
def test_a_step_is_divided_into_all_that_the_file_counts_in_it(tmp_path, content, clear_share, last):
    """Files from before steps had their share of the clears have none to draw."""
    content = json.loads(json.dumps(content))
    for each in content["replays"][0]["backends"]:
        each["clear_share"] = clear_share
    (panel,) = step_panels(read_replays(write(tmp_path, content)).replays)
    heights = [sum(each) for each in zip(*(series.y for series in panel.plot.series), strict=True)]
    steps = [each["latency_us"]["recurrent_step"]["p50"] for each in content["replays"][0]["backends"]]
    assert panel.plot.series[-1].name == last
    assert heights == pytest.approx(steps)


def test_what_is_read_is_all_that_was_written(tmp_path, content):
    assert msgspec.to_builtins(read_replays(write(tmp_path, content)).content) == content


def test_files_of_the_first_schema_version_are_read(tmp_path, content):
    old = changed(content, "schema_version", value=1)
    for backend in old["replays"][0]["backends"]:
        del backend["timeline"]
        for values in backend["latency_us"].values():
            del values["percentiles"]
    (result,) = read_replays(write(tmp_path, old)).content.replays
    assert result.first.timeline is None
    assert result.first.distributions == {}
    assert result.first.latency_us["store"].p50 > 0


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("format",), None, r"required field format: give what 'kvbench replay --json' wrote"),
        (("schema_version",), 99, r"a version that this kvbench does not know, 99 \(at \$\.schema_version\)"),
        (("machines",), None, "missing required field machines"),
        (("replays",), {}, r"Expected array, got object \(at \$\.replays\)"),
        (("replays", 0, "trace", "geometry"), {"name": 5}, "geometry"),
        (
            ("replays", 0, "trace", "searches"),
            "many",
            r"got str \(at \$\.replays\[0\]\.trace\.searches\)",
        ),
        (("replays", 0, "baseline"), "other", "none of its backends"),
        (
            ("replays", 0, "backends", 0, "outcomes", "total", "hit"),
            None,
            r"total\.hit is missing \(at .*outcomes\)",
        ),
        (
            ("replays", 0, "backends", 1, "latency_us", "store"),
            [1],
            r"got array \(at .*latency_us\[\.\.\.\]\)",
        ),
        (("replays", 0, "backends", 1, "latency_us", "store", "p50"), float("nan"), "not JSON"),
        (("replays", 0, "backends", 1, "latency_us", "store", "p50"), 10**400, "Number out of range"),
        (("replays", 0, "backends", 1, "latency_us", "store", "percentiles"), [10**400] * 101, "Number out of range"),
        (
            ("replays", 0, "backends", 1, "timeline", "steps"),
            ["a"],
            r"got str \(at .*steps\[0\]\)",
        ),
        (
            ("replays", 0, "backends", 1, "timeline", "entries", "recur"),
            [1],
            r"entries\.recur has 1 samples.*timeline\)",
        ),
        (
            ("replays", 0, "backends", 1, "timeline"),
            {"steps": [], "entries": {}, "bytes_reserved": {}, "by_simulation": [], "by_depth": []},
            "timelines of other steps or pools",
        ),
        (
            ("replays", 0, "backends", 1, "latency_us", "store", "percentiles"),
            [1.0, 2.0],
            r"Expected array of length >= 101 .*\.percentiles",
        ),
        (("replays", 0, "backends", 1, "evictions"), {"recur": 1}, "evictions of other pools"),
        (("command",), "text", r"Expected array, got str \(at \$\.command\)"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, path, value, fault):
    file = write(tmp_path, changed(content, *path, value=value))
    with pytest.raises(ResultsError, match=fault) as caught:
        read_replays(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not JSON, or cut off"),
        ('{"format": "kv', "cut off"),
        ("[]", "got array"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_damaged_files(tmp_path, text, fault):
    (tmp_path / "replay.json").write_text(text)
    for read in (read_replays, read_benchmarks):
        with pytest.raises(ResultsError, match=fault):
            read(tmp_path / "replay.json")


def test_missing_files_and_folders(tmp_path):
    for read in (read_replays, read_benchmarks):
        with pytest.raises(ResultsError, match="no such file"):
            read(tmp_path / "none.json")
        with pytest.raises(ResultsError, match="cannot be read"):
            read(tmp_path)


class TestBenchmarks:
    CONTENT: ClassVar = {
        "machine_info": {"cpu": {"brand_raw": "some CPU"}, "python_version": "3.11.7"},
        "datetime": "2026-11-21",
        "commit_info": {"id": "abc"},
        "benchmarks": [
            {"name": "a", "stats": {"min": 1e-6, "q1": 2e-6, "median": 3e-6, "q3": 4e-6, "max": 5e-6, "rounds": 7}},
            {"name": "counted", "extra_info": {"timed": False}, "stats": dict.fromkeys(STATISTICS, 0) | {"rounds": 1}},
        ],
    }

    def test_timed_ones_in_microseconds(self, tmp_path):
        file = read_benchmarks(write(tmp_path, self.CONTENT))
        (found,) = file.benchmarks
        assert found.microseconds == pytest.approx({"min": 1, "q1": 2, "median": 3, "q3": 4, "max": 5})
        assert (found.stats.rounds, file.commit, file.machine) == (7, "abc", "some CPU, Python 3.11.7")

    def test_another_tools_file(self, tmp_path, content):
        with pytest.raises(ResultsError, match="give what pytest --benchmark-json"):
            read_benchmarks(write(tmp_path, content))
        with pytest.raises(ResultsError, match="give what 'kvbench replay"):
            read_replays(write(tmp_path, self.CONTENT))

    def test_a_benchmark_without_a_statistic_is_left_out(self, tmp_path):
        left_out = LeftOut()
        file = read_benchmarks(
            write(tmp_path, changed(self.CONTENT, "benchmarks", 0, "stats", "q1")), left_out=left_out
        )
        assert [each.name for each in file.content.benchmarks] == ["counted"]
        fault = "Object missing required field q1 (at $.benchmarks[0].stats)"
        assert left_out.lines == [f"1 result left out: {tmp_path / 'replay.json'}: {fault}"]
