"""Writing traces: whole files, and journals that survive a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from traces import batch_of, event, good_events, header, leaf_events

from kvbench.trace import writer as writer_module
from kvbench.trace.journal import journal_path
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import COLUMNS, EVENT_SCHEMA, HEADER_KEY, TraceError
from kvbench.trace.writer import TraceWriter, recover_trace, write_trace


def add_all(writer, events):
    return [writer.add(**{name: value for name, value in each.items() if value is not None}) for each in events]


def test_what_goes_in_comes_out(tmp_path):
    path = tmp_path / "trace.parquet"
    top = header(backend="legacy", pools={"init": 3})
    with TraceWriter(path, top) as writer:
        assert add_all(writer, good_events()) == list(range(len(good_events())))
    reader = TraceReader(path)
    assert reader.header == replace(top, source={**top.source, "distinct_keys": 1.0})
    assert reader.rows == len(good_events())
    assert list(reader.events()) == good_events()
    assert os.listdir(tmp_path) == [path.name]


def test_a_trace_without_events_is_a_file(tmp_path):
    path = tmp_path / "trace.parquet"
    TraceWriter(path, header()).close()
    assert list(TraceReader(path).events()) == []


def test_a_header_that_nobody_could_read_is_refused_before_anything_is_recorded(tmp_path):
    with pytest.raises(TraceError, match="the header's created is a text of more than 200 characters"):
        TraceWriter(tmp_path / "trace.parquet", replace(header(), created="x" * 201))
    assert not list(tmp_path.iterdir())


def test_the_file_is_typed_parquet_with_a_json_header(tmp_path):
    path = tmp_path / "trace.parquet"
    write_trace(path, header(), [batch_of(good_events()).cast(EVENT_SCHEMA)])
    schema = pq.read_schema(path)
    assert schema.names == list(COLUMNS)
    assert schema.types == EVENT_SCHEMA.types
    assert schema.metadata[HEADER_KEY].startswith(b"{")
    assert b"pickle" not in path.read_bytes()
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("events_of_a_batch", [1, 5, 7, 18])
def test_row_groups_are_full_whatever_the_batches(tmp_path, monkeypatch, events_of_a_batch):
    monkeypatch.setattr(writer_module, "ROW_GROUP_ROWS", 7)
    path, events = tmp_path / "trace.parquet", good_events()
    batches = [
        batch_of(events[first : first + events_of_a_batch]).cast(EVENT_SCHEMA)
        for first in range(0, len(events), events_of_a_batch)
    ]
    assert write_trace(path, header(), batches) == 18
    metadata = pq.ParquetFile(path).metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [7, 7, 4]
    assert list(TraceReader(path).events()) == events


def test_row_groups_leave_no_mark_on_the_digest(tmp_path, monkeypatch):
    batch = batch_of(good_events()).cast(EVENT_SCHEMA)
    write_trace(tmp_path / "one", header(), [batch])
    monkeypatch.setattr(writer_module, "ROW_GROUP_ROWS", 5)
    write_trace(tmp_path / "many", header(), [batch])
    assert TraceReader(tmp_path / "one").digest() == TraceReader(tmp_path / "many").digest()


def test_no_more_is_held_than_a_row_group(tmp_path, monkeypatch):
    """Of a recorder's many batches, read from its journal."""
    monkeypatch.setattr(writer_module, "ROW_GROUP_ROWS", 50)
    held = []
    original = writer_module._row_groups

    def watched(batches):
        for group in original(batches):
            held.append(group.num_rows)
            yield group

    monkeypatch.setattr(writer_module, "_row_groups", watched)
    events = [each | {"batch": 3 * turn + each["batch"], "node": None} for turn in range(40) for each in good_events()]
    with TraceWriter(tmp_path / "trace", header(), flush_rows=7) as writer:
        add_all(writer, events)
    assert list(TraceReader(tmp_path / "trace").events()) == events
    assert max(held) == 50


def test_leaves_that_a_row_group_divides_are_seen(tmp_path, monkeypatch):
    """The header says the version that they need."""
    for rows in range(1, 17):
        monkeypatch.setattr(writer_module, "ROW_GROUP_ROWS", rows)
        write_trace(tmp_path / "leaves", header(), [batch_of(leaf_events()).cast(EVENT_SCHEMA)])
        assert TraceReader(tmp_path / "leaves").header.schema_version == "1.2"


def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "trace.parquet"
    path.write_text("old")

    class Batches:
        passes = 0

        def __iter__(self):
            self.passes += 1
            yield batch_of(good_events()).cast(EVENT_SCHEMA)
            if self.passes == 2:
                raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_trace(path, header(), Batches())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


class TestRecorder:
    def test_refuses_to_overwrite(self, tmp_path):
        path = tmp_path / "trace.parquet"
        path.write_text("precious")
        with pytest.raises(FileExistsError, match=r"trace\.parquet exists"):
            TraceWriter(path, header())
        assert path.read_text() == "precious"
        assert not journal_path(path).exists()

    def test_names_a_journal_that_is_left_and_the_way_out(self, tmp_path):
        path = tmp_path / "trace.parquet"
        TraceWriter(path, header()).abandon()
        left = journal_path(path).read_bytes()
        with pytest.raises(FileExistsError, match=r"trace\.parquet\.journal is left .*: run .kvbench trace recover"):
            TraceWriter(path, header())
        assert journal_path(path).read_bytes() == left

    def test_names_a_folder_that_cannot_be_written_to(self, tmp_path, monkeypatch):
        monkeypatch.setattr(writer_module.os, "access", lambda *_: False)
        with pytest.raises(PermissionError, match=f"{tmp_path} cannot be written to"):
            TraceWriter(tmp_path / "trace.parquet", header())

    def test_makes_the_folder(self, tmp_path):
        path = tmp_path / "a" / "b" / "trace.parquet"
        TraceWriter(path, header()).close()
        assert path.is_file()

    def test_an_error_in_the_block_leaves_all_events_in_the_journal(self, tmp_path):
        path = tmp_path / "trace.parquet"

        def record():
            with TraceWriter(path, header()) as writer:
                add_all(writer, good_events())
                raise RuntimeError("the search broke")

        with pytest.raises(RuntimeError, match="the search broke"):
            record()
        assert not path.exists()
        assert recover_trace(path) == 18
        assert list(TraceReader(path).events()) == good_events()
        assert not journal_path(path).exists()

    def test_an_error_before_the_first_event_leaves_nothing(self, tmp_path):
        with pytest.raises(RuntimeError), TraceWriter(tmp_path / "trace.parquet", header()):
            raise RuntimeError
        assert os.listdir(tmp_path) == []

    def test_ctrl_c_in_a_flush_leaves_no_half_batch(self, tmp_path, monkeypatch):
        path = tmp_path / "trace.parquet"
        made = writer_module._record_batch

        def interrupted(events):
            signal.raise_signal(signal.SIGINT)
            return made(events)

        with pytest.raises(KeyboardInterrupt), TraceWriter(path, header()) as writer:
            add_all(writer, good_events())
            with monkeypatch.context() as patch:
                patch.setattr(writer_module, "_record_batch", interrupted)
                writer.flush()
        assert recover_trace(path) == len(good_events())

    def test_a_folder_that_disappears_costs_nothing(self, tmp_path):
        path = tmp_path / "folder" / "trace.parquet"
        with TraceWriter(path, header(), flush_rows=5) as writer:
            add_all(writer, good_events())
            shutil.rmtree(path.parent)
        assert list(TraceReader(path).events()) == good_events()
        assert os.listdir(path.parent) == [path.name]

    def test_closing_twice_is_closing_once(self, tmp_path):
        path = tmp_path / "trace.parquet"
        writer = TraceWriter(path, header())
        add_all(writer, good_events())
        writer.close()
        written = path.read_bytes()
        writer.close()
        assert path.read_bytes() == written

    def test_flushes_every_so_many_events(self, tmp_path):
        path = tmp_path / "trace.parquet"
        writer = TraceWriter(path, header(), flush_rows=5)
        sizes = []
        for each in good_events()[:10]:
            add_all(writer, [each])
            sizes.append(journal_path(path).stat().st_size)
        grown = [number for number in range(1, 10) if sizes[number] > sizes[number - 1]]
        assert grown == [4, 9]

    def test_a_kind_that_does_not_exist_is_not_written(self, tmp_path):
        writer = TraceWriter(tmp_path / "trace.parquet", header())
        writer.add("guess", "root", 0, 0, 0, 0)
        with pytest.raises(ValueError, match="guess"):
            writer.flush()


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from traces import good_events, header
from kvbench.trace.writer import TraceWriter
writer = TraceWriter({path!r}, header(), flush_rows=6)
for each in good_events()[:17]:
    writer.add(**{{name: value for name, value in each.items() if value is not None}})
print("written", flush=True)
time.sleep(60)
"""


def test_a_killed_recorder_leaves_what_it_flushed(tmp_path):
    path = tmp_path / "trace.parquet"
    script = KILLED.format(tests=str(Path(__file__).parents[2]), path=str(path))
    recorder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert recorder.stdout.readline() == "written\n"
        recorder.send_signal(signal.SIGKILL)
        assert recorder.wait(timeout=30) == -signal.SIGKILL
    finally:
        recorder.kill()
        recorder.stdout.close()
    assert not path.exists()
    done = subprocess.run(
        [sys.executable, "-m", "kvbench", "trace", "recover", str(path)], capture_output=True, text=True, check=True
    )
    assert "12 events recovered" in done.stdout
    assert list(TraceReader(path).events()) == good_events()[:12]
    assert os.listdir(tmp_path) == [path.name]


class TestRecovery:
    @pytest.fixture
    def journal(self, tmp_path):
        path = tmp_path / "trace.parquet"
        writer = TraceWriter(path, header(), flush_rows=6)
        add_all(writer, good_events())
        writer.abandon()
        return journal_path(path)

    def test_a_journal_cut_anywhere_gives_a_prefix_or_a_clear_error(self, journal, tmp_path):
        whole = journal.read_bytes()
        events, recovered = good_events(), []
        for size in [*range(0, len(whole), 17), *range(len(whole) - 16, len(whole) + 1)]:
            path = tmp_path / "cut.parquet"
            journal_path(path).write_bytes(whole[:size])
            try:
                rows = recover_trace(path)
            except TraceError as error:
                rows, message = -1, str(error)
            if rows == -1:
                assert message.startswith(f"{journal_path(path)}: ")
                assert "nothing was flushed" in message
                assert not path.exists()
                assert journal_path(path).stat().st_size == size
            else:
                assert list(TraceReader(path).events()) == events[:rows]
                path.unlink()
            recovered.append(rows)
        assert recovered == sorted(recovered)
        assert set(recovered) == {-1, 6, 12, 18}

    def test_without_a_journal(self, tmp_path):
        with pytest.raises(TraceError, match=r"there is no journal trace\.journal"):
            recover_trace(tmp_path / "trace")

    def test_beside_an_existing_trace(self, journal):
        path = journal.with_suffix("")
        path.write_text("precious")
        with pytest.raises(FileExistsError, match="move it away"):
            recover_trace(path)
        assert path.read_text() == "precious"
        assert journal.exists()

    def test_of_a_journal_without_events(self, tmp_path):
        TraceWriter(tmp_path / "trace", header()).abandon()
        with pytest.raises(TraceError, match=r"trace\.journal: has no events: nothing was flushed .*; delete it"):
            recover_trace(tmp_path / "trace")
        assert os.listdir(tmp_path) == ["trace.journal"]

    def test_of_a_recorder_that_was_killed_when_the_trace_was_made(self, journal):
        path, left = journal.with_suffix(""), journal.read_bytes()
        assert recover_trace(path) == 18
        written = path.read_bytes()
        journal.write_bytes(left)
        with pytest.raises(FileExistsError, match=r"'kvbench trace recover .*parquet' removes its journal"):
            TraceWriter(path, header())
        assert recover_trace(path) == 18
        assert path.read_bytes() == written
        assert not journal.exists()

    @pytest.mark.parametrize("events", [17, 0])
    def test_beside_a_trace_of_other_events(self, journal, events):
        path, left = journal.with_suffix(""), journal.read_bytes()
        write_trace(path, header(), [batch_of(good_events()[:events]).cast(EVENT_SCHEMA)] if events else [])
        written = path.read_bytes()
        with pytest.raises(FileExistsError, match="move it away"):
            recover_trace(path)
        assert (path.read_bytes(), journal.read_bytes()) == (written, left)

    def test_of_a_fifo(self, tmp_path):
        os.mkfifo(journal_path(tmp_path / "trace"))
        with pytest.raises(TraceError, match="is a FIFO, not the journal of a recorder"):
            recover_trace(tmp_path / "trace")

    def test_of_a_file_that_is_no_journal(self, tmp_path):
        journal_path(tmp_path / "trace").write_text("once upon a time")
        with pytest.raises(TraceError, match="beginning cannot be read"):
            recover_trace(tmp_path / "trace")

    def test_of_an_arrow_stream_without_a_header(self, tmp_path):
        with pa.ipc.new_stream(journal_path(tmp_path / "trace"), EVENT_SCHEMA) as stream:
            stream.write_batch(batch_of(good_events()).cast(EVENT_SCHEMA))
        with pytest.raises(TraceError, match="beginning cannot be read"):
            recover_trace(tmp_path / "trace")


def test_a_file_says_the_lowest_schema_version_that_its_events_need(tmp_path):
    ended = event("clear", "init", 1, 2, 1)
    leaves = leaf_events()
    for name, events, version in (
        ("old", good_events(), 1),
        ("new", [*good_events(), ended], "1.1"),
        ("leaves", leaves, "1.2"),
        ("both", [*leaves, event("clear", "init", 1, 2, 2)], "1.2"),
    ):
        with TraceWriter(tmp_path / name, header()) as writer:
            add_all(writer, events)
        reader = TraceReader(tmp_path / name)
        assert (reader.header.schema_version, list(reader.events())) == (version, events)


def test_a_journal_that_an_older_kvcache_might_misread_is_refused_by_it(tmp_path):
    TraceWriter(tmp_path / "trace", header()).abandon()
    stored = pa.ipc.open_stream(journal_path(tmp_path / "trace")).schema.metadata[HEADER_KEY]
    assert json.loads(stored)["schema_version"] == "1.2"
