"""A disk that fills at any point: what was there stays, nothing unfinished stays, and one line says what to do."""

import os
import shutil
import subprocess

import pytest
from reliability.fork_server import left_over
from traces import TINY, synthetic

from kvbench.record.synthetic import SyntheticSearch
from kvbench.trace.journal import journal_path
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceHeader
from kvbench.trace.writer import TraceWriter

KILOBYTE = 1024


@pytest.fixture(scope="module")
def trace(server):
    return synthetic(server.folder / "trace.parquet", searches=1)


@pytest.fixture(scope="module")
def replayed(server, trace):
    path = server.folder / "replayed.json"
    assert server.run("replay", trace, "--repetitions", 0, "--json", path).code == 0
    return path


@pytest.fixture
def folder(server):
    folder = server.folder / "out"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def contents(folder):
    return {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def commands(folder, trace, replayed):
    return {
        "synthesize": ["trace", "synthesize", folder / "new.parquet", "--geometry", "cartpole", "--searches", 1],
        "replay": ["replay", trace, "--repetitions", 0, "--json", folder / "old.json"],
        "report": ["report", "--trace", trace, "--replay", replayed, "--output", folder / "old-html"],
        "profile": ["profile", trace, "--backend", "new", "--output", folder / "profile"],
        "results": ["results", "benchmarks/results", "--benchmark", "Growth", "--csv", folder / "old.csv"],
    }


SLOW = [pytest.param(each, marks=pytest.mark.slow) for each in ("report", "profile", "results")]
COMMANDS = ["synthesize", "replay", *SLOW]


def refused(done, folder, before):
    """That a command said in one line what to do, and left all as it was."""
    assert done.code == 1, done
    assert "Traceback" not in done.said
    *progress, line = done.lines
    assert line.startswith("Error: ")
    assert str(folder) in line
    assert "file too large" in line.lower() or "no space left on device" in line.lower()
    assert "make room" in line or "raise the limit" in line or "cannot be written" in line
    assert not [each for each in progress if not each.endswith(" ...")]
    assert contents(folder) == before
    assert left_over(folder) == []


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.full), 5 * KILOBYTE])
def test_a_limit_of_a_files_size(server, folder, trace, replayed, command, size):
    """As a full disk, in every size of a file that is written: setrlimit needs no rights."""
    (folder / "old.json").write_text("old")
    (folder / "old-html").mkdir()
    (folder / "old-html" / "notes").write_text("old")
    before = contents(folder)
    arguments = commands(folder, trace, replayed)[command]
    done = server.run(*arguments, file_size=size)
    if done.code:
        refused(done, folder, before)
    assert server.run(*arguments).code == 0


class TestRecorder:
    @pytest.mark.parametrize(("size", "has_events"), [(5 * KILOBYTE, False), (150 * KILOBYTE, True)])
    def test_what_was_flushed_can_be_recovered(self, server, folder, size, has_events):
        path = folder / "new.parquet"
        command = ("record", "synthetic-model", "--output", path, "--geometry", "cartpole", "--searches", 4)
        done = server.run(*command, file_size=size)
        assert done.code == 1
        assert "cannot be written (File too large): make room, then 'kvbench trace recover" in done.lines[-1]
        assert not path.exists()
        recovered = server.run("trace", "recover", path)
        if has_events:
            assert recovered.code == 0, recovered.said
            assert TraceReader(path).check() >= 1000
            assert left_over(folder) == []
        else:
            assert "has no events: nothing was flushed" in recovered.said

    def test_an_error_is_no_silence_when_the_next_flush_would_work(self, tmp_path, monkeypatch):
        search = SyntheticSearch(TINY, 1, 0)
        path = tmp_path / "trace.parquet"
        writer = TraceWriter(path, TraceHeader.create(TINY, search.source, synthetic=True), flush_rows=10)
        fails = iter([True])
        write = writer._stream.write_batch

        class Stream:
            def write_batch(self, batch):
                if next(fails, False):
                    raise OSError(28, os.strerror(28))
                write(batch)

        writer._stream = Stream()
        with pytest.raises(OSError, match="No space left on device"):
            list(search.write(writer))
        with pytest.raises(OSError, match="No space left on device"):
            writer.flush()
        writer.abandon()
        assert journal_path(path).exists()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=False)
    if done.returncode:
        pytest.skip("a disk can only be mounted by root: the limit of a file's size is tested instead")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk can only be mounted by root")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("room", [pytest.param(0, marks=pytest.mark.full), 12])
def test_a_small_disk(server, small_disk, trace, replayed, command, room):
    (small_disk / "old.json").write_text("old")
    (small_disk / "old-html").mkdir()
    (small_disk / "fill").write_bytes(bytes((64 - 4 - room) * KILOBYTE))
    before = contents(small_disk)
    done = server.run(*commands(small_disk, trace, replayed)[command])
    if done.code:
        refused(done, small_disk, before)
    else:
        assert room


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk can only be mounted by root")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk(server, small_disk, trace, replayed, command):
    (small_disk / "old.json").write_text("old")
    before = contents(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = server.run(*commands(small_disk, trace, replayed)[command])
    assert done.code in (1, 2)
    assert "Traceback" not in done.said
    assert "cannot be written" in done.lines[-1] or "is read-only" in done.lines[-1]
    assert str(small_disk) in done.lines[-1]
    assert contents(small_disk) == before
