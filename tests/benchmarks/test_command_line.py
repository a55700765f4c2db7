"""What is given to the measuring commands is checked before anything is measured, and their help says the defaults."""

import argparse
import sys

import fill
import gathers
import policies
import pytest
import search_leaves
import search_times
from command_line import new_file, positive

COMMANDS = [fill, gathers, policies, search_leaves, search_times]


def said(command, monkeypatch, capsys, *arguments):
    """The exit code, and all that is printed."""
    monkeypatch.setattr(sys, "argv", [command.__name__, *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out + captured.err


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (fill, ["--searches", "0"]),
        (fill, ["--threads", "-1"]),
        (fill, ["--json", "no/such/folder/fill.json"]),
        (fill, ["--json", "."]),
        (gathers, ["--rounds", "0"]),
        (gathers, ["--threads", "0"]),
        (gathers, ["--geometry"]),
        (policies, ["--searches", "0"]),
        (policies, ["--csv", "no/such/folder/policies.csv"]),
        (search_leaves, ["--seeds", "0"]),
        (search_leaves, ["--searches", "x"]),
        (search_leaves, ["--geometry", "chess"]),
        (search_times, ["--processes", "0"]),
        (search_times, ["--searches", "0"]),
        (search_times, ["--geometry", "chess"]),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(command, arguments, monkeypatch, capsys):
    code, output = said(command, monkeypatch, capsys, *arguments)
    assert code == 2
    assert output.splitlines()[-1].partition("error: ")[2].startswith(f"argument {arguments[0]}: ")
    assert "Traceback" not in output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_every_default(command, monkeypatch, capsys):
    code, output = said(command, monkeypatch, capsys, "--help")
    assert code == 0
    options = [line.split()[0] for line in output.splitlines() if line.startswith("  -")]
    assert len(options) > 3
    for option in output.partition("\n  -h, --help")[2].split("\n  --")[1:]:
        words = " ".join(option.split())
        assert "default" in words or option.split()[0] in {
            "forward", "processor-time", "no-check", "markdown", "json", "base", "csv",
        }, words  # fmt: skip


def test_numbers_and_files():
    assert positive("12") == 12
    for text in ("0", "-3", "1.5", "", "1e3"):
        with pytest.raises(argparse.ArgumentTypeError):
            positive(text)
    assert str(new_file("new.json")) == "new.json"
