"""The asv suite: light to import, the checkout's harness around whatever library is installed, and honest skips."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(code, *paths):
    """Run ``code`` in a process of its own, as asv does; what it prints."""
    environment = {"PYTHONPATH": ":".join(map(str, paths)), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_suite_imports_neither_torch_nor_the_library():
    """asv imports all of it in every process: that must cost nothing and fail on no commit."""
    loaded = run(
        "import sys, suite.replays, suite.checkout; print([n for n in ('torch', 'kvcache') if n in sys.modules])",
        ROOT / "benchmarks",
    )
    assert loaded == "[]"


def test_the_harness_is_the_checkouts_and_the_library_the_installed_one(tmp_path):
    shutil.copytree(ROOT / "kvcache", tmp_path / "kvcache")
    places = json.loads(
        run(
            "import json; from suite.checkout import put_harness_in_place as put; fault = put();"
            "import kvcache.manager, kvcache.trace.replay as r, kvcache.trace.drive as d;"
            "print(json.dumps([fault, kvcache.manager.__file__, r.__file__, d.__file__]))",
            ROOT / "benchmarks",
            tmp_path,
        )
    )
    assert places[0] is None
    assert Path(places[1]).is_relative_to(tmp_path)
    assert [Path(each).parent for each in places[2:]] == [ROOT / "kvcache" / "trace"] * 2


def test_a_library_that_does_not_fit_is_a_reason_and_no_error(tmp_path):
    (tmp_path / "kvcache").mkdir()
    for name in ("__init__", "backend"):
        (tmp_path / "kvcache" / f"{name}.py").write_text("")
    said = run("from suite.checkout import put_harness_in_place as put; print(put())", ROOT / "benchmarks", tmp_path)
    assert said.startswith("this commit's kvcache does not fit the harness: ")


class TestReplays:
    @pytest.fixture
    def suite(self):
        from suite.replays import Replays

        return Replays()

    def test_every_metric_has_a_unit_and_a_version(self, suite):
        tracks = [getattr(suite, name) for name in dir(suite) if name.startswith("track_")]
        assert len(tracks) == 19
        assert all(each.unit and each.version for each in tracks)

    def test_what_cannot_run_is_skipped_with_its_reason(self, suite):
        with pytest.raises(NotImplementedError, match="no CUDA device"):
            suite.setup({("t", "legacy", "cuda"): "skipped: no CUDA device"}, "t", "legacy", "cuda")

    def test_wrong_content_is_a_failed_benchmark_and_no_fast_one(self, suite):
        with pytest.raises(RuntimeError, match="wrong content"):
            suite.setup({("t", "new", "cpu"): RuntimeError("new returned wrong content: ...")}, "t", "new", "cpu")

    def test_one_replay_feeds_all_numbers(self, tmp_path, monkeypatch):
        from suite import replays

        monkeypatch.setattr(replays, "RECORDED_SEARCHES", 1)
        monkeypatch.setattr(replays, "REPETITIONS", 1)
        trace = replays.TRACES[0]
        cells = replays._plain(replays._measure(trace, "cpu", str(tmp_path)))
        assert set(cells) == {(trace, backend, "cpu") for backend in replays.BACKENDS}
        for cell in cells:
            suite = replays.Replays()
            suite.setup(cells, *cell)
            values = {name: getattr(suite, name)(cells, *cell) for name in replays.UNITS}
            assert all(isinstance(value, (int, float)) for value in values.values())
            assert values["track_stale_hit_rate"] == 0
            assert (values["track_stale_hit_rate_in_small_pool"] > 0) == cell[1].startswith("legacy")
            assert (values["track_miss_rate_in_small_pool"] > 0) == cell[1].startswith("new")
