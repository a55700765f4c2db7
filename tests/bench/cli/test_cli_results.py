"""The table of asv's results: it fits, has a line a series and the last commits, and says what it leaves out."""

import csv
import json
import math
from pathlib import Path
from unittest.mock import Mock

import pytest
from asv_files import commit_name, write_results
from click.testing import CliRunner
from rich.console import Console

from kvbench.cli import console, main
from kvbench.cli.results_table import Layout
from kvbench.cli.results_values import HEADLINES, number, ratio
from kvbench.results.asv import load_results, read_asv
from kvbench.results.skipped import skip_reasons

OUR_OWN = "benchmarks/results"


@pytest.fixture(scope="module")
def own():
    """Our own history, read once."""
    return load_results(OUR_OWN)


@pytest.fixture(autouse=True)
def _read_once(own, monkeypatch):
    def read(folder, left_out):
        return Mock(values=lambda: own, settings=dict) if str(folder) == OUR_OWN else read_asv(folder, left_out)

    monkeypatch.setattr("kvbench.cli.results.read_asv", read)


@pytest.fixture
def run(monkeypatch):
    """Run the command on a terminal of so many columns: its result."""

    def at(width, *arguments):
        monkeypatch.setenv("COLUMNS", str(width))
        return CliRunner().invoke(main, ["results", *map(str, arguments)])

    return at


def rows(output):
    """Lines of series."""
    return [line for line in output.splitlines() if line.startswith("  ") and not line.startswith("   ")]


class TestItFits:
    @pytest.mark.parametrize("width", [40, 60, 80, 120])
    def test_our_own_history(self, run, width):
        shown = run(width, OUR_OWN, "--benchmark", "Replays")
        assert shown.exit_code == 0
        assert max(map(len, shown.stdout.splitlines())) <= width
        assert "9ec5ec96" in shown.stdout
        assert len(rows(shown.stdout)) == 20 * 24  # 20 metrics of four traces and six backends

    @pytest.mark.parametrize("width", [40, 80, 120])
    def test_the_last_of_many_commits(self, run, tmp_path, width):
        values = {("x.track_a", "new"): [float(each) for each in range(1, 169)], ("x.track_b", "new"): [1.0] * 168}
        shown = run(width, write_results(tmp_path, values))
        assert max(map(len, shown.stdout.splitlines())) <= width
        assert commit_name(167)[:8] in shown.stdout
        (line,) = [line for line in shown.stdout.splitlines() if line.startswith("x.a")]
        assert " 168 " in line

    def test_first_last_and_ratio_where_three_do_not_fit(self, run, tmp_path):
        values = {("x.track_a", f"{each}-of-the-backends"): [2.0, 3.0, 4.0, 5.0] for each in range(5)}
        shown = run(55, write_results(tmp_path, values)).stdout
        assert all(line.split()[-3:] == ["2", "5", "2.500"] for line in rows(shown))
        assert len(rows(shown)) == 5

    def test_no_two_series_get_one_name(self, run):
        labels = [line[:40] for line in rows(run(80, OUR_OWN, "--benchmark", "track_step_time_over_legacy").stdout)]
        assert len(set(labels)) == len(labels) == 24

    def test_layouts(self):
        assert Layout.fitting(80, 30, 10) == Layout(30, [6, 7, 8, 9], [6, 7, 8, 9])
        assert Layout.fitting(80, 30, 2) == Layout(30, [0, 1], [0, 1])
        assert Layout.fitting(80, 30, 1) == Layout(30, [0], [])
        assert Layout.fitting(80, 45, 10) == Layout(45, [0, 9], list(range(10)))
        assert Layout.fitting(40, 45, 10) == Layout(20, [9], list(range(10)))

    @pytest.mark.parametrize("variable", ["NO_COLOR", ""])
    def test_colours(self, run, variable, monkeypatch):
        colors = None if variable else "standard"
        terminal = Console(width=80, force_terminal=True, color_system=colors, highlight=False, markup=False)
        monkeypatch.setattr(console, "STDOUT", terminal)
        with terminal.capture() as captured:
            CliRunner().invoke(main, ["results", OUR_OWN])
        assert ("\x1b[" in captured.get()) is not bool(variable)


class TestWhatIsShown:
    def test_headlines_first_and_alone(self, run):
        shown = run(120, OUR_OWN)
        headings = [line.partition(",")[0] for line in shown.stdout.splitlines() if line.startswith("Replays")]
        assert headings == [name.replace("track_", "") for name in HEADLINES]
        assert "96 of 5,130 series are shown: --all, --benchmark and --params show more" in shown.stderr

    def test_all(self, run):
        shown = run(120, OUR_OWN, "--all", "--commits", 1)
        assert len(rows(shown.stdout)) == 5130
        assert "are shown" not in shown.stderr

    def test_each_headline_metric_is_measured(self):
        described = json.loads(Path(OUR_OWN, "benchmarks.json").read_text())
        assert all(any(each.endswith(name) for each in described) for name in HEADLINES)

    def test_where_there_are_no_headlines_it_is_the_first_of_them(self, run, tmp_path):
        values = {("x.time_a", f"size {each}"): [1.0, 2.0] for each in range(60)}
        shown = run(80, write_results(tmp_path, values, param="size"))
        assert len(rows(shown.stdout)) == 40
        assert "40 of 60 series are shown" in shown.stderr

    @pytest.mark.parametrize("option", ["--benchmark", "--params", "--machine"])
    @pytest.mark.parametrize("more", [(), ("--csv", "out.csv"), ("--compare", "0" * 39 + "1", "0" * 39 + "2")])
    def test_nothing_matches(self, run, tmp_path, option, more, monkeypatch):
        monkeypatch.chdir(tmp_path)
        shown = run(80, write_results(tmp_path / "r", {("x.track_a", "new"): [1.0, 2.0]}), option, "nope", *more)
        assert shown.exit_code == 1
        assert "contain" in shown.stderr
        assert "'nope': there are " in shown.stderr
        assert not (tmp_path / "out.csv").exists()

    def test_no_machine_has_durations(self, run, tmp_path):
        shown = run(80, write_results(tmp_path, {("x.track_a", "new"): [1.0]}), "--durations", "--machine", "nope")
        assert (shown.exit_code, "there are vm" in shown.stderr) == (1, True)

    def test_nothing_was_measured(self, run, tmp_path):
        shown = run(80, write_results(tmp_path, {("x.track_a", "new"): [math.nan]}))
        assert shown.exit_code == 1
        assert "nothing of it was measured; 1 values skipped" in shown.stderr

    def test_numbers_and_units(self, run, tmp_path):
        values = {
            ("x.track_bytes", "new"): [39_321_600.0, 39_321_601.0],
            ("x.time_a", "new"): [0.000_25, 0.000_5],
            ("x.track_n", "new"): [12_345.0, None],
            ("x.track_p", "new"): [0.0, 3.0],
        }
        units = {"x.track_bytes": "bytes per step", "x.time_a": "seconds", "x.track_n": "operations", "x.track_p": "%"}
        shown = run(80, write_results(tmp_path, values, units=units)).stdout
        found = {line.partition(",")[0]: line.split() for line in shown.splitlines()}
        assert found["x.bytes"][1:] == ["MB", "per", "step", "39.32", "39.32", ">", "1"]
        assert found["x.time_a"][1:] == ["us", "250", "500", "2.000"]
        assert found["x.n"][1:] == ["operations", "12,345", "failed"]
        assert found["x.p"][1:] == ["%", "0", "3", "from", "0"]

    def test_one_number(self):
        assert [number(each) for each in (0.0, 3.0, 12_345.0, 0.123456, 1.5e9, -2.5)] == [
            "0", "3", "12,345", "0.1235", "1.5e+09", "-2.5",
        ]  # fmt: skip
        assert [ratio(*each) for each in ((2, 2), (0, 1), (1, 2), (1, 5000))] == ["=", "from 0", "2.000", "5,000"]
        assert [ratio(1e8, 1e8 + 1), ratio(1e8, 1e8 - 1e4)] == ["> 1", "0.9999"]


class TestCommits:
    def history(self, folder):
        return write_results(folder, {("x.track_a", "new"): [1.0, 2.0, 3.0, 4.0], ("x.track_b", "new"): [5.0] * 4})

    def test_the_last_two(self, run, tmp_path):
        shown = run(120, self.history(tmp_path), "--commits", 2).stdout
        assert "vm: 2 commits" in shown
        assert [line.split()[-3:] for line in shown.splitlines() if line.startswith("x.a")] == [["3", "4", "1.333"]]

    def test_by_name(self, run, tmp_path):
        shown = run(120, self.history(tmp_path), "--commits", f"{commit_name(0)}, {commit_name(3)}").stdout
        assert [line.split()[-3:] for line in shown.splitlines() if line.startswith("x.a")] == [["1", "4", "4.000"]]

    @pytest.mark.parametrize(
        ("names", "fault"),
        [
            ("0", "0 commits are none"),
            ("none-such", "it has no commit 'none-such': the last measured commits are 00000000"),
            ("0000000", "'0000000' may be 000000000000 or 000000000000: give more digits"),
            (f"{commit_name(0)},{commit_name(0)}", "are the same commit"),
        ],
    )
    def test_a_wrong_name(self, run, tmp_path, names, fault):
        shown = run(120, self.history(tmp_path), "--commits", names)
        assert shown.exit_code in (1, 2)
        assert fault in shown.stderr

    def test_a_comparison_has_the_numbers_of_the_file(self, run, own):
        """Of every series, in the order of the increase."""
        shown = run(200, OUR_OWN, "--compare", "8736743c", "9ec5ec96", "--benchmark", "Growth.track_time")
        frame = own[own["benchmark"].str.endswith("Growth.track_time") & (own["state"] == "ok")]
        before, after = (
            frame[frame["commit"].str.startswith(name)].set_index("params")["value"] for name in ("8736", "9ec5")
        )
        expected = [ratio(*each) for each in zip(before, after[before.index], strict=True)]
        found = [line.split()[-1] for line in rows(shown.stdout)]
        assert sorted(found) == sorted(each for each in expected if each != "=")
        assert found == sorted(found, key=float, reverse=True)
        assert f"{len(found)} of {len(before)} times differ" in shown.stderr
        assert "'kvbench gate --base 8736743c' judges them" in shown.stderr

    def test_the_other_way_round(self, run, tmp_path):
        shown = run(120, self.history(tmp_path), "--compare", commit_name(2), commit_name(0))
        assert [line.split()[-3:] for line in shown.stdout.splitlines() if line.startswith("x.a")] == [
            ["3", "1", "0.333"]
        ]
        assert "x.b" not in shown.stdout

    def test_nothing_differs(self, run, tmp_path):
        folder = write_results(tmp_path, {("x.track_b", "new"): [5.0] * 2}, units={"x.track_b": "bytes"})
        shown = run(120, folder, "--compare", commit_name(0), commit_name(1))
        assert (shown.exit_code, shown.stdout) == (0, "")
        assert "0 of 1 counters differ" in shown.stderr

    def test_compared_commits_are_all(self, run, tmp_path):
        shown = run(120, self.history(tmp_path), "--compare", commit_name(0), commit_name(1), "--commits", 1)
        assert (shown.exit_code, "leave --commits and --durations out" in shown.stderr) == (2, True)

    def test_the_csv_has_them_only(self, run, tmp_path):
        folder, file = self.history(tmp_path / "results"), tmp_path / "out.csv"
        run(120, folder, "--commits", 1, "--csv", file)
        with open(file, newline="") as opened:
            assert [row["value"] for row in csv.DictReader(opened)] == ["4.0", "5.0"]

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("python", "python 3.11 to 3.12"),
            ("cpu", "cpu 3.11 to 3.12"),
            ("OMP_NUM_THREADS", "OMP_NUM_THREADS 3.11 to 3.12"),
        ],
    )
    def test_another_environment(self, run, tmp_path, name, change):
        """Of what a commit was measured in, whatever it is."""
        folder = self.history(tmp_path)
        for place, value in enumerate(("3.11", "3.11", "3.12", "3.12")):
            path = folder / "vm" / f"{commit_name(place)}-env.json"
            content = json.loads(path.read_text())
            content["params"][name] = value
            path.write_text(json.dumps(content))
        shown = run(120, folder)
        assert f"vm: environment changes with {commit_name(2)[:8]}: {change}; no ratio" in shown.stderr
        assert [line.split()[-1] for line in shown.stdout.splitlines() if line.startswith("x.a")] == ["1.333"]


class TestSkipped:
    def test_our_own(self, run):
        lines = run(120, OUR_OWN).stderr.splitlines()
        assert lines[-2:] == [
            "82,080 values skipped: no such device: cuda (16 of 16 commits)",
            "21,210 values skipped: no such backend in that commit: new:paged, new:paged-resident, new:slab "
            "(7 of 16 commits)",
        ]

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({("new", "cpu"): [1.0], ("new", "cuda"): [math.nan]}, "no such device: cuda"),
            ({("new", "cpu"): [1.0], ("old", "cpu"): [math.nan]}, "no such backend in that commit: old"),
            ({("new", "cpu"): [math.nan], ("old", "cuda"): [math.nan]}, "nothing was measured at that commit"),
            ({("new", "cpu"): [1.0], ("old", "cuda"): [1.0], ("new", "cuda"): [math.nan]}, "the files do not say why"),
        ],
    )
    def test_reasons(self, tmp_path, values, reason):
        known = {(backend, device) for backend in ("new", "old") for device in ("cpu", "cuda")}
        values = dict.fromkeys(known & {*values}, None) | values
        backends, devices = ({place[each] for place in values} for each in (0, 1))
        whole = {(one, two): values.get((one, two), [math.nan]) for one in backends for two in devices}
        folder = write_results(
            tmp_path, {("x.track_a", place): each for place, each in whole.items()}, param=("backend", "device")
        )
        frame = load_results(folder)
        assert reason in skip_reasons(frame, frame)[0].why

    def test_another_parameter(self, tmp_path):
        folder = write_results(tmp_path, {("x.a", "int"): [1.0], ("x.a", "object"): [math.nan]}, param="dtype")
        frame = load_results(folder)
        assert skip_reasons(frame, frame) == [(1, "nothing has dtype=object", "1 of 1 commits")]
