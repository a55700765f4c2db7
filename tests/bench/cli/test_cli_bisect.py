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
from kvbench.gate.bisect import CommitGate
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict

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


@pytest.fixture
def gate(repository, monkeypatch):
    """A gate that knows the time of each commit beforehand, and notes which benchmarks it is asked for."""
    names = {git(repository, "rev-parse", f"v{place}"): place for place in range(4)}
    asked = []

    def compare(self, commit, keyword):
        asked.append((names[commit], keyword))
        verdicts = self.verdicts[names[commit]]
        return [Row(f"test_{each}", "time", verdict, 5.0, 9.0, 1.8, 1.7, 1.9) for each, verdict in verdicts.items()]

    monkeypatch.setattr(CommitGate, "compare", compare)
    return asked


def test_a_time_that_is_worse_in_what_is_chosen(repository, gate, monkeypatch):
    all_same = {"store": Verdict.SAME, "lookup": Verdict.SAME}
    verdicts = {1: all_same, 2: all_same, 3: all_same | {"store": Verdict.WORSE}}
    monkeypatch.setattr(CommitGate, "verdicts", verdicts, raising=False)
    result = bisect(repository, "time", "v0", "HEAD", "-k", "store or lookup", "--budget", "60")
    assert result.exit_code == 0, result.output
    assert f"time got worse with {git(repository, 'rev-parse', '--short=8', 'v3')} " in result.stdout
    assert "worse: 5.00 -> 9.00 us, 1.800 (1.700 to 1.900)" in result.stdout
    assert gate[0] == (3, "store or lookup")
    assert {keyword for _, keyword in gate[1:]} == {"test_store"}
    assert "3 commits change the library. " in result.stderr
    assert "then 2 or so, each for 60 s at most" in result.stderr


@pytest.mark.parametrize(
    ("verdict", "code", "said"),
    [
        (Verdict.SAME, NOT_WORSE, "BAD is not worse than GOOD in time (same): there is no commit to look for"),
        (Verdict.BETTER, NOT_WORSE, "BAD is not worse than GOOD in time (better): there is no commit to look for"),
        (Verdict.NOT_DECIDED, ONE_OF_SEVERAL, "it was not decided whether BAD is worse than GOOD in time"),
    ],
)
def test_what_is_not_worse_is_said_at_once(repository, gate, monkeypatch, verdict, code, said):
    monkeypatch.setattr(CommitGate, "verdicts", {3: {"store": verdict}}, raising=False)
    result = bisect(repository, "time", "v0", "v3")
    assert result.exit_code == code
    assert result.stdout.startswith(said)
    assert gate == [(3, "")]


@pytest.mark.slow
def test_interrupted_it_leaves_nothing_behind(tmp_path, repository):
    before = state(repository)
    command = [sys.executable, "-P", "-m", "kvbench", "bisect", "copies", "v0", "v3"]
    process = subprocess.Popen(
        command, cwd=repository, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True
    )
    assert "3 commits change the library" in process.stderr.readline()
    while not list(tmp_path.glob(".kvcache-bisect*/*/head/kvcache")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert state(repository) == before
