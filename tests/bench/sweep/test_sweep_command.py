"""``kvbench sweep``: what it prints and writes; run again, killed, interrupted, and over commits."""

import shutil
import subprocess
import sys
import threading

import pandas as pd
import pytest
from click.testing import CliRunner
from sweep_claims import EXACT, TRACES, Sweeps, exact_columns
from sweep_plans import SMALL, cells_in, write_plan
from traces import synthetic

from kvbench.cli import main
from kvbench.results.sweep import read_sweep
from kvbench.sweep import measure, spread
from kvbench.sweep.libraries import library_in_use
from kvbench.sweep.session import Session
from kvbench.sweep.worker import Task, run_task


@pytest.fixture(scope="module")
def scheduler():
    """Two of Dask's workers in this process."""
    from distributed import LocalCluster

    here = {"host": "127.0.0.1", "protocol": "tcp", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, **here) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch):
    """Kernels are counted in the whole process: its two workers take turns."""
    real, turn = measure.measure, threading.Lock()

    def measure_alone(cell, trace):
        with turn:
            return real(cell, trace)

    monkeypatch.setattr(measure, "measure", measure_alone)
    monkeypatch.setattr(spread, "_TICK", 0.02)


def sweep(place, *options, text=SMALL, output="out"):
    plan = write_plan(place, text)
    arguments = ["sweep", plan, "--output", place / output, *options]
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_a_dry_run_writes_nothing_and_needs_no_dask(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = sweep(place, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "14 of 14 cells would run" in result.stdout
    assert not (place / "out").exists()


def test_without_the_extra_one_line_says_what_to_install(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = sweep(place)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: kvbench sweep needs 'distributed': pip install 'kvcache[sweep]'\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", 2, "--scheduler", "tcp://a:1"], "give either --workers or --scheduler"),
        (["--scheduler", "a:1"], "'a:1': give tcp://HOST:PORT"),
        (["--scheduler", "tcp://a"], "'tcp://a': give tcp://HOST:PORT"),
        (["--workers", 0], "0 is not in the range"),
    ],
)
def test_options_that_cannot_be(place, options, said):
    result = sweep(place, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_folder_of_something_else_is_left_alone(place):
    for name, content in (("out/mine.txt", "mine"), ("out/_sweep.json", '{"format": "other"}')):
        shutil.rmtree(place / "out", ignore_errors=True)
        (place / "out").mkdir()
        (place / name).write_text(content)
        result = sweep(place)
        assert result.exit_code == 1
        assert str(place / "out") in result.stderr
        assert [each.read_text() for each in (place / "out").iterdir()] == [content]
    result = sweep(place, output="plan.toml")
    assert result.exit_code == 2
    assert "plan.toml' is a file" in result.stderr


def test_all_faults_of_inputs_are_found_before_anything_runs(place):
    (place / "bad.parquet").write_text("no trace")
    result = sweep(place, text='trace = ["tiny.parquet", "bad.parquet"]')
    assert result.exit_code == 1
    assert "bad.parquet: not a Parquet file" in result.stderr
    result = sweep(place, text='trace = "tiny.parquet"\ncommit = "no-such-commit"')
    assert "plan.toml: commit: git knows no revision 'no-such-commit'" in result.stderr
    assert not (place / "out").exists()


def test_it_runs_once_and_goes_on_where_it_was(place, scheduler):
    result = sweep(place, "--scheduler", scheduler)
    assert result.exit_code == 0, result.output
    assert "14 cells: 14 done, 0 failed; 14 ran now" in result.stdout
    assert "computed on two workers and compared: 1, of which 0 differ" in result.stdout
    first = exact_columns(place / "out")
    assert len(first) == len(cells_in(place))
    for path in sorted((place / "out").glob("*.parquet"))[:4]:
        path.unlink()
    sorted((place / "out").glob("*.parquet"))[0].write_text("damaged")
    result = sweep(place, "--dry-run")
    assert "5 of 14 cells would run" in result.stdout
    result = sweep(place, "--scheduler", scheduler)
    assert "14 done, 0 failed; 5 ran now" in result.stdout
    assert exact_columns(place / "out").equals(first)
    assert "14 done, 0 failed; 0 ran now" in sweep(place, "--scheduler", scheduler).stdout


def test_a_failure_ends_with_1_and_is_tried_again_when_that_is_asked_for(place, scheduler, monkeypatch):
    real = measure.measure

    def failing(cell, trace):
        if cell.storage == "slab":
            raise RuntimeError("no more slabs")
        return real(cell, trace)

    monkeypatch.setattr(measure, "measure", failing)
    result = sweep(place, "--scheduler", scheduler)
    assert result.exit_code == 1
    assert "14 cells: 10 done, 4 failed; 14 ran now" in result.stdout
    assert "4 cells failed (--retry-failed runs them again)" in result.stderr
    assert "new:slab, tiny.parquet, default, fifo, float32, cpu: RuntimeError: no more slabs" in result.stderr
    frame = read_sweep(place / "out")
    assert set(frame.loc[frame["status"] == "failed", "reason"]) == {"RuntimeError: no more slabs"}
    monkeypatch.setattr(measure, "measure", real)
    again = sweep(place, "--scheduler", scheduler)
    assert again.exit_code == 1
    assert "4 failed; 0 ran now" in again.stdout
    assert "no more slabs" in again.stderr
    last = sweep(place, "--scheduler", scheduler, "--retry-failed")
    assert last.exit_code == 0
    assert "14 done, 0 failed; 4 ran now" in last.stdout


def test_a_counter_that_differs_between_workers_fails_the_cell(place, scheduler, monkeypatch):
    real, seen = measure.measure, set()

    def drifting(cell, trace):
        is_second = cell.id in seen
        seen.add(cell.id)
        return real(cell, trace) | ({"hit": 10**6} if is_second and cell.storage == "paged" else {})

    monkeypatch.setattr(measure, "measure", drifting)
    result = sweep(place, "--scheduler", scheduler, text=f"{SMALL}\nrepeated = 1.0")
    assert result.exit_code == 1
    assert "computed on two workers and compared: 14, of which 4 differ" in result.stdout
    assert "10 done, 4 failed" in result.stdout
    assert "computed twice, on tcp://" in result.stderr
    assert "and 1000000" in result.stderr
    assert len(read_sweep(place / "out")) == 14


def test_ctrl_c_says_how_to_go_on(place, scheduler, monkeypatch):
    def interrupted(self, spread):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "_compare", interrupted)
    result = sweep(place, "--scheduler", scheduler)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "Interrupted: 14 of 14 cells are done, and the same command goes on\n"
    assert "14 done, 0 failed; 0 ran now" in sweep(place, "--scheduler", scheduler).stdout


KILLED = f"""
trace = "{TRACES / "cartpole-lightzero-0.2.0-seed0.parquet"}"
backend = ["legacy", "new"]
storage = ["private", "slab", "paged"]
capacity = ["default", "recur=1/2", "recur=1/4", "recur=1/8B"]
searches = 4
repeated = 0.1
"""


@pytest.mark.slow
def test_killed_workers_and_a_killed_client_cost_no_cell(tmp_path):
    """The short form of ``python benchmarks/sweep_claims.py``."""
    (tmp_path / "tmp").mkdir()
    sweeps = Sweeps(write_plan(tmp_path, KILLED), tmp_path / "tmp")
    there = sweeps.run_killed(tmp_path / "out", 3, 7)
    assert 7 <= there < 16
    (tmp_path / "scratch").mkdir()
    rows = [run_task(Task(cell, 1, None), str(tmp_path / "scratch")) for cell in cells_in(tmp_path, KILLED)]
    expected = pd.DataFrame(rows, columns=EXACT).set_index("cell").sort_index()
    found = exact_columns(tmp_path / "out")
    assert len(found) == 16
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert sweeps.left_over(tmp_path / "out") == []


@pytest.mark.slow
def test_a_commit_has_its_wheel_and_a_process_of_its_own(tmp_path, scheduler, monkeypatch):
    repository = tmp_path / "repository"
    synthetic(tmp_path / "tiny.parquet", transpositions=0.2)
    source = TRACES.parents[1]
    shutil.copytree(
        source / "kvcache", repository / "kvcache", ignore=shutil.ignore_patterns("*.so", "*.c", "*.h", "__pycache__")
    )
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(source / name, repository)
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    remove_what_only_new_libraries_have(repository / "kvcache")
    commit(git, "whole")
    (repository / "kvcache" / "__init__.py").write_text('"""Nothing."""\n')
    commit(git, "empty")
    monkeypatch.chdir(repository)
    text = 'trace = "tiny.parquet"\nbackend = "new"\ncommit = ["installed", "HEAD~1", "HEAD"]\nrepeated = 0'
    result = sweep(tmp_path, "--scheduler", scheduler, text=text)
    assert result.exit_code == 1
    frame = read_sweep(tmp_path / "out").set_index("library")
    assert len(frame) == 3
    done = frame[frame["status"] == "done"]
    hashes = [subprocess.check_output([*git, "rev-parse", name], text=True).strip() for name in ("HEAD~1", "HEAD")]
    assert set(done.index) == {f"commit {hashes[0]}", library_in_use()}
    assert done["hit"].nunique() == 1
    assert not done.loc[f"commit {hashes[0]}", "compiled"]
    assert frame.loc[f"commit {hashes[1]}", "reason"].startswith(
        "this kvbench cannot drive that library: cannot import"
    )
    assert "(" not in frame.loc[f"commit {hashes[1]}", "reason"]  # a temporary folder
    assert f", commit {hashes[1][:8]}: this kvbench" in result.stderr
    assert sorted(each.name for each in (tmp_path / "out" / "_wheels").iterdir()) == sorted(hashes)
    assert len(pd.read_parquet(tmp_path / "out")) == 3


def remove_what_only_new_libraries_have(package):
    """A library of before issue 20 knows nothing of searches."""
    names = package / "__init__.py"
    names.write_text(names.read_text().replace(", SearchInfo", "").replace('"SearchInfo",', ""))
    backend = package / "backend.py"
    backend.write_text(backend.read_text().replace("    wants_info: bool = False\n", ""))
    manager = package / "manager.py"
    manager.write_text(manager.read_text().replace("self.wants_info", "self._wants_info"))


def commit(git, name):
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", name], check=True)
