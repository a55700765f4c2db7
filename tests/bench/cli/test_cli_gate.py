"""``kvbench gate``, end to end on a small repository: verdicts, exit codes, and what it writes."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from gate.tiny_repository import GATES, LIBRARY, THRESHOLDS, commit, edit, git, make_repository

from kvbench.cli import main
from kvbench.cli.gate_table import gate_markdown, gate_table, gate_text
from kvbench.gate.limits import judged_by
from kvbench.gate.processes import GateFixture
from kvbench.gate.session import GateReport
from kvbench.gate.thresholds import Meant, Thresholds, read_thresholds
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict

WORSE, NOT_MEASURED, NOT_DECIDED = 1, 2, 3


def gate(repository, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return CliRunner().invoke(main, ["gate", *map(str, arguments)])


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "repository")


@pytest.fixture(scope="module")
def worse(tmp_path_factory):
    """A gate run on a tree with more copies, and a lookup that is broken."""
    folder = tmp_path_factory.mktemp("worse")
    repository = make_repository(folder / "repository")
    edit(repository, LIBRARY, '"store": 3', '"store": 4')
    edit(repository, LIBRARY, "return kind", 'return None if kind == "lookup" else kind')
    (folder / "summary.md").write_text("# The job\n")
    result = gate(
        repository, "--base", "HEAD", "--budget", 0, "--summary", folder / "summary.md", "--json", folder / "out.json"
    )
    return result, (folder / "summary.md").read_text(), json.loads((folder / "out.json").read_text())


class TestWorse:
    def test_the_exit_code_says_so(self, worse):
        assert worse[0].exit_code == WORSE
        assert isinstance(worse[0].exception, SystemExit)

    def test_the_table_has_what_fails_first_and_names_with_their_brackets(self, worse):
        lines = [line.split() for line in worse[0].stdout.splitlines() if line.strip().startswith("operation[")]
        assert [(line[0], line[1]) for line in lines] == [
            ("operation[lookup]", "failed:"), ("operation[store]", "copies"), ("operation[store]", "time"),
        ]  # fmt: skip
        assert lines[1][2:] == ["3", "4", "+1", "worse"]
        assert lines[2][-2:] == ["not", "decided"]
        assert "worse: 1 not decided, 1 worse, 1 failed (2 pairs of processes, " in worse[0].stdout

    def test_progress_is_on_standard_error(self, worse):
        assert "2 pairs of processes, " in worse[0].stderr
        started = f"building and measuring HEAD ({worse[2]['base'][:8]}) and the working tree ..."
        assert worse[0].stderr.startswith(started)  # the first pair may take minutes
        assert "benchmarks not decided" not in worse[0].stdout

    def test_the_summary_is_appended_as_markdown(self, worse):
        _, summary, numbers = worse
        lines = summary.splitlines()
        assert lines[:3] == ["# The job", f"### the working tree against HEAD ({numbers['base'][:8]}): worse", ""]
        assert lines[3:5] == ["| benchmark | metric | base | head | change | verdict |", "|--|--|--:|--:|--:|--|"]
        assert lines[5].startswith("| operation[lookup] |  |  |  |  | failed: ")
        assert lines[5].endswith(r"lookup returned \| wrong content of all things |")
        assert lines[6] == "| operation[store] | copies | 3 | 4 | +1 | worse |"
        assert lines[7].startswith("| operation[store] | time | 5.00 us | 5.00 us | 1.000 | ")
        assert lines[8] == ""
        assert lines[9].startswith("worse: ")
        assert summary.endswith("\n\n")

    def test_a_comment_has_what_fails_first(self, worse, tmp_path):
        (tmp_path / "gate.json").write_text(json.dumps(worse[2]))
        text = CliRunner().invoke(main, ["comment", "--gate", str(tmp_path / "gate.json")]).stdout
        lines = [line for line in text.splitlines() if line.startswith("|")][2:]
        assert lines[0].startswith("| **failed** | operation[lookup] |")
        assert lines[1].startswith("| **worse** | operation[store] | copies | 3 | 4 | +33.33 % |")
        assert f"    kvbench gate --base {worse[2]['base']}\n" in text

    def test_the_json_has_all_of_it(self, worse):
        numbers = worse[2]
        assert len(numbers["base"]) == 40
        assert numbers["pairs"] == 2
        assert numbers["seconds"] > 0
        rows = {(row["benchmark"], row["metric"]): row for row in numbers["rows"]}
        assert {place: row["verdict"] for place, row in rows.items()} == {
            ("test_operation[lookup]", ""): "failed",
            ("test_operation[store]", "copies"): "worse",
            ("test_operation[store]", "time"): "not decided",
        }
        copies, time = (rows["test_operation[store]", metric] for metric in ("copies", "time"))
        assert (copies["base"], copies["head"], copies["ratio"]) == (3, 4, None)
        assert (time["ratio"], time["pairs"]) == (pytest.approx(1), 2)
        assert "wrong content" in rows["test_operation[lookup]", ""]["reason"]

    def test_the_machine_has_the_library_that_was_measured(self, worse):
        machine = worse[2]["machine"]
        assert machine["kvcache_version"] == "7.5"
        assert machine["kvcache_commit"] == f"{worse[2]['base']}-dirty"
        assert machine["kvcache_compiled"] is False
        assert f"kvcache 7.5 {worse[2]['base'][:8]}-dirty, not compiled" in " ".join(worse[0].stdout.split())


@pytest.mark.slow
class TestExitCodes:
    def test_nothing_worse(self, repository):
        result = gate(repository, "--base", "HEAD", "-k", "store")
        assert result.exit_code == 0
        assert "not worse: 2 same (5 pairs of processes, " in result.stdout
        (line,) = [line.split() for line in result.stdout.splitlines() if "operation[store]" in line]
        assert line[1:] == ["time", "5.00", "us", "5.00", "us", "1.000", "(0.843", "to", "1.000)", "same"]

    def test_not_decided_within_the_budget(self, repository):
        result = gate(repository, "--base", "HEAD", "--budget", 0, "-k", "store")
        assert result.exit_code == NOT_DECIDED
        assert "not decided: 1 same, 1 not decided" in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            (["--no-times"], "git knows no revision 'origin/main'"),
            (["--base", "nonsense"], "git knows no revision 'nonsense'"),
            (["--base", "HEAD", "--thresholds", "nowhere.toml"], "nowhere.toml: cannot be read: "),
            (["--base", "HEAD", "--no-times", "-k", "nonsense"], "no benchmark was selected"),
            (
                ["--base", "HEAD", "--no-times", "-k", "slide"],
                "this commit has no 'slide': there is nothing to compare",
            ),
            (["--base", "HEAD", "--summary", "nowhere/summary.md"], "nowhere/summary.md"),
            (["--base", "HEAD", "--json", f"{THRESHOLDS}/out.json"], "thresholds.toml"),
            (["--base", "HEAD", "--budget", "-1"], "--budget"),
        ],
    )
    def test_what_cannot_be_measured(self, repository, arguments, fault):
        result = gate(repository, *arguments)
        assert result.exit_code == NOT_MEASURED
        assert fault in result.stderr
        assert result.stdout == ""
        assert isinstance(result.exception, SystemExit)

    def test_a_folder_that_is_no_checkout(self, tmp_path):
        result = gate(tmp_path)
        assert result.exit_code == NOT_MEASURED
        assert "run the gate in a checkout of kvcache" in result.stderr

    @pytest.mark.parametrize("missing", ["scipy", "pytest_benchmark"])
    def test_what_is_not_installed(self, repository, monkeypatch, missing):
        gone = ("kvbench.gate", "kvbench.judge", "kvbench.cli.gate_table", missing)
        for name in [name for name in sys.modules if name.startswith(gone)]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, missing, None)
        result = gate(repository, "--base", "HEAD")
        assert result.exit_code == NOT_MEASURED
        assert "the gate needs what 'pip install kvcache[bench]' brings: " in result.stderr
        assert missing in result.stderr


def limits(repository, folder, path=Path(THRESHOLDS)):
    """Those that a gate run with HEAD as its base goes by."""
    limits, loosened = judged_by(*read_thresholds(GateFixture(repository, "HEAD", folder), path, pytest.fail), {})
    assert loosened == []
    return limits


@pytest.mark.slow
class TestThresholds:
    def test_a_bad_file_of_the_working_tree(self, repository):
        edit(repository, THRESHOLDS, '"lower" }', '"down" }')
        result = gate(repository, "--base", "HEAD")
        assert result.exit_code == NOT_MEASURED
        assert f"{THRESHOLDS}: metric 'copies': direction must be one of lower, higher, none" in result.stderr

    def test_a_bad_file_of_the_base_can_be_repaired(self, repository):
        edit(repository, THRESHOLDS, '"lower" }', '"down" }')
        commit(repository)
        edit(repository, THRESHOLDS, '"down" }', '"lower" }')
        result = gate(repository, "--base", "HEAD", "--no-times")
        assert result.exit_code == 0
        assert f"{THRESHOLDS} of the base: metric 'copies'" in result.stderr
        assert "the working tree's limits count, and no meant change as spent" in result.stderr.replace("\n", " ")

    def test_a_meant_change_is_spent_with_its_commit(self, repository, tmp_path):
        with (repository / THRESHOLDS).open("a") as file:
            file.write('[[meant]]\nmetric = "copies"\nabsolute = 1\nwhy = "padding"\n')
        assert limits(repository, tmp_path / "before").meant == (Meant("copies", "padding", absolute=1),)
        commit(repository)
        assert limits(repository, tmp_path / "after").meant == ()
        assert limits(repository, tmp_path / "absolute", repository / THRESHOLDS).meant == ()

    def test_a_limit_that_the_change_loosens(self, repository):
        edit(repository, THRESHOLDS, 'copies = { direction = "lower"', 'copies = { relative = 0.5, direction = "lower"')
        result = gate(repository, "--base", "HEAD", "--no-times")
        assert result.exit_code == WORSE
        assert "relative 0.0 -> 0.5: the base's limit holds" in " ".join(result.stdout.split())

    def test_a_benchmark_that_the_change_removes(self, repository):
        edit(repository, GATES, '["store", "lookup", "slide"]', '["store"]')
        result = gate(repository, "--base", "HEAD", "--no-times")
        assert result.exit_code == WORSE
        assert "worse: 1 same, 1 gone (" in result.stdout

    def test_a_base_without_the_file(self, repository, tmp_path):
        text = (repository / THRESHOLDS).read_text()
        git(repository, "rm", "--quiet", THRESHOLDS)
        commit(repository)
        (repository / THRESHOLDS).write_text(text)
        assert limits(repository, tmp_path / "libraries") == Thresholds.parse(text, THRESHOLDS)


class TestShown:
    ROWS = (
        Row("test_a", "copies", Verdict.SAME, 1, 1),
        Row("test_b", "time", Verdict.SAME, 1234.5, 1234.5, 1.0, 0.9, 1.1, 5),
        Row("test_c", "copies", Verdict.BETTER, 1_000_000, 999_999),
        Row("test_d", "time", Verdict.NOT_DECIDED, 10, 11, 1.1, 0.9, 1.2, 9),
        Row("test_e[a|b]", "time", Verdict.WORSE, 10, 12, 1.2, 1.1, 1.3, 12),
        Row("test_f", "", Verdict.NEW, reason="first\nsecond"),
        Row("test_g", "copies", Verdict.MEANT, 3, 4, reason="padding"),
    )

    def shown(self, *rows):
        return [line.split(" | ") for line in gate_markdown("title", GateReport(list(rows), 9, 60)).splitlines()[4:-3]]

    def test_failing_rows_come_first_then_undecided_ones_and_unchanged_metrics_are_left_out(self):
        assert [cells[0] for cells in self.shown(*self.ROWS)] == ["| e[a\\|b]", "| d", "| b", "| c", "| f", "| g"]

    def test_numbers_have_their_units_and_ratios_their_intervals(self):
        cells = {row[0]: row[1:] for row in self.shown(*self.ROWS)}
        assert cells["| b"] == ["time", "1,234.50 us", "1,234.50 us", "1.000 (0.900 to 1.100)", "same |"]
        assert cells["| c"] == ["copies", "1,000,000", "999,999", "-1", "better |"]
        assert cells["| f"] == ["", "", "", "", "new: first second |"]
        assert cells["| g"] == ["copies", "3", "4", "+1", "meant: padding |"]

    def test_one_sentence_for_all_of_it(self):
        text = gate_text(GateReport(list(self.ROWS), 9, 61.4))
        assert text == "worse: 1 better, 2 same, 1 meant, 1 new, 1 not decided, 1 worse (9 pairs of processes, 61 s)"
        assert gate_text(GateReport(list(self.ROWS[:4]), 9, 60)).startswith("not decided: ")
        assert gate_text(GateReport(list(self.ROWS[:3]), 9, 60)).startswith("not worse: ")

    def test_only_what_fails_is_red(self):
        table = gate_table("title", GateReport(list(self.ROWS), 9, 60))
        assert [row.style for row in table.rows] == ["bold red", "yellow", None, "green", None, None]
