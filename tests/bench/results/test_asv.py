"""asv's files as one frame: failed and skipped told apart, other versions left out, bad files named."""

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.results.asv import COLUMNS, load_durations, load_results, read_asv
from kvbench.results.decode import LeftOut, ResultsError

NAME = "replays.Replays.track_allocations"


def write(folder, commit="c" * 40, date=1_795_239_623_000, values=(36.0, None, math.nan, 4.0), of="1", **changes):
    (folder / "vm").mkdir(parents=True, exist_ok=True)
    (folder / "vm" / "machine.json").write_text("{}")
    benchmark = {"param_names": ["trace", "backend"], "unit": "allocations per step", "version": "1"}
    (folder / "benchmarks.json").write_text(json.dumps({"version": 2, NAME: benchmark}))
    cell = [None if values is None else list(values), [["'a'", "'b'"], ["'legacy'", "'new'"]], of]
    content = {
        "version": 2, "commit_hash": commit, "date": date, "params": {"machine": "vm"},
        "result_columns": ["result", "params", "version", "started_at", "samples"], "results": {NAME: cell},
    } | changes  # fmt: skip
    (folder / "vm" / f"{commit[:8]}-env.json").write_text(json.dumps(content))
    return folder


def test_one_row_a_value(tmp_path):
    frame = load_results(write(tmp_path))
    assert tuple(frame.columns) == COLUMNS
    assert frame["params"].tolist() == [
        "trace=a, backend=legacy", "trace=a, backend=new", "trace=b, backend=legacy", "trace=b, backend=new",
    ]  # fmt: skip
    assert frame["state"].tolist() == ["ok", "failed", "skipped", "ok"]
    assert frame["value"].dropna().tolist() == [36.0, 4.0]
    assert set(frame["unit"]) == {"allocations per step"}
    assert frame["date"][0] == pd.Timestamp("2026-11-21 05:40:23", tz="UTC")


def test_a_benchmark_that_failed_as_a_whole(tmp_path):
    assert load_results(write(tmp_path, values=None))["state"].tolist() == ["failed"] * 4


def test_rows_stand_in_the_order_of_the_commits(tmp_path):
    write(tmp_path, commit="a" * 40, date=2_000)
    frame = load_results(write(tmp_path, commit="b" * 40, date=1_000))
    assert list(dict.fromkeys(frame["commit"])) == ["b" * 40, "a" * 40]


def test_another_version_of_a_benchmark_is_another_benchmark(tmp_path):
    assert load_results(write(tmp_path, of="0")).empty


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda folder: (folder / "benchmarks.json").unlink(), "no such file"),
        (lambda folder: (folder / "benchmarks.json").write_text("nothing"), "not JSON, or cut off"),
        (lambda folder: write(folder, results=5), "got int (at $.results)"),
        (lambda folder: write(folder, values=(1.0,)), "other values than parameters"),
        (lambda folder: write(folder, version=1), "of asv's version 1: run 'asv update'"),
        (lambda folder: (folder / "benchmarks.json").write_text('{"version": 1}'), "version 1: run 'asv update'"),
        (lambda folder: write(folder, version=3), "not asv's version 2"),
        (lambda folder: (folder / "vm" / "cccccccc-env.json").write_text("[" * 100_000), "not JSON, or cut off"),
        (lambda folder: write(folder, date="x"), "Expected int, got str (at $.date)"),
        (lambda folder: write(folder, date=10**30), "(at $.date)"),
        (lambda folder: write(folder, commit_hash=["c"]), "got array (at $.commit_hash)"),
        (lambda folder: write(folder, env_name=7), "got int (at $.env_name)"),
        (lambda folder: write(folder, values=(10**400,) * 4), "NumberOutOfRange"),
        (lambda folder: write(folder, commit_hash="$(touch x)"), "(at $.commit_hash)"),
    ],
)
def test_a_bad_file_is_named(tmp_path, spoil, fault):
    spoil(write(tmp_path))
    with pytest.raises(ResultsError, match=re.escape(fault)) as caught:
        load_results(tmp_path)
    assert str(tmp_path) in str(caught.value)
    shown = CliRunner().invoke(main, ["results", str(tmp_path)])
    assert shown.exit_code == 1
    assert fault in shown.stderr


def test_the_table_and_the_csv_show_the_same_values(tmp_path):
    write(tmp_path / "results", commit="a" * 40, date=1_000, values=(30.0, 1.0, math.nan, 4.0))
    folder = str(write(tmp_path / "results"))
    shown = CliRunner().invoke(main, ["results", folder, "--params", "backend=legacy"])
    assert shown.exit_code == 0
    assert "aaaaaaaa" in shown.stdout
    assert [each for each in shown.stdout.split() if each in ("30", "36", "4", "failed")] == ["30", "36"]
    assert "2 values skipped: the files do not say why" in shown.stderr
    written = CliRunner().invoke(main, ["results", folder, "--csv", str(tmp_path / "out.csv")])
    assert written.exit_code == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == 8


def test_the_committed_history_reads():
    frame = load_results(Path(__file__).parents[3] / "benchmarks" / "results")
    frame = frame[frame["machine"] == "shared-2core-epyc"]  # others stay where they were measured
    assert frame["commit"].nunique() >= 5
    assert set(frame["state"]) <= {"ok", "skipped"}
    stale = frame[frame["benchmark"].str.endswith("track_stale_hit_rate_in_small_pool") & (frame["state"] == "ok")]
    assert (stale.loc[stale["params"].str.contains("backend=new"), "value"] == 0).all()
    assert (stale.loc[stale["params"].str.contains("backend=legacy"), "value"] > 0).all()


class TestDurations:
    COLUMNS = ("result", "params", "version", "started_at", "duration")

    def write(self, folder, **durations):
        cell = [[1.0, 2.0, 3.0, 4.0], [["'a'", "'b'"], ["'legacy'", "'new'"]], "1", 0, 0.5]
        results = {NAME: cell, f"{NAME}_more": cell, "cut.off": [None, []]}
        return write(folder, result_columns=list(self.COLUMNS), results=results, durations=durations)

    def test_building_and_benchmarks_apart(self, tmp_path):
        folder = self.write(tmp_path, **{"<build>": 1.9, "<setup_cache replays:85>": 30.0})
        (row,) = load_durations(folder).itertuples()
        assert (row.machine, row.commit, row.build, row.benchmarks) == ("vm", "c" * 40, 1.9, 31.0)

    def test_a_commit_that_was_in_place(self, tmp_path):
        shown = CliRunner().invoke(main, ["results", str(self.write(tmp_path)), "--durations"])
        assert "in place" in shown.output
        assert "1.0" in shown.output

    def test_files_without_durations_are_named(self, tmp_path):
        with pytest.raises(ResultsError, match="durations is missing"):
            load_durations(write(tmp_path))


def test_machines_are_shown_apart(tmp_path):
    folder = write(tmp_path)
    other = json.loads((folder / "vm" / "cccccccc-env.json").read_text())
    other["params"]["machine"] = "laptop"
    other["results"][NAME][0] = [7.0, None, math.nan, 8.0]
    (folder / "laptop").mkdir()
    (folder / "laptop" / "cccccccc-env.json").write_text(json.dumps(other))
    both = CliRunner().invoke(main, ["results", str(folder)]).output
    assert both.index("laptop") < both.index("7") < both.index("vm") < both.index("36")
    one = CliRunner().invoke(main, ["results", str(folder), "--machine", "lap"]).output
    assert "36" not in one
    assert "7" in one


def test_environments_of_one_commit_are_machines_of_their_own(tmp_path):
    timed = {"durations": {}, "result_columns": ["result", "params", "version", "started_at", "duration"]}
    folder = write(tmp_path, env_name="virtualenv-py3.11-torch2.12-numpy2", **timed)
    (folder / "vm" / "cccccccc-env.json").rename(folder / "vm" / "cccccccc-old.json")
    write(folder, values=(1.0, 2.0, 3.0, 4.0), env_name="virtualenv-py3.11-torch2.13-numpy2", **timed)
    frame = load_results(folder)
    values = frame.groupby("machine")["value"].apply(list).to_dict()
    assert values["vm (torch2.13)"] == [1.0, 2.0, 3.0, 4.0]
    assert values["vm (torch2.12)"][0] == 36.0
    machines = {machine for machine, _ in read_asv(folder, LeftOut()).settings()}
    assert machines == set(load_durations(folder)["machine"]) == set(values)
    assert set(frame["environment"].str.rpartition("-")[0]) == {
        "virtualenv-py3.11-torch2.12",
        "virtualenv-py3.11-torch2.13",
    }


def test_an_environment_that_took_anothers_place_continues_its_history(tmp_path):
    write(tmp_path, env_name="py3.11-torch2.12")
    write(tmp_path, commit="d" * 40, env_name="py3.11-torch2.13")
    assert set(load_results(tmp_path)["machine"]) == {"vm"}


class TestMachines:
    def test_what_each_commit_ran_on(self, tmp_path):
        for commit, date, torch in (("a", 1_000, "2.12"), ("b", 3_000, "2.13"), ("c", 2_000, "2.11")):
            write(tmp_path, commit=commit * 40, date=date, params={"machine": "vm", "torch": torch, "num_cpu": 2})
        found = read_asv(tmp_path, LeftOut()).settings()
        assert found["vm", "b" * 40] == {"torch": "2.13", "num_cpu": "2"}
        assert [settings["torch"] for _, settings in sorted(found.items())] == ["2.12", "2.13", "2.11"]

    def test_a_file_that_does_not_say(self, tmp_path):
        with pytest.raises(ResultsError, match="params have no machine"):
            load_results(write(tmp_path, params={}))
