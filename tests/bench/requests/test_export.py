"""What is exported is what libCacheSim reads, and what is imported again."""

import json
import random

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from request_files import PROMPTS, imported, json_lines, libcachesim, oracle_general, rows_of
from traces import TINY, spoilt, synthetic, write_events

from kvbench.errors import KvbenchError
from kvbench.requests import oracle_general as records
from kvbench.requests.export import EXPORTS, export_requests
from kvbench.requests.table import Columns
from kvbench.trace.reader import TraceReader

SECOND = 1_000_000


def next_requests(keys):
    """The number of the next request for each key, from 1; -1 where there is none."""
    return [next((later + 1 for later in range(place + 1, len(keys)) if keys[later] == key), -1)
            for place, key in enumerate(keys)]  # fmt: skip


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_next_requests(tmp_path_factory, keys, at_once):
    folder = tmp_path_factory.mktemp("next")
    content = oracle_general([(5, key, 3, following) for key, following in zip(keys, next_requests(keys), strict=True)])
    imported(folder / "t.bin", content, "oracle-general")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_RECORDS", at_once)
        assert export_requests(folder / "t.bin.parquet", "oracle-general", folder / "out.bin") == len(keys)
    assert (folder / "out.bin").read_bytes() == content


@pytest.mark.parametrize("form", EXPORTS)
def test_what_is_exported_is_imported_again(tmp_path, form):
    reader = imported(tmp_path / "t.jsonl", json_lines(PROMPTS), "mooncake")
    export_requests(reader.path, form, tmp_path / "out")
    again = imported(tmp_path / "again", (tmp_path / "out").read_bytes(), form, Columns(has_header=True))
    kept = [(time // SECOND * SECOND if form == "oracle-general" else time, key, size)
            for time, key, size, *_ in rows_of(reader)]  # fmt: skip
    assert [row[:3] for row in rows_of(again)] == kept


def test_a_csv_has_no_times_that_are_not_known(tmp_path):
    reader = imported(tmp_path / "t.trc", b"3\n4\n", "plain")
    export_requests(reader.path, "csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "key,size\n3,1\n4,1\n"


def test_what_has_no_room_in_oracle_general_is_refused(tmp_path):
    reader = imported(tmp_path / "t.csv", b"0,1,1\n0,2,4294967296\n", "csv")
    with pytest.raises(KvbenchError, match=r"request 1 has size 4294967296: .* export as csv"):
        export_requests(reader.path, "oracle-general", tmp_path / "out.bin")
    assert not (tmp_path / "out.bin").exists()


@pytest.mark.parametrize("form", EXPORTS)
def test_a_recorded_search_is_its_lookups_and_stores(tmp_path, form):
    trace = synthetic(tmp_path / "t.parquet")
    events = list(TraceReader(trace).events())
    wanted = [each["key"] for each in events if each["kind"] in ("lookup", "store") and each["key"] is not None]
    assert export_requests(trace, form, tmp_path / "out") == len(wanted) > 50
    columns = Columns(key=1, size=2, time=0, has_header=True)
    rows = rows_of(imported(tmp_path / "again", (tmp_path / "out").read_bytes(), form, columns))
    assert [row[1] for row in rows] == wanted
    assert {row[2] for row in rows} == {TINY.entry_bytes()}


@pytest.mark.slow
def test_libcachesim_reads_both_as_we_do(tmp_path):
    pytest.importorskip("libcachesim", reason="libcachesim has no wheel for this Python")
    reader = imported(tmp_path / "t.jsonl", json_lines(PROMPTS), "mooncake")
    for form in EXPORTS:
        export_requests(reader.path, form, tmp_path / f"out-{form}")
    jobs = [
        {"path": str(tmp_path / "out-oracle-general"), "kind": "ORACLE_GENERAL_TRACE", "has_header": False},
        {"path": str(tmp_path / "out-csv"), "kind": "CSV_TRACE", "has_header": True},
    ]
    wanted = [[time // SECOND, key, size] for time, key, size, *_ in rows_of(reader)]
    assert libcachesim(tmp_path, jobs) == [wanted, wanted]


@pytest.mark.slow
def test_we_read_what_libcachesim_reads(tmp_path):
    pytest.importorskip("libcachesim", reason="libcachesim has no wheel for this Python")
    made = random.Random(5)
    rows = [(time // 3, made.randrange(2**64), made.randrange(3) * 100) for time in range(500)]
    sources = {
        "ORACLE_GENERAL_TRACE": ("oracle-general", "t.bin", oracle_general([(*row, -1) for row in rows])),
        "CSV_TRACE": ("csv", "t.csv", "".join(f"{time},{key},{size}\n" for time, key, size in rows).encode()),
        "PLAIN_TXT_TRACE": ("plain", "t.txt", "".join(f"{key}\n" for _, key, _ in rows).encode()),
    }
    readers = [imported(tmp_path / name, content, form) for form, name, content in sources.values()]
    jobs = [{"path": str(tmp_path / source[1]), "kind": kind, "has_header": False} for kind, source in sources.items()]
    for reader, found in zip(readers, libcachesim(tmp_path, jobs), strict=True):
        wanted = [[(time or 0) // SECOND, key, size] for time, key, size, *_ in rows_of(reader)]
        assert [each for each in found if each[2]] == wanted, reader.path.name
        assert len(wanted) > 300


def test_a_recorded_search_that_is_not_sound_is_refused(tmp_path):
    trace = write_events(tmp_path / "t.parquet", spoilt(7, size=99))
    with pytest.raises(KvbenchError, match="row 7: size 99 is over the context_length"):
        export_requests(trace, "csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def run(*arguments):
    from kvbench.cli import main

    return CliRunner().invoke(main, [str(each) for each in arguments])


class TestCommands:
    def test_from_a_file_to_a_file(self, tmp_path):
        (tmp_path / "t.jsonl").write_bytes(json_lines(PROMPTS))
        trace = tmp_path / "t.parquet"
        done = run("trace", "import", tmp_path / "t.jsonl", "--format", "mooncake", "-o", trace, "--license", "MIT")
        assert (done.exit_code, done.stdout) == (0, f"{trace}: 7 requests of t.jsonl\n")
        shown = json.loads(run("trace", "show", trace).stdout)
        assert (shown["requests"], shown["license"], shown["file"]) == (7, "MIT", "t.jsonl")
        assert run("trace", "check", trace).stdout == f"{trace}: 7 requests, sound\n"
        done = run("trace", "export", trace, "--format", "csv", "-o", tmp_path / "t.csv")
        assert (done.exit_code, done.stdout) == (0, f"{tmp_path}/t.csv: 7 requests of t.parquet\n")

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            (["import", "no.jsonl", "--format", "plain", "-o", "x.parquet"], "no.jsonl: no such file"),
            (["import", ".", "--format", "plain", "-o", "x.parquet"], "is a folder, not a file of requests"),
            (["import", "t.trc", "--format", "plain", "-o", "t.parquet"], "exists: choose another name"),
            (["import", "t.trc", "--format", "plain", "-o", "x", "--header"], "--header is for --format csv"),
            (["import", "t.trc", "--format", "csv", "-o", "x", "--delimiter", "ab"], "'ab': give one character"),
            (["import", "t.trc", "--format", "csv", "-o", "x"], "it has no column 2"),
            (["export", "t.parquet", "--format", "csv", "-o", "t.parquet"], "t.parquet is the trace itself"),
            (["export", "t.trc", "--format", "csv", "-o", "x.csv"], "t.trc: not a Parquet file"),
        ],
    )
    def test_errors_are_one_line(self, tmp_path, monkeypatch, arguments, fault):
        monkeypatch.chdir(tmp_path)
        imported(tmp_path / "t.trc", b"3\n4\n", "plain")
        (tmp_path / "t.trc.parquet").rename("t.parquet")
        done = run("trace", *arguments)
        assert done.exit_code in (1, 2)
        assert fault in done.stderr
        assert done.stderr.rstrip().splitlines()[-1].startswith("Error: ")
        assert not (tmp_path / "x.parquet").exists()

    def test_the_other_replay_says_which_one_is_meant(self, tmp_path):
        reader = imported(tmp_path / "t.trc", b"3\n4\n", "plain")
        done = run("replay", reader.path)
        assert done.exit_code == 1
        assert "requests of another system, and no search: 'kvbench trace replay' replays it" in done.stderr
