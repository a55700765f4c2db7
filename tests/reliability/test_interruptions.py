"""Ctrl-C, and a signal that asks to end: one line, exit code 128 and the signal's number, nothing half written."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from gate.tiny_repository import make_repository
from reliability.fork_server import left_over
from sweep_claims import Sweeps, files_of, is_alive, wait_until, workers_of
from traces import synthetic

from kvbench.cli import main
from kvbench.cli.main import COMMANDS

HALF = "Interrupted: no file is half written"


@pytest.fixture(scope="module")
def trace(server):
    return synthetic(server.folder / "trace.parquet", searches=3)


def long_command(name, folder, trace):
    """A command that takes long, and its working folder."""
    return {
        "synthesize": (["trace", "synthesize", folder / "new.parquet", "--geometry", "pong", "--searches", 500], None),
        "record": (
            ["record", "synthetic-model", "--output", folder / "new.parquet", "--geometry", "pong", "--searches", 500],
            None,
        ),
        "replay": (["replay", trace, "--repetitions", 2000, "--backend", "new", "--json", folder / "old.json"], None),
        "search": (["search", "--geometry", "cartpole", "--searches", 5000, "--json", folder / "old.json"], None),
        "report": (["report", "--results", "benchmarks/results", "--output", folder / "html"], None),
        "profile": (["profile", trace, "--output", folder / "profile"], None),
        "gate": (["gate", "--base", "HEAD", "--budget", 600, "--json", folder / "old.json"], "repository"),
    }[name]


LONG = ["synthesize", "record", "replay", "search", "report", "profile", "gate"]


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)], ids=["SIGINT", "SIGTERM"]
)
def test_a_long_command(server, trace, tmp_path, name, number):
    folder = server.folder / f"{name}-{number}"
    folder.mkdir()
    (folder / "old.json").write_text("old")
    arguments, place = long_command(name, folder, trace)
    cwd = make_repository(tmp_path / place) if place else None
    seconds = random.Random(f"{name} {number}").uniform(0.5, 1.5)
    done = server.run(*arguments, cwd=cwd, signal_after=(number, seconds))
    assert done.code == 128 + number, done
    line = done.lines[-1]
    journal = folder / "new.parquet.journal"
    if name == "record" and journal.exists():
        advice = f"'kvbench trace recover {journal.with_suffix('')}' makes a trace of what was recorded"
        assert line == f"Interrupted: cut off: {advice}"
        journal.unlink()
    else:
        assert line == HALF
    assert not [each for each in done.lines[:-1] if not each.endswith(("...", "not decided"))]
    assert (folder / "old.json").read_text() == "old"
    assert left_over(server.folder) == []
    assert {each.name for each in folder.iterdir()} <= {"old.json", "html"}
    assert not any((folder / "html").rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, *(pytest.param(each, marks=pytest.mark.full) for each in (0.2, 1.0, 2.0))])
def test_while_the_command_is_imported(seconds):
    command = [sys.executable, "-P", "-m", "kvbench", "trace", "check", os.devnull]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    if process.returncode not in (1, -signal.SIGINT):  # ended by itself; or Python itself had not begun
        assert process.returncode == 128 + signal.SIGINT
        assert said.strip() in ("Interrupted", HALF)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interruption_anywhere_in_a_command_is_one_line(name, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "get_command", interrupted)
    with pytest.raises(SystemExit) as ended:
        main([name])
    assert ended.value.code == 130
    assert capsys.readouterr().err == f"{HALF}\n"


@pytest.mark.full
@pytest.mark.slow
def test_a_sweep_ends_its_workers(tmp_path, trace):
    (tmp_path / "tmp").mkdir()
    plan = tmp_path / "plan.toml"
    plan.write_text(f'trace = "{trace}"\ncapacity = {list(range(3, 200))}\n')
    sweeps = Sweeps(plan, tmp_path / "tmp")
    process = sweeps.start(tmp_path / "out", 2)
    wait_until(lambda: files_of(tmp_path / "out") > 0)
    workers = workers_of(process.pid)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    done = files_of(tmp_path / "out")
    assert said == f"Interrupted: {done} of 394 cells are done, and the same command goes on\n"
    assert len(workers) == 2
    assert not any(is_alive(each) for each in workers)
    assert sweeps.left_over(tmp_path / "out") == []
