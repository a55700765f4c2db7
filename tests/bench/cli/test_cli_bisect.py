"""``kvbench bisect``, end to end on a small repository: the commit, exit codes, and a checkout that is left alone."""

import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from gate.tiny_repository import LIBRARY, THRESHOLDS, commit, edit, git, make_repository

from kvbench.cli import main
from kvbench.cli.bisect import _parse_metric

NOT_WORSE, NOT_MEASURED, ONE_OF_SEVERAL = 1, 2, 3


def bisect(repository, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return CliRunner().invoke(main, ["bisect", *arguments])


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Commits v0 to v4: the library's text, one that cannot be built, one more copy, which is meant, a slower store."""
    folder = make_repository(tmp_path_factory.mktemp("history") / "repository")
    names = [git(folder, "rev-parse", "HEAD")]
    (folder / "kvcache" / "fast.c").write_text("")
    (folder / "setup.py").write_text("raise SystemExit('no such header')\n")
    names.append(commit(folder))
    (folder / "setup.py").unlink()
    edit(folder, LIBRARY, '"store": 3', '"store": 4')
    with (folder / THRESHOLDS).open("a") as file:
        file.write('[[meant]]\nmetric = "copies"\nabsolute = 1\nwhy = "padding"\n')
    names.append(commit(folder))
    edit(folder, LIBRARY, '"store": 5', '"store": 9')
    names.append(commit(folder))
    for place, name in enumerate(names):
        git(folder, "tag", f"v{place}", name)
    (folder / "kvcache" / "draft.py").write_text("not committed")
    return folder


def state(repository):
    """What git knows of the checkout, and what it has on disk."""
    status = git(repository, "status", "--porcelain"), git(repository, "worktree", "list")  # it refreshes the index
    files = {path: path.stat().st_mtime_ns for path in repository.rglob("*") if path.is_file()}
    return status, {path: when for path, when in files.items() if path.name != "index" and path.suffix != ".pyc"}


@pytest.mark.parametrize(
    ("arguments", "code", "fault"),
    [
        (["copies", "v2", "v0"], NOT_MEASURED, "v0 comes before v2: GOOD is the older one"),
        (["copies", "v0", "nonsense"], NOT_MEASURED, "git knows no revision 'nonsense'"),
        (["speed", "v0", "v2"], NOT_MEASURED, "there is no metric 'speed': choose one of "),
        (["operation[store]", "v0", "v2"], 2, "has no metric at its end: give METRIC, or BENCHMARK:METRIC"),
        (["operation[store]:copies", "v0", "v2", "-k", "store"], 2, "give either BENCHMARK:METRIC or -k"),
        (["copies", "v0", "HEAD"], None, ""),
    ],
)
def test_what_cannot_be_asked_is_one_line_without_measuring(repository, monkeypatch, arguments, code, fault):
    def measured(*_, **__):
        raise AssertionError("it was measured")

    monkeypatch.setattr("kvbench.gate.bisect.GateFixture", measured)
    result = bisect(repository, *arguments)
    if code is None:  # this one can
        assert isinstance(result.exception, AssertionError)
        return
    assert result.exit_code == code
    assert fault in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "of", "metric"),
    [
        ("time", "", "time"),
        ("operation[new:slab-pong-store]:time", "operation[new:slab-pong-store]", "time"),
        ("test_operation[store] copies", "test_operation[store]", "copies"),
        (" operation[store] : copies ", "operation[store]", "copies"),
    ],
)
def test_a_metric_may_be_copied_from_the_gates_table(text, of, metric):
    assert _parse_metric(None, None, text) == (of, metric)


@pytest.mark.slow
def test_a_counter_of_one_benchmark(repository):
    before = state(repository)
    result = bisect(repository, "operation[store]:copies", "v0", "v3")
    # v1 cannot be built: it may be that one, as git bisect would say
    v1, v2 = (git(repository, "rev-parse", "--short=8", f"v{place}") for place in (1, 2))
    assert result.exit_code == ONE_OF_SEVERAL, result.output
    assert "3 commits change the library. " in result.stderr
    assert f"skipped: {v1}" in result.stderr
    assert f"copies got worse between {git(repository, 'rev-parse', '--short=8', 'v0')} and {v2}: " in result.stdout
    assert "the head's setup.py failed (exit code 1)" in result.stdout
    assert "worse: 3 -> 4" in result.stdout
    assert state(repository) == before


@pytest.mark.slow
def test_a_time_that_is_worse_in_what_is_chosen(repository):
    result = bisect(repository, "time", "v2", "HEAD", "-k", "store or lookup", "--budget", "60")
    assert result.exit_code == 0, result.output
    assert f"time got worse with {git(repository, 'rev-parse', '--short=8', 'v3')} " in result.stdout
    assert "1 commit changes the library. " in result.stderr


@pytest.mark.slow
def test_what_is_not_worse_is_said_at_once(repository):
    result = bisect(repository, "copies", "v2", "v3")
    assert result.exit_code == NOT_WORSE
    assert result.stdout == "BAD is not worse than GOOD in copies (same): there is no commit to look for\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_behind(tmp_path, repository, number):
    before = state(repository)
    command = [sys.executable, "-P", "-m", "kvbench", "bisect", "copies", "v0", "v3"]
    process = subprocess.Popen(
        command, cwd=repository, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True
    )
    assert "3 commits change the library" in process.stderr.readline()
    while not list(tmp_path.glob(".kvcache-bisect*/*/head/kvcache")):
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert state(repository) == before
