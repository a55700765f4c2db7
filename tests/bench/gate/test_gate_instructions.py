"""Instructions in the gate: which benchmarks are counted, and what the counts mean."""

from types import SimpleNamespace

import pytest

from kvbench.cli.gate_table import gate_text
from kvbench.gate import instructions
from kvbench.gate.instructions import (
    IMPORT,
    INSTRUCTIONS,
    Counted,
    add_instructions,
    judge_instructions,
    names_to_count,
)
from kvbench.gate.session import GateReport
from kvbench.gate.thresholds import Limit, Meant, Thresholds
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict
from kvbench.measure.instructions import NotCountedError

STORE, HASH = "test_operation[new:slab-pong-store]", "test_operation[new:slab-pong-hash]"
LIMITS = Thresholds(Limit("lower"), {INSTRUCTIONS: Limit("lower", relative=0.005, absolute=100)})


def counted(base, head, *, base_faults=(), head_faults=()):
    return Counted({"base": base, "head": head}, {"base": dict(base_faults), "head": dict(head_faults)})


def judged(base, head, **faults):
    return {row.benchmark: row for row in judge_instructions(counted(base, head, **faults), LIMITS)}


class TestNames:
    def test_operations_small_replays_and_the_import(self):
        names = [
            STORE,
            "test_replay[new:slab-synthetic-pong]",
            "test_fill[new:slab-pong-full]",
            "test_replay[legacy-x]",
        ]
        rows = [Row(name, "copies", Verdict.SAME) for name in [*names, "test_replay[legacy-synthetic-pong]"]]
        assert names_to_count(rows, "") == [*names[:2], IMPORT]

    def test_what_was_not_chosen_is_not_counted(self):
        assert names_to_count([Row(STORE, "copies", Verdict.SAME)], "store") == [STORE]
        assert names_to_count([Row(IMPORT, "time", Verdict.SAME)], "import") == [IMPORT]

    @pytest.mark.parametrize("verdict", [Verdict.NEW, Verdict.GONE, Verdict.FAILED])
    def test_what_one_side_lacks_is_not_counted(self, verdict):
        assert names_to_count([Row(STORE, "", verdict)], "store") == []


class TestVerdicts:
    @pytest.mark.parametrize(
        ("head", "verdict"),
        [
            (1_010_000, Verdict.WORSE),
            (1_004_000, Verdict.SAME),
            (996_000, Verdict.SAME),
            (990_000, Verdict.BETTER),
            (1_000_000, Verdict.SAME),
        ],
    )
    def test_one_per_cent_more_is_worse_and_what_layouts_do_is_no_change(self, head, verdict):
        row = judged({STORE: 1_000_000}, {STORE: head})[STORE]
        assert (row.metric, row.verdict, row.base, row.head) == (INSTRUCTIONS, verdict, 1_000_000, head)

    def test_of_a_short_call_a_python_call_counts(self):
        assert judged({STORE: 3000}, {STORE: 3090})[STORE].verdict is Verdict.SAME
        assert judged({STORE: 3000}, {STORE: 3200})[STORE].verdict is Verdict.WORSE

    def test_a_change_can_be_meant(self):
        meant = Meant(metric=INSTRUCTIONS, why="checks more", relative=0.1)
        limits = Thresholds(LIMITS.time, LIMITS.metrics, (meant,))
        rows = judge_instructions(counted({STORE: 1_000_000}, {STORE: 1_050_000}), limits)
        assert [(row.verdict, row.reason) for row in rows] == [(Verdict.MEANT, "checks more")]

    def test_what_the_head_alone_cannot_do_has_failed(self):
        rows = judged({STORE: 10, HASH: 10}, {STORE: 10, HASH: 4}, head_faults={HASH: "ValueError: no"}.items())
        assert (rows[HASH].verdict, rows[HASH].reason) == (Verdict.FAILED, "ValueError: no")
        assert rows[STORE].verdict is Verdict.SAME

    def test_what_the_base_cannot_do_is_new(self):
        rows = judged({}, {HASH: 4}, base_faults={HASH: "LookupError: this commit has no backend"}.items())
        assert (rows[HASH].verdict, rows[HASH].head) == (Verdict.NEW, 4)

    def test_what_neither_can_do_has_failed(self):
        faults = {HASH: "ImportError: of the harness"}.items()
        row = judged({STORE: 1}, {STORE: 1}, base_faults=faults, head_faults=faults)[HASH]
        assert (row.verdict, row.reason) == (Verdict.FAILED, "ImportError: of the harness")

    def test_two_sides_of_which_nothing_was_counted_have_failed(self):
        rows = judge_instructions(counted({}, {}, base_faults=[("", "no")], head_faults=[("", "no")]), LIMITS)
        assert [(row.verdict, row.reason) for row in rows] == [(Verdict.FAILED, "the head could not be counted: no")]

    def test_a_head_whose_process_dies_has_failed_once(self):
        rows = judge_instructions(counted({STORE: 10, HASH: 4}, {STORE: 10}, head_faults=[("", "killed")]), LIMITS)
        assert [row.reason for row in rows if row.verdict.fails] == ["the head could not be counted: killed"]

    def test_without_the_base_there_is_no_verdict(self):
        with pytest.raises(NotCountedError, match="the base could not be counted: killed"):
            judge_instructions(counted({}, {STORE: 10}, base_faults=[("", "killed")]), LIMITS)


def fixture_with(keyword, checkout, program_of_base=None):
    return SimpleNamespace(keyword=keyword, checkout=checkout, file_of_base=lambda path: program_of_base)


class TestReport:
    def report(self):
        return GateReport([Row(STORE, "copies", Verdict.SAME, 1, 1)], 2, 10.0)

    def test_rows_are_added(self, monkeypatch, tmp_path):
        asked = []

        def count(fixture, names, limit):
            asked.append((names, limit))
            return counted({STORE: 1_000_000}, {STORE: 1_010_000})

        monkeypatch.setattr(instructions, "count_instructions", count)
        report = self.report()
        add_instructions(fixture_with("store", tmp_path), report, LIMITS, lambda text: None)
        assert asked == [([STORE], 0.005)]
        assert report.fails
        assert report.notes == []

    def test_where_none_can_be_counted_the_report_says_why_and_passes(self, monkeypatch, tmp_path):
        def count(fixture, names, limit):
            raise NotCountedError("there is no valgrind on PATH: install it (apt install valgrind)")

        monkeypatch.setattr(instructions, "count_instructions", count)
        report = self.report()
        add_instructions(fixture_with("", tmp_path), report, LIMITS, lambda text: None)
        assert not report.fails
        assert gate_text(report).splitlines()[-1].startswith("no instructions were counted: there is no valgrind")

    @pytest.mark.parametrize(
        ("meant", "verdict"),
        [((), Verdict.GONE), ((Meant(INSTRUCTIONS, "no valgrind left", change="gone"),), Verdict.MEANT)],
    )
    def test_a_program_that_the_change_drops_is_gone(self, tmp_path, meant, verdict):
        report, limits = self.report(), Thresholds(LIMITS.time, LIMITS.metrics, meant)
        add_instructions(fixture_with("store", tmp_path, "import gc"), report, limits, lambda text: None)
        assert [row.verdict for row in report.rows if row.metric == INSTRUCTIONS] == [verdict]
        assert report.notes == []

    def test_a_program_that_raises_has_failed(self, tmp_path, monkeypatch):
        program = tmp_path / instructions.PROGRAM
        program.parent.mkdir(parents=True)
        program.write_text("raise ImportError('no such harness')")
        monkeypatch.setattr(instructions, "require_tools", lambda: None)
        monkeypatch.setattr(instructions, "build_requests", lambda *arguments: tmp_path)
        monkeypatch.setattr(instructions, "valgrind_command", lambda folder, command, options: command)
        fixture = fixture_with("store", tmp_path)
        fixture.sides, fixture.environment = {"base": tmp_path / "base", "head": tmp_path / "head"}, {}
        report = self.report()
        add_instructions(fixture, report, LIMITS, lambda text: None)
        assert "counted.py: ImportError: no such harness" in report.rows[-1].reason
        assert report.fails
