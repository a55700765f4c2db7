"""What is no regular file is refused by name wherever a command reads or writes a file: a FIFO would wait for ever."""

import os
import signal
import socket

import pytest
from click.testing import CliRunner
from gate.tiny_repository import make_repository
from traces import synthetic

from kvbench.cli import main

SECONDS = 60  # beyond that a command waits


@pytest.fixture(params=["a FIFO", "a socket", "a device", "a folder"])
def special(tmp_path, request):
    """Something that is no file, and what it is."""
    path = tmp_path / "special"
    if request.param == "a FIFO":
        os.mkfifo(path)
    elif request.param == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif request.param == "a device":
        path.symlink_to("/dev/zero")  # it never ends
    else:
        path.mkdir()
    return path, request.param


def run(*arguments):
    """A command's exit code and what it says, which is one line."""

    def waits(*_):
        raise AssertionError(f"kvbench {arguments[0]} waits")

    before = signal.signal(signal.SIGALRM, waits)
    signal.alarm(SECONDS)
    try:
        result = CliRunner().invoke(main, [str(each) for each in arguments])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


READS = {
    "trace check": ["trace", "check", "SPECIAL"],
    "trace show": ["trace", "show", "SPECIAL"],
    "trace recover": ["trace", "recover", "WITHOUT SUFFIX"],
    "replay": ["replay", "--repetitions", "0", "SPECIAL"],
    "profile": ["profile", "--output", "OUTPUT", "SPECIAL"],
    "report --trace": ["report", "--output", "OUTPUT", "--trace", "SPECIAL"],
    "report --replay": ["report", "--output", "OUTPUT", "--replay", "SPECIAL"],
    "report --benchmark": ["report", "--output", "OUTPUT", "--benchmark", "SPECIAL"],
    "report --training": ["report", "--output", "OUTPUT", "--training", "SPECIAL"],
}


@pytest.mark.parametrize("command", READS)
def test_reading(tmp_path, special, command):
    path, kind = special
    if command == "trace recover":
        path = path.rename(tmp_path / "trace.parquet.journal")
    places = {"SPECIAL": path, "OUTPUT": tmp_path / "output", "WITHOUT SUFFIX": path.with_suffix("")}
    code, said = run(*(places.get(each, each) for each in READS[command]))
    assert code == 1
    line = said.strip().splitlines()[-1]
    assert line.startswith(f"Error: {path}: ")
    assert kind in line or "Is a directory" in line
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("option", ["--json", "--output", "--csv"])
def test_writing(tmp_path, special, option):
    path, kind = special
    trace = synthetic(tmp_path / "trace.parquet")
    command = {
        "--json": ["replay", trace, "--repetitions", "0", "--backend", "new", "--json", path],
        "--output": ["trace", "synthesize", path, "--geometry", "cartpole"],
        "--csv": ["results", "benchmarks/results", "--csv", path],
    }[option]
    before = os.stat(path)
    code, said = run(*command)
    assert code in (1, 2)
    assert "Error: " in said
    assert kind in said or "is a directory" in said or "exists: choose another name" in said
    assert os.path.samestat(before, os.stat(path))


@pytest.mark.parametrize("option", ["--thresholds", "--summary", "--json"])
def test_by_the_gate(tmp_path, special, option, monkeypatch):
    path, _ = special
    monkeypatch.chdir(make_repository(tmp_path / "repository"))
    code, said = run("gate", "--base", "HEAD", "--no-times", option, path)
    assert code == 2
    assert "special" in said
