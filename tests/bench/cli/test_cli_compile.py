"""``kvbench search --compile``: the same searches, a count of compilations, and a line where torch cannot compile."""

from click.testing import CliRunner

from kvbench.cli import main

SMALL = ["--geometry", "cartpole", "--searches", "3", "--simulations", "4", "--env-num", "2", "--compile"]


def run(expected=0):
    result = CliRunner().invoke(main, ["search", *SMALL])
    assert result.exit_code == expected, result.output
    return result


def test_what_was_compiled_is_counted(monkeypatch):
    monkeypatch.setattr("kvcache.world_model.steps.BACKEND", "eager")
    output = run().output
    assert "legacy: 1 compilations" in output
    assert "new: 1 compilations" in output


def test_without_a_compiler_it_is_a_line(monkeypatch):
    def lookup(name):
        raise RuntimeError("No working C++ compiler found in config")

    monkeypatch.setattr("torch._dynamo.lookup_backend", lookup)
    said = run(expected=1).stderr
    assert said.startswith("Error: compile=True: torch cannot compile here (")
    assert "No working C++ compiler found" in said
    assert len(said.splitlines()) == 1
