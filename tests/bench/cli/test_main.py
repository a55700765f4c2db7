"""The command group: what it imports, what its help says, and what it says where a package is missing."""

import importlib
import subprocess
import sys

import pytest
from click.testing import CliRunner

from kvbench.__main__ import main as run
from kvbench.cli import main
from kvbench.cli.main import COMMANDS

HEAVY = ("torch", "numpy", "pandas", "pyarrow", "matplotlib", "rich")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from kvbench.__main__ import main\n"
        "sys.argv = ['kvbench', '--help']\n"
        "try: main()\n"
        f"finally: print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *said, imported = done.stdout.splitlines()
    assert imported == "[]"
    text = " ".join(" ".join(said).split())
    for name, line in COMMANDS.items():
        assert f"{name} {line}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_line_of_help_is_the_commands_own(name):
    command = getattr(importlib.import_module(f"kvbench.cli.{name}"), name)
    assert command.get_short_help_str(limit=200) == COMMANDS[name]


def test_an_unknown_command():
    result = CliRunner().invoke(main, ["replays"])
    assert result.exit_code == 2
    assert "No such command 'replays'" in result.stderr


@pytest.mark.parametrize("missing", ["pandas", "ruptures"])
def test_a_package_that_is_not_installed_is_named(missing, monkeypatch, tmp_path, capsys):
    for name in [
        name for name in sys.modules if name.startswith(("kvbench.report", "kvbench.judge", "kvbench.cli.results"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    file = tmp_path / "replay.json"
    file.write_text("{}")
    argv = {"pandas": ["results"], "ruptures": ["report", "--replay", str(file), "--output", str(tmp_path / "html")]}
    monkeypatch.setattr(sys, "argv", ["kvbench", *argv[missing]])
    with pytest.raises(SystemExit) as ended:
        run()
    assert str(ended.value) == (
        f"Error: kvbench needs {missing!r}, which is not installed: pip install 'kvcache[bench]'"
    )


def test_a_fault_of_our_own_is_not_taken_for_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "kvbench.cli.results", None)
    monkeypatch.setattr(sys, "argv", ["kvbench", "results"])
    with pytest.raises(ModuleNotFoundError):
        run()
