"""Commands that are killed: every good file is still good or the complete new one, the next run works, nothing is left.

A third of the kills comes at a random moment, the others just before a change of a file, from the first to the last.
One kill of each command is the short form; ``KVBENCH_KILLS=50`` is the full one.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from gate.tiny_repository import GATES, LIBRARY, edit, git, make_repository
from reliability.fork_server import left_over

from kvbench.results.decode import read_json
from kvbench.results.gate import GateResults
from kvbench.results.profile import read_profile_index
from kvbench.results.replay import ReplayResults
from kvbench.trace.reader import TraceReader

KILLS = int(os.environ.get("KVBENCH_KILLS", "1"))


@pytest.fixture
def folder(server):
    """An empty folder for the command's files."""
    for path in server.folder.iterdir():
        if path.name != "tmp":
            shutil.rmtree(path)
    (server.folder / "out").mkdir()
    return server.folder / "out"


@pytest.fixture
def trace(server, folder):
    path = folder / "precious.parquet"
    done = server.run("trace", "synthesize", path, "--geometry", "cartpole", "--searches", 1)
    assert done.code == 0, done.said
    return path


@pytest.fixture(autouse=True)
def counted(request, figure):
    if "killed" in request.function.__code__.co_names:
        figure(f"kills: {request.node.name.removeprefix('test_')}: {KILLS}, each followed by checks")


def killed(server, command, before=lambda: None, **options):
    """Run a command again and again and kill it each time; yields after each."""
    before()
    whole = server.run(*command, **options)
    assert whole.code == 0, whole.said
    yield whole
    rng = random.Random(0)
    aimed = max(1, KILLS * 2 // 3)
    places = [round(number * (whole.changes - 1) / max(1, aimed - 1)) for number in range(aimed)]
    moments = [rng.uniform(0, whole.seconds) for _ in range(KILLS - aimed)]
    for place in places:
        before()
        done = server.run(*command, kill_at=place, **options)
        assert done.code == -signal.SIGKILL, (place, done)
        yield done
    for moment in moments:
        before()
        yield server.run(*command, signal_after=(signal.SIGKILL, moment), **options)
    before()
    again = server.run(*command, **options)
    assert again.code == 0, again.said
    assert left_over(server.folder) == []
    yield again


def sound(path):
    return TraceReader(path).check()


def test_synthesize(server, folder, trace):
    path, digest, whole = folder / "new.parquet", TraceReader(trace).digest(), None
    command = ("trace", "synthesize", path, "--geometry", "cartpole", "--searches", 4)
    for _ in killed(server, command, before=lambda: path.unlink(missing_ok=True)):
        assert TraceReader(trace).digest() == digest
        whole = whole or TraceReader(path).digest()
        assert not path.exists() or TraceReader(path).digest() == whole


def test_recorder(server, folder, trace):
    path, digest, recovered = folder / "new.parquet", TraceReader(trace).digest(), []
    journal = Path(f"{path}.journal")
    command = ("record", "synthetic-model", "--output", path, "--geometry", "cartpole", "--searches", 6)
    for _ in killed(server, command, before=lambda: path.unlink(missing_ok=True)):
        assert TraceReader(trace).digest() == digest
        if journal.exists():
            was_whole = path.exists()
            done = server.run("trace", "recover", path)
            assert (done.code == 0) or "nothing was flushed" in done.said
            if done.code:
                journal.unlink()  # as it says
            else:
                assert ("were there already" in done.printed) == was_whole
        if path.exists():
            recovered.append(sound(path))
    assert recovered[0] == recovered[-1] == max(recovered)


def test_recover(server, folder, trace):
    path, recorded = folder / "new.parquet", folder / "recorded"
    command = ("record", "synthetic-model", "--output", path, "--geometry", "cartpole", "--searches", 1000)
    done = server.run(*command, signal_after=(signal.SIGKILL, 2.0))
    assert done.code == -signal.SIGKILL
    journal = Path(f"{path}.journal").rename(recorded)
    digests = set()

    def before():
        path.unlink(missing_ok=True)
        shutil.copy(recorded, f"{path}.journal")

    for _ in killed(server, ("trace", "recover", path), before):
        if not path.exists():
            assert Path(f"{path}.journal").read_bytes() == journal.read_bytes()
        elif Path(f"{path}.journal").exists():  # both: the next recovery removes the journal and leaves the trace
            written = path.read_bytes()
            assert server.run("trace", "recover", path).code == 0
            assert path.read_bytes() == written
        if path.exists():
            assert sound(path)
            digests.add(TraceReader(path).digest())
    assert len(digests) == 1


def test_replay(server, folder, trace):
    path = folder / "replay.json"
    command = ("replay", trace, "--repetitions", 0, "--backend", "new", "--json", path)
    for _ in killed(server, command):
        assert len(read_json(path, ReplayResults, "replay").replays) == 1


def pages_of(folder):
    """Texts of a report's pages, each of them whole."""
    listed = set((folder / "files.txt").read_text().split())
    files = [each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()]
    finished = {each for each in files if ".tmp" not in each} - {"files.txt"}
    assert finished <= listed
    pages = {each: (folder / each).read_text() for each in finished if each.endswith(".html")}
    for name, text in pages.items():
        assert text.rstrip().endswith("</html>"), name
    return pages


def makers_of(pages):
    """How many reports pages are of."""
    return len({re.search("Made by: [^<]*", text)[0] for text in pages.values()})


@pytest.mark.slow
def test_report(server, folder, trace):
    command = ("report", "--trace", trace, "--output", folder / "html", "--repository", folder)
    found = []
    for _ in killed(server, command):
        pages = pages_of(folder / "html")
        assert "index.html" in pages
        found.append(makers_of(pages))
    # Only a kill between two renames leaves pages of two reports.
    assert found[0] == found[-1] == 1
    print(f"{sum(each > 1 for each in found)} of {len(found)} kills left pages of two reports")


@pytest.mark.slow
def test_profile(server, folder, trace):
    path = folder / "profile"
    command = ("profile", trace, "--searches", 1, "--backend", "new", "--output", path)
    for _ in killed(server, command, before=lambda: shutil.rmtree(path, ignore_errors=True)):
        assert not path.exists() or read_profile_index(path).profiles


@pytest.mark.slow
def test_gate(server, folder):
    repository = make_repository(folder / "repository")
    edit(repository, LIBRARY, '"store": 3', '"store": 2')
    path, summary = folder / "gate.json", folder / "summary.md"
    summary.write_text("# The job\n")
    state = git(repository, "status", "--porcelain")
    command = ("gate", "--base", "HEAD", "--no-times", "-k", "store", "--json", path, "--summary", summary)
    for _ in killed(server, command, cwd=repository):
        assert read_json(path, GateResults, "gate").rows[0]["verdict"] == "better"
        text = summary.read_text()
        assert text.startswith("# The job\n")
        assert text.count("### the working tree") == text.count("pairs of processes")
        assert git(repository, "status", "--porcelain") == state
    assert json.loads(path.read_text())["compiled"] == {"base": [], "head": []}


@pytest.mark.slow
def test_a_gate_leaves_no_process_that_measures(server, folder):
    repository = make_repository(folder / "repository")
    waits = "import os, time, kvcache\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    edit(repository, GATES, "import kvcache\n", waits)
    server.start("gate", "--base", "HEAD", "--no-times", cwd=repository)
    measuring = Path("/proc", wait_for(repository / "pid"))
    assert measuring.exists()
    assert server.end(signal.SIGKILL).code == -signal.SIGKILL
    wait_until(lambda: not measuring.exists())


def wait_for(path):
    """The text of a file, when it is there."""
    wait_until(lambda: path.exists() and path.read_text())
    return path.read_text()


def wait_until(holds, seconds=30):
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds
        time.sleep(0.05)
