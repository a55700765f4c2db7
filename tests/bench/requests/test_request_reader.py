"""Files of requests that nobody imported: each is refused with what is wrong, and where."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from request_files import PROMPTS, imported, json_lines
from traces import synthetic

from kvbench.requests import reader
from kvbench.requests.opened import open_trace
from kvbench.requests.reader import RequestReader
from kvbench.requests.schema import REQUEST_SCHEMA, RequestHeader
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import HEADER_DIGEST_KEY, HEADER_KEY, TraceError


def header(**values):
    known = {"source_format": "plain", "file": "a", "sha256": "0" * 64, "license": None, "size_unit": "entries"}
    return RequestHeader.create(**known | values)


def written(path, columns=None, text=None, schema=REQUEST_SCHEMA, **options):
    """A file of three requests, with other columns, or another header."""
    good = {"time": [0, 1, 1], "key": [5, 6, 5], "size": [1, 2, 1], "parent": [None, 5, None], "record": [0, 0, 1]}
    text = text if text is not None else json.dumps(json.loads(header().schema().metadata[HEADER_KEY]))
    values = good | (columns or {})
    free = pa.schema([pa.field(each.name, each.type) for each in schema])
    table = pa.Table.from_pydict({name: values[name] for name in free.names}, free)
    pq.write_table(table.replace_schema_metadata({HEADER_KEY: text.encode()}), path, **options)
    return path


def said(values):
    return json.dumps(json.loads(header().schema().metadata[HEADER_KEY]) | values)


def without(name):
    return pa.schema([each for each in REQUEST_SCHEMA if each.name != name])


WRONG = {
    "size 0": ({"columns": {"size": [1, 0, 1]}}, "row 1: size 0: a request has 1 to"),
    "a huge size": ({"columns": {"size": [1, 1, 2**60]}}, "row 2: size 1152921504606846976"),
    "records in disorder": ({"columns": {"record": [0, 3, 2]}}, "row 2: record 2: records come in order"),
    "a negative record": ({"columns": {"record": [-2, 0, 0]}}, "row 0: record -2"),
    "a time out of bounds": ({"columns": {"time": [0, 2**63 - 1, 0]}}, "row 1: time 9223372036854775807"),
    "no key": ({"columns": {"key": [5, None, 6]}}, "row 1: a request without a value in column 'key'"),
    "no column": ({"schema": without("parent")}, "column 'parent' is missing"),
    "another type": ({"schema": pa.schema([*without("size"), pa.field("size", pa.int32())])}, "has type int32"),
    "no JSON": ({"text": "{"}, "the header is not JSON"),
    "another format": ({"text": said({"format": "x"})}, "the header does not say that these are requests"),
    "a later version": ({"text": said({"schema_version": 2})}, "schema version 2, but this kvcache reads version 1"),
    "a field more": ({"text": said({"more": 1})}, "the header is not one of requests"),
    "another unit": ({"text": said({"size_unit": "feet"})}, "the header is not one of requests"),
    "nothing": ({"columns": {name: [] for name in REQUEST_SCHEMA.names}}, "it has no requests: there is nothing"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong(tmp_path, name):
    changes, fault = WRONG[name]
    with pytest.raises(TraceError) as raised:
        RequestReader(written(tmp_path / "t.parquet", **changes)).check()
    assert fault in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("command", [["check"], ["show"], ["replay", "--capacity", "3"], ["export", "--format", "csv"]])
@pytest.mark.parametrize("name", ["size 0", "no column", "no JSON", "a later version"])
def test_every_command_says_so_in_one_line(tmp_path, command, name):
    from kvbench.cli import main

    path = written(tmp_path / "t.parquet", **WRONG[name][0])
    more = ["-o", str(tmp_path / "out.csv")] if command[0] == "export" else []
    done = CliRunner().invoke(main, ["trace", *command, str(path), *more])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def test_a_file_that_was_changed_is_noticed(tmp_path):
    reader = imported(tmp_path / "t.jsonl", json_lines(PROMPTS), "mooncake")
    content = bytearray(reader.path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little")
    places = range(4, len(content) - 8 - footer, 5)  # of the data: a footer has no checksum
    digest = reader.digest()
    for place in places:
        changed = content.copy()
        changed[place] ^= 0x55
        reader.path.write_bytes(changed)
        try:
            again = RequestReader(reader.path)
            again.check()
        except TraceError:
            continue
        assert again.digest() == digest, place


def test_a_group_that_says_more_than_it_holds_is_not_read(tmp_path, monkeypatch):
    path = written(tmp_path / "t.parquet")
    monkeypatch.setattr(reader, "_MOST_ROWS", 2)
    with pytest.raises(TraceError, match=r"row group 0 says that it has 3 rows"):
        RequestReader(path).check()


def test_the_digest_is_of_the_requests(tmp_path):
    one = RequestReader(written(tmp_path / "a.parquet")).digest()
    assert one == RequestReader(written(tmp_path / "b.parquet", row_group_size=1)).digest()
    for name, values in (("parent", [0, 5, None]), ("time", [None, 1, 1]), ("key", [5, 6, 6])):
        assert one != RequestReader(written(tmp_path / "c.parquet", {name: values})).digest()


def test_the_header_has_a_checksum():
    metadata = header().schema().metadata
    assert metadata[HEADER_DIGEST_KEY].decode() == hashlib.sha256(metadata[HEADER_KEY]).hexdigest()


def test_each_kind_has_its_reader(tmp_path):
    assert isinstance(open_trace(written(tmp_path / "requests.parquet")), RequestReader)
    assert isinstance(open_trace(synthetic(tmp_path / "search.parquet")), TraceReader)


def test_a_few_rows_are_enough(tmp_path):
    reader = RequestReader(written(tmp_path / "t.parquet", row_group_size=1))
    assert [batch.num_rows for batch in reader.batches(2)] == [1, 1]
    assert sum(batch.num_rows for batch in reader.batches(99)) == 3
