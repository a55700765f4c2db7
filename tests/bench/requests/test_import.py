"""Files of other systems: what is read of them, and what is wrong with one that is none."""

import bz2
import gzip
import struct

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from request_files import CHATS, PROMPTS, imported, json_lines, oracle_general, rows_of

from kvbench.errors import KvbenchError
from kvbench.requests import integers, prompts, table
from kvbench.requests.formats import FORMATS, import_requests
from kvbench.requests.source import SourceFile
from kvbench.requests.table import Columns


class TestPrompts:
    def test_a_block_is_a_request_and_its_parent_is_the_block_before(self, tmp_path):
        reader = imported(tmp_path / "trace.jsonl", json_lines(PROMPTS), "mooncake")
        assert rows_of(reader) == [
            (0, 0, 512, None, 0),
            (0, 1, 512, 0, 0),
            (0, 2, 276, 1, 0),
            (27_000, 0, 512, None, 1),
            (27_000, 1, 512, 0, 1),
            (3_052_000, 7, 512, None, 2),
            (3_052_000, 2**64 - 1, 88, 7, 2),
        ]
        assert (reader.header.source_format, reader.header.size_unit) == ("mooncake", "tokens")
        assert reader.has_times

    def test_bailian_counts_seconds_and_blocks_of_16_tokens(self, tmp_path):
        rows = rows_of(imported(tmp_path / "trace.jsonl", json_lines(CHATS), "bailian"))
        assert rows == [
            (61_114_000, 10, 16, None, 0),
            (61_114_000, 11, 16, 10, 0),
            (61_114_000, 12, 1, 11, 0),
            (62_500_000, 10, 16, None, 1),
            (62_500_000, 11, 16, 10, 1),
            (62_500_000, 13, 16, 11, 1),
        ]

    def test_blank_lines_marks_and_other_line_ends_are_read_over(self, tmp_path):
        content = b"\xef\xbb\xbf" + json_lines(PROMPTS).replace(b"\n", b"\r\n\r\n").removesuffix(b"\r\n\r\n")
        rows = rows_of(imported(tmp_path / "trace.jsonl", content, "mooncake"))
        plain = rows_of(imported(tmp_path / "plain.jsonl", json_lines(PROMPTS), "mooncake"))
        assert [row[:-1] for row in rows] == [row[:-1] for row in plain]
        assert [row[-1] for row in rows] == [0, 0, 0, 2, 2, 4, 4]

    def test_a_length_that_does_not_fit_its_blocks_is_counted(self, tmp_path):
        path = tmp_path / "trace.jsonl"
        path.write_bytes(json_lines([{**PROMPTS[0], "input_length": 5000}]))
        source = SourceFile(path)
        import_requests(source, "mooncake", tmp_path / "made.parquet", Columns())
        assert source.odd_lengths == 1

    def test_prompts_are_never_divided_by_batches(self, tmp_path, monkeypatch):
        monkeypatch.setattr(prompts, "ROW_GROUP_ROWS", 2)
        whole = rows_of(imported(tmp_path / "trace.jsonl", json_lines(PROMPTS), "mooncake"))
        assert [row[3] for row in whole] == [None, 0, 1, None, 0, None, 7]


class TestOracleGeneral:
    def test_records(self, tmp_path):
        content = oracle_general([(5, 9, 100, 3), (6, 2**64 - 1, 0, -1), (2**32 - 1, 9, 2**32 - 1, 2**63 - 1)])
        reader = imported(tmp_path / "trace.bin", content, "oracle-general")
        assert rows_of(reader) == [(5_000_000, 9, 100, None, 0), ((2**32 - 1) * 10**6, 9, 2**32 - 1, None, 2)]
        assert reader.smallest_size == 100

    def test_a_request_of_size_0_is_left_out_and_counted(self, tmp_path):
        path = tmp_path / "trace.bin"
        path.write_bytes(oracle_general([(0, 1, 0, -1), (0, 2, 1, -1)]))
        source = SourceFile(path)
        assert import_requests(source, "oracle-general", tmp_path / "made.parquet", Columns()) == 1
        assert source.left_out == 1

    @pytest.mark.parametrize("packed", [(gzip.compress, "gz"), (bz2.compress, "bz2"), (None, "zst"), (None, "lz4")])
    def test_it_may_be_compressed(self, tmp_path, packed):
        compress, suffix = packed
        content = oracle_general([(each, each % 7, 10, -1) for each in range(1000)])
        plain = rows_of(imported(tmp_path / "trace.bin", content, "oracle-general"))
        name = {"zst": "zstd"}.get(suffix, suffix)
        smaller = compress(content) if compress else pa.compress(content, name, asbytes=True)
        if suffix == "lz4":
            sink = pa.BufferOutputStream()
            with pa.CompressedOutputStream(sink, "lz4") as stream:
                stream.write(content)
            smaller = sink.getvalue().to_pybytes()
        assert rows_of(imported(tmp_path / f"trace.bin.{suffix}", smaller, "oracle-general")) == plain


class TestIntegers:
    def test_lirs(self, tmp_path):
        reader = imported(tmp_path / "2_pools.trc", b"3\n*\n\n 4 \r\n18446744073709551615\n", "plain")
        assert rows_of(reader) == [(None, 3, 1, None, 0), (None, 4, 1, None, 3), (None, 2**64 - 1, 1, None, 4)]
        assert (reader.header.size_unit, reader.has_times) == ("entries", False)

    def test_arc(self, tmp_path, monkeypatch):
        monkeypatch.setattr(integers, "ROW_GROUP_ROWS", 3)
        rows = rows_of(imported(tmp_path / "P1.lis", b"10 3 0 0\n7 0 0 1\n11 1 0 2\n90 5 0 3\n", "plain"))
        assert [(row[1], row[-1]) for row in rows] == [
            (10, 0), (11, 0), (12, 0), (11, 2), (90, 3), (91, 3), (92, 3), (93, 3), (94, 3),
        ]  # fmt: skip

    @given(st.lists(st.tuples(st.integers(0, 2**63), st.integers(0, 40)), min_size=1, max_size=60), st.integers(1, 50))
    @settings(max_examples=20, deadline=None)
    def test_ranges_are_those_that_a_loop_makes(self, tmp_path_factory, ranges, at_once):
        folder = tmp_path_factory.mktemp("arc")
        wanted = [start + each for start, count in ranges for each in range(count)]
        content = "".join(f"{start} {count} 0 {number}\n" for number, (start, count) in enumerate(ranges))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(integers, "ROW_GROUP_ROWS", at_once)
            if wanted:
                assert [row[1] for row in rows_of(imported(folder / "t.lis", content.encode(), "plain"))] == wanted


class TestCsv:
    def test_columns_are_chosen(self, tmp_path):
        columns = Columns(key=3, time=2, size=5, delimiter=";", has_header=True)
        content = b"a;t;k;x;s\nq;1.5;9;y;64\nq;2;8;z;0\nq;2.25;8;z;32\n"
        reader = imported(tmp_path / "t.csv", content, "csv", columns)
        assert rows_of(reader) == [(1_500_000, 9, 64, None, 0), (2_250_000, 8, 32, None, 2)]
        assert reader.header.settings == {
            "key": 3, "time": 2, "size": 5, "delimiter": ";", "has_header": True, "hashes_keys": False,
        }  # fmt: skip

    def test_sizes_and_times_may_be_missing(self, tmp_path):
        reader = imported(tmp_path / "t.csv", b"4\n5\n4\n", "csv", Columns(key=1, time=0, size=0))
        assert rows_of(reader) == [(None, key, 1, None, record) for record, key in enumerate([4, 5, 4])]
        assert reader.header.size_unit == "entries"

    def test_texts_are_hashed(self, tmp_path):
        columns = Columns(hashes_keys=True)
        reader = imported(tmp_path / "t.csv", b'0,a,1\n0,"b,c",1\n0,a,1\n', "csv", columns)
        keys = [row[1] for row in rows_of(reader)]
        assert keys[0] == keys[2] != keys[1]
        assert reader.header.hashed_keys

    def test_a_last_line_needs_no_end(self, tmp_path):
        rows = [rows_of(imported(tmp_path / f"{each}.csv", b"0,5,1" + b"\n" * each, "csv")) for each in range(3)]
        assert rows[0] == rows[1] == rows[2] == [(0, 5, 1, None, 0)]

    def test_files_are_read_in_pieces(self, tmp_path, monkeypatch):
        monkeypatch.setattr(table, "_BLOCK", 64)
        content = b"".join(b"%d,%d,1\n" % (each, each) for each in range(500))
        assert [row[1] for row in rows_of(imported(tmp_path / "t.csv", content, "csv"))] == list(range(500))


def line(**changes):
    return json_lines([PROMPTS[0], {**PROMPTS[1], **changes}])


WRONG = {
    "mooncake": {
        "cut off": (json_lines(PROMPTS)[:-20], "line 3: "),
        "no JSON": (b'{"timestamp": 0}\nnonsense\n', "line 1: Object missing required field input_length"),
        "no object": (b"[1, 2]\n", "line 1: Expected object, got array"),
        "junk": (bytes(range(256)) * 4, "line 1: "),
        "no ids": (b'{"timestamp": 0, "input_length": 5}\n', "line 1: Object missing required field hash_ids"),
        "a negative id": (line(hash_ids=[1, -1]), "line 2: a hash id is not from 0 to 18,446,744,073,709,551,615"),
        "a huge id": (line(hash_ids=[2**64]), "line 2: a hash id is not from 0 to"),
        "an id of 400 digits": (line(hash_ids=[10**399]), "line 2: "),
        "a text for an id": (line(hash_ids=["7"]), "line 2: Expected int, got str - at $.hash_ids[0]"),
        "half an id": (line(hash_ids=[0.5]), "line 2: Expected int, got float"),
        "a negative time": (line(timestamp=-1), "line 2: Expected float >= 0"),
        "a late time": (line(timestamp=1e300), "line 2: Expected float <= 10"),
        "a negative length": (line(input_length=-5), "line 2: Expected int >= 0"),
        "nested": (b"[" * 100_000 + b"\n", "line 1: "),
        "bailian": (json_lines(CHATS), "line 1: it has a chat_id: give --format bailian"),
        "empty": (b"", "it has no requests: there is nothing to import"),
        "blank": (b"\n \n", "it has no requests: there is nothing to import"),
        "no blocks": (line(hash_ids=[]).splitlines()[1], "it has no requests: there is nothing to import"),
    },
    "bailian": {
        "mooncake": (json_lines(PROMPTS), "line 1: it has no chat_id: give --format mooncake"),
        "a text for a chat": (json_lines([{**CHATS[0], "chat_id": "x"}]), "line 1: Expected int | null, got str"),
    },
    "oracle-general": {
        "cut off": (oracle_general([(0, 1, 1, -1)] * 3)[:-1], "record 2: truncated: it has 23 bytes of 24"),
        "a text": (b"0,1,2\n" * 40, "record 0: "),
        "junk": (struct.pack("<IQIq", 0, 1, 1, 2**50), "is no number of a next request: is the file oracleGeneral?"),
        "empty": (b"", "it has no requests: there is nothing to import"),
        "nothing but size 0": (oracle_general([(0, 1, 0, -1)]), "it has no requests: there is nothing to import"),
    },
    "csv": {
        "a column less": (b"0,1\n0,2\n", "it has no column 3: name the columns with --key-column"),
        "a row less": (b"0,1,1\n0,2\n", "Expected 3 columns, got 2"),
        "a text for a key": (b"0,1,1\n0,abc,1\n", "line 2: 'abc' is no key from 0 to 18,446,744,073,709,551,615"),
        "a negative key": (b"0,-1,1\n", "line 1: '-1' is no key from 0 to"),
        "a huge key": (b"0,18446744073709551616,1\n", "line 1: '18446744073709551616' is no key"),
        "no key": (b"0,,1\n", "line 1: '' is no key"),
        "a negative size": (b"0,1,5\n0,1,-5\n", "line 2: '-5' is no size from 0 to"),
        "a huge size": (b"0,1,99999999999999999999\n", "line 1: '99999999999999999999' is no size"),
        "half a size": (b"0,1,1.5\n", "line 1: '1.5' is no size"),
        "a text for a time": (b"noon,1,1\n", "line 1: 'noon' is no time in seconds"),
        "no number for a time": (b"nan,1,1\n", "line 1: 'nan' is no time in seconds"),
        "a negative time": (b"-1,1,1\n", "line 1: '-1' is no time in seconds"),
        "junk": (bytes(range(128, 256)) * 9, "it has no column "),
        "junk in columns": (b"\xff\xfe,\xff,\x00\n", "line 1: "),
        "empty": (b"", "it has no requests: there is nothing to import"),
    },
    "plain": {
        "a text": (b"1\nabc\n", "line 2: 'abc' is no whole number from 0 to 18,446,744,073,709,551,615"),
        "a negative number": (b"1\n-1\n", "line 2: '-1' is no whole number"),
        "a huge number": (b"18446744073709551616\n", "line 1: '18446744073709551616' is no whole number"),
        "a number of a million digits": (b"9" * 1_000_000, "is no whole number"),
        "half a number": (b"1.5\n", "line 1: '1.5' is no whole number"),
        "two numbers": (b"1 2\n", "line 1: 2 numbers: a line has 1 (LIRS) or 4 (ARC)"),
        "both kinds": (b"1\n1 2 0 0\n", "line 2: 4 numbers, where lines before it have 1"),
        "a range over the end": (b"18446744073709551615 2 0 0\n", "line 1: 2 blocks from 18446744073709551615 on"),
        "an endless range": (b"0 1 0 0\n0 9999999 0 1\n", "line 2: 9999999 blocks from 0 on: at most 1,048,576"),
        "junk": (bytes(range(256)), "line "),
        "empty": (b"*\n", "it has no requests: there is nothing to import"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("form", "name"), [(form, name) for form, cases in WRONG.items() for name in cases])
def test_what_is_wrong_is_one_line_with_its_place(tmp_path, form, name):
    content, fault = WRONG[form][name]
    with pytest.raises(KvbenchError) as raised:
        imported(tmp_path / "t.txt", content, form)
    said = str(raised.value)
    assert fault in said
    assert said.startswith(("t.txt: ", f"{tmp_path}/t.txt: "))
    assert said.isprintable()
    assert len(said) < 500
    assert [each.name for each in tmp_path.iterdir()] == ["t.txt"]


def test_a_line_without_an_end_is_not_read_whole(tmp_path):
    with pytest.raises(KvbenchError, match="line 1: longer than 16,777,216 bytes: is it a file of lines"):
        imported(tmp_path / "t.jsonl", b" " * 2**25, "mooncake")


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_not_compressed_as_its_name_says(tmp_path, form):
    with pytest.raises(KvbenchError, match="its name says that it is compressed with zstd"):
        imported(tmp_path / "t.zst", b"0,1,1\n" * 100, form)


@pytest.mark.parametrize("form", FORMATS)
def test_a_compressed_file_that_is_cut_off(tmp_path, form):
    good = {"mooncake": json_lines(PROMPTS), "bailian": json_lines(CHATS), "plain": b"1\n", "csv": b"0,1,1\n"}
    content = gzip.compress(good.get(form, oracle_general([(0, 1, 1, -1)])) * 3000)
    with pytest.raises(KvbenchError):
        imported(tmp_path / "t.gz", content[: len(content) // 2], form)


@given(st.sampled_from(list(FORMATS)), st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_imported_or_refused(tmp_path_factory, form, content):
    folder = tmp_path_factory.mktemp("any")
    try:
        reader = imported(folder / "t", content, form)
    except KvbenchError:
        return
    assert reader.check() == reader.rows > 0


@pytest.mark.parametrize("key", ["0" * 30 + "7", "18446744073709551615", " 7\t", "0"])
def test_keys_may_have_zeros_and_blanks_around_them(tmp_path, key):
    plain = rows_of(imported(tmp_path / "t.trc", f"1\n{key}\n".encode(), "plain"))
    table = rows_of(imported(tmp_path / "t.csv", f"0,1,1\n0,{key},1\n".encode(), "csv"))
    assert plain[1][1] == table[1][1] == int(key)


@pytest.mark.parametrize("key", ["0x10", "+5", "1_000", "٣", "5.0", "1e3"])
@pytest.mark.parametrize("form", ["csv", "plain"])
def test_what_other_readers_may_take_for_a_number_is_none(tmp_path, key, form):
    with pytest.raises(KvbenchError, match="line 2: "):
        imported(tmp_path / "t", (f"1\n{key}\n" if form == "plain" else f"0,1,1\n0,{key},1\n").encode(), form)
