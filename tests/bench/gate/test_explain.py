"""Which functions grew, and a command that says so."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from kvbench.cli.explain import explain
from kvbench.gate import explain as gate_explain
from kvbench.gate import processes
from kvbench.gate.explain import Growth, explain_benchmark, grown_functions
from kvbench.measure.instructions import NotCountedError

STORE = "test_operation[new:slab-pong-store]"


def test_the_functions_that_grew_most_are_first_and_equal_ones_are_left_out():
    base = {("store",): 10, ("store", "write"): 5, ("lookup", "write"): 5, ("copy",): 9}
    head = {("store",): 12, ("store", "write"): 5, ("lookup", "write"): 45, ("find",): 1, ("copy",): 9}
    assert grown_functions(base, head) == [Growth("write", 10, 50), Growth("store", 10, 12), Growth("find", 0, 1)]
    assert grown_functions(base, base) == []


class TestBenchmark:
    @pytest.fixture
    def counted(self, tmp_path, monkeypatch):
        """Counts of two processes, as the program writes them."""
        faults = {"base": {}, "head": {}}

        def run(fixture, folder, program, asked, options):
            for process, count in [(7, 40), (8, 44)]:
                text = (
                    f"desc: Trigger: Client Request: {STORE}\nsummary: {count}\nfn=(1) f'python_function_0\n0 {count}\n"
                )
                (folder / f"callgrind.out.{process}.1").write_text(text)
                (folder / f"functions-{process}.json").write_text('["store"]')
            result = folder / "result.json"
            result.write_text(json.dumps({"processes": {"base": 7, "head": 8}, "calls": 4, "faults": faults}))
            return result

        monkeypatch.setattr(gate_explain, "run_counted", run)
        monkeypatch.setattr(gate_explain, "build_frames", lambda folder, environment: folder / "frames.so")
        fixture = SimpleNamespace(
            sides={"base": tmp_path / "base", "head": tmp_path / "head"}, environment={}, checkout=tmp_path,
            commit="c" * 40,
        )  # fmt: skip
        return fixture, faults

    def test_both_sides_of_one_call(self, counted):
        assert explain_benchmark(counted[0], STORE) == ({("store",): 10}, {("store",): 11})

    def test_what_one_side_cannot_run_is_named(self, counted):
        fixture, faults = counted
        faults["base"][STORE] = "LookupError: this commit has no backend"
        with pytest.raises(NotCountedError, match=r"the base cannot run test_operation.*no backend"):
            explain_benchmark(fixture, STORE)

    def test_the_command_prints_a_table_and_writes_the_graph(self, counted, tmp_path, monkeypatch):
        monkeypatch.setattr(processes, "GateFixture", lambda *arguments, **settings: counted[0])
        graph = tmp_path / "graph.svg"
        done = CliRunner().invoke(explain, [STORE.removeprefix("test_"), "HEAD", "--graph", str(graph)])
        assert done.exit_code == 0, done.output
        assert "+1" in done.output
        assert "10 -> 11 (+10.00 %) instructions in a call" in done.output
        assert "10 -&gt; 11 instructions, +10.00 % of all" in graph.read_text()


@pytest.mark.parametrize("arguments", [["fill[x]", "HEAD"], [STORE, "no-such-revision"], [STORE, "HEAD", "nor-this"]])
def test_what_cannot_be_counted_is_said_in_one_line(arguments):
    done = CliRunner().invoke(explain, arguments)
    assert done.exit_code == 2
    assert arguments[-1] in done.output or arguments[0] in done.output
    assert "Traceback" not in done.output
