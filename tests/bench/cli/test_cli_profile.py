"""``kvbench profile``: what it writes and prints, and what it refuses without losing anything."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.profile import profiler as profile_module
from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.results.profile import read_profile_index
from kvcache.geometry import Geometry

TINY = Geometry("tiny", 2, 2, 16, 8, 2, 6, "absolute")


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "tiny.parquet"
    for _ in write_synthetic_trace(path, SyntheticSearch(TINY, searches=4, seed=0, transpositions=0.2)):
        pass
    return path


def invoke(*arguments):
    return CliRunner().invoke(main, ["profile", *map(str, arguments)])


def refused(*arguments, code=1):
    """The one line that says why nothing was done."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def written(trace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "new" / "profile"
    result = invoke(
        trace, "--backend", "new:slab", "--backend", "legacy", "--output", folder, "--searches", 3,
        "--capacity", "recur=3", "--eviction", "lru", "--dtype", "bfloat16",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder, result


class TestWhatItWrites:
    def test_the_index_says_what_was_done(self, written):
        index = read_profile_index(written[0])
        assert index.settings == {
            "device": "cpu", "dtype": "bfloat16", "eviction": "lru", "searches": 3, "threads": 1,
            "capacity": {"label": "recur=3", "init": None, "recur": 3, "init_bytes": None, "recur_bytes": None},
        }  # fmt: skip
        assert index.trace.file == "tiny.parquet"
        assert index.trace.searches == 3
        assert index.trace.geometry == TINY
        assert index.machine["torch_version"] == torch.__version__
        assert [each.backend for each in index.profiles] == ["new:slab", "legacy"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", index.created)

    def test_a_small_pool_makes_new_supply_and_legacy_not(self, written):
        new, legacy = ({each["name"] for each in one.ranges} for one in read_profile_index(written[0]).profiles)
        assert "supply" in new
        assert "supply" not in legacy  # its misses are stale hits

    def test_the_table_shows_the_numbers_of_the_index(self, written):
        folder, result = written
        for one in read_profile_index(folder).profiles:
            part = result.stdout[result.stdout.index(one.backend) :]
            for each in one.ranges:
                if each["name"] in ("hash", "lookup", "assemble", "store"):
                    cells = re.search(rf"^ *{each['name']} +(.*?) *$", part, re.MULTILINE)[1].split()
                    shown = [each["calls"], *(each[name] for name in ("self_cpu_us", "total_cpu_us"))]
                    assert cells[:3] == [f"{value:,.0f}" for value in shown]

    def test_every_file_is_named_with_what_opens_it(self, written):
        folder, result = written
        for one in read_profile_index(folder).profiles:
            for file in one.files:
                assert f"{folder / file.path}: {file.opens_with}\n" in result.stdout
        assert f"{folder / 'profile.json'}: all of these\n" in result.stdout
        assert [each.name for each in folder.parent.iterdir()] == ["profile"]

    def test_only_so_many_operations_are_printed(self, trace, tmp_path):
        result = invoke(trace, "--backend", "new", "--output", tmp_path / "p", "--searches", 1, "--top", 2)
        assert len(re.findall(r"^ *(aten::\w+|detach) ", result.stdout, re.MULTILINE)) == 2

    def test_by_default_a_folder_of_its_own_each_time(self, trace, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = invoke(trace, "--backend", "new", "--searches", 1)
        assert result.exit_code == 0, result.output
        (folder,) = Path("profiles").iterdir()
        assert re.fullmatch(r"tiny-\d{8}T\d{6}Z", folder.name)


class TestWhatItRefuses:
    def test_an_unknown_backend(self, trace, tmp_path):
        line = refused(trace, "--backend", "old", "--output", tmp_path / "p", code=2)
        assert line.startswith("Error: Invalid value for '--backend': 'old' is not one of 'legacy'")

    def test_a_backend_named_twice(self, trace):
        assert refused(trace, "--backend", "new", "--backend", "new", code=2).endswith("is given twice: new, new")

    def test_a_trace_that_cannot_be_read(self, tmp_path):
        assert refused(tmp_path / "nowhere") == f"Error: {tmp_path / 'nowhere'}: no such file"
        (tmp_path / "text").write_text("no trace")
        assert refused(tmp_path / "text", "--output", tmp_path / "p").endswith("text: not a Parquet file")
        assert not (tmp_path / "p").exists()

    def test_a_pool_too_small_for_one_entry(self, trace, tmp_path):
        line = refused(trace, "--capacity", "recur=1B", "--output", tmp_path / "p", code=2)
        assert "recur_pool_bytes is 1: one entry takes" in line
        assert not (tmp_path / "p").exists()

    def test_a_folder_that_exists_stays_as_it_is(self, trace, tmp_path):
        folder = tmp_path / "good"
        folder.mkdir()
        (folder / "data").write_text("precious")
        line = refused(trace, "--output", folder)
        assert line == f"Error: {folder} exists already, and is not overwritten: remove it or name another"
        assert (folder / "data").read_text() == "precious"
        assert [each.name for each in tmp_path.iterdir()] == ["good"]

    def test_a_place_that_is_no_folder(self, trace, tmp_path):
        (tmp_path / "file").write_text("precious")
        line = refused(trace, "--output", tmp_path / "file" / "profile")
        assert line.startswith(f"Error: {tmp_path / 'file' / 'profile'}: cannot be written: ")
        assert (tmp_path / "file").read_text() == "precious"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_may_not_be_written(self, trace, tmp_path):
        tmp_path.chmod(0o500)
        assert refused(trace, "--output", tmp_path / "p").endswith("p: cannot be written: Permission denied")

    def test_a_disk_that_fills_up_leaves_no_half_of_a_profile(self, trace, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(profile_module, "render_flame_graph", full)
        line = refused(trace, "--backend", "new", "--searches", 1, "--output", tmp_path / "p")
        assert line == f"Error: {tmp_path / 'p'}: cannot be written: No space left on device"
        assert list(tmp_path.iterdir()) == []

    def test_cuda_where_there_is_none(self, trace, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        line = refused(trace, "--device", "cuda", "--output", tmp_path / "p")
        assert line == "Error: no CUDA device: nothing was profiled"
        assert not (tmp_path / "p").exists()


def test_as_a_process_it_prints_nothing_but_its_own(trace, tmp_path):
    # torch's tracing library likes to remark on its doings.
    command = [sys.executable, "-m", "kvbench", "profile", str(trace), "--backend", "new", "--searches", "1"]
    done = subprocess.run([*command, "--output", str(tmp_path / "p")], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads((tmp_path / "p" / "profile.json").read_text())["command"][:2] == ["profile", str(trace)]
