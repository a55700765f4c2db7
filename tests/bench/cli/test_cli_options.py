"""What every command's options have: a whole help of one line, the default once, --quiet, and one place."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kvbench.cli import console, main
from kvbench.cli.main import COMMANDS
from kvbench.cli.options import finished, option
from kvbench.report import MOST_HISTORIES

WIDTH = 120
TRACE = "benchmarks/traces/cartpole-lightzero-0.2.0-seed0.parquet"


def leaves():
    """Every command that does something, by what is typed."""
    for name in COMMANDS:
        command = getattr(importlib.import_module(f"kvbench.cli.{name}"), name)
        finished(command)
        if isinstance(command, click.Group):
            yield from (((name, each), own) for each, own in command.commands.items())
        else:
            yield (name,), command


LEAVES = dict(leaves())


def shown(*path, width=WIDTH):
    done = CliRunner(env={"COLUMNS": str(width)}).invoke(main, [*path, "--help"], terminal_width=width)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_option_takes_one_line(path):
    options = shown(*path).partition("\nOptions:\n")[2].partition("\n\n")[0].splitlines()
    names = {
        each.opts[0]
        for each in LEAVES[path].get_params(click.Context(LEAVES[path]))
        if each.param_type_name != "argument"
    }
    lines = [line for line in options if re.match(r"  -", line)]
    assert len(lines) == len(names)
    # A name of more than 30 characters has its help below it.
    more = [line for line in options if line not in lines]
    assert all(len(line.split("  ")[0]) == 0 for line in more)
    assert len(more) <= sum(not re.search(r"\S {2,}\S", line.strip()) for line in lines)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_option_says_what_it_does_and_its_default_once(path):
    text = shown(*path)
    for each in LEAVES[path].params:
        if isinstance(each, click.Option):
            assert each.help, each.name
            assert each.help.endswith(".")
            assert not re.search(r"by default|\d<=", each.help, re.IGNORECASE)
    for line in text.splitlines():
        assert line.count("[default") <= 1
        assert "<=" not in line


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_option_says_what_it_takes(path):
    """A file is a FILE in every command, and a commit no TEXT."""
    context = click.Context(LEAVES[path])
    takes = {
        each.opts[0]: each.make_metavar(context)
        for each in LEAVES[path].params
        if isinstance(each, click.Option) and not each.is_flag
    }
    assert "PATH" not in takes.values()
    assert not {name for name, what in takes.items() if what == "TEXT"} & {"--base", "--head", "--since"}


def test_the_default_of_histories_is_the_one_shown():
    shows = {each.name: each.show_default for each in LEAVES[("report",)].params if isinstance(each, click.Option)}
    assert shows["histories"] == str(MOST_HISTORIES)


def test_the_helps_of_commands_are_one_line_each_of_80_characters():
    # click leaves two columns of a terminal free.
    lines = shown(width=78).partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_command_can_be_quiet(path):
    assert "-q, --quiet" in shown(*path)


@pytest.mark.parametrize("group", [name for (name, *more) in LEAVES if more])
@pytest.mark.parametrize("width", [60, 120])
def test_no_help_of_a_command_is_cut(group, width):
    text = " ".join(shown(group, width=width).split())
    assert "..." not in text.replace("[ARGS]...", "")
    for (name, *more), command in LEAVES.items():
        if name == group:
            assert command.get_short_help_str(1000) in text, more


def test_quiet_leaves_results_and_errors(tmp_path):
    said = {}
    for quiet in ([], ["--quiet"]):
        done = CliRunner().invoke(
            main, ["replay", TRACE, "--searches", "1", "--repetitions", "0", "--json", str(tmp_path / "a.json"), *quiet]
        )
        said[bool(quiet)] = done.stderr
        assert done.exit_code == 0
        assert "stale hit" in done.stdout
    assert "all numbers" in said[False]
    assert said[True] == ""
    assert "no such file" in CliRunner().invoke(main, ["trace", "show", str(tmp_path / "none"), "-q"]).stderr
    CliRunner().invoke(main, ["trace", "show", TRACE])
    assert not console.STDERR.quiet


def test_all_come_from_one_module():
    files = [each for each in Path("kvbench/cli").glob("*.py") if each.name not in ("options.py", "main.py")]
    own = {file.name for file in files if re.search(r"click\.(password_|confirmation_)?option\(", file.read_text())}
    assert own == set()


def test_a_number_and_a_choice_are_named_in_short():
    @click.command()
    @option("--threads")
    @option("--geometry", required=False)
    @option("--own", type=click.FloatRange(0, 1), default=0.5, help="Do something.")
    def command(**_):
        """Try."""

    text = CliRunner().invoke(finished(command), ["--help"], terminal_width=WIDTH).stdout
    assert "--own N" in text
    assert "GEOMETRY: cartpole, " in text


def test_results_do_not_import_torch():
    code = "import sys, kvbench.cli.results\nprint({'torch', 'kvcache'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
