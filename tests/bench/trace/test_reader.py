"""Reading traces, and what bad ones are told: one clear error each, on the command line as well."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from traces import (
    COMMITTED,
    TINY,
    batch_of,
    event,
    good_events,
    header,
    leaf_events,
    moved,
    spoilt,
    synthetic,
    write_events,
    write_table,
)

from kvbench.cli import main
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import HEADER_KEY, NO_ENV, TraceError
from kvbench.trace.steps import read_steps

PARQUET_BUT_NO_TRACE = {b"other": b"{}"}


def check(path):
    return TraceReader(path).check()


def assert_refused(path, fault, row=None):
    """One TraceError names file, row and fault; the command line prints it and nothing else."""
    with pytest.raises(TraceError) as caught:
        check(path)
    assert caught.value.path == path
    assert caught.value.row == row
    where = f"{path}: " if row is None else f"{path}: row {row}: "
    assert str(caught.value).startswith(where)
    assert fault in str(caught.value)
    for command in (["trace", "check", str(path)], ["replay", "--repetitions", "0", str(path)]):
        result = CliRunner().invoke(main, command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"Error: {caught.value}\n"


def test_a_good_trace_is_sound(tmp_path):
    assert check(write_events(tmp_path / "trace.parquet", good_events())) == len(good_events())


def test_events_do_not_depend_on_the_batches_they_are_read_in(tmp_path):
    table = pa.Table.from_batches([batch_of(good_events())]).replace_schema_metadata(
        {HEADER_KEY: header().to_json().encode()}
    )
    pq.write_table(table, tmp_path / "one")
    pq.write_table(table, tmp_path / "many", row_group_size=1)
    one, many = TraceReader(tmp_path / "one"), TraceReader(tmp_path / "many")
    assert pq.ParquetFile(tmp_path / "many").num_row_groups == len(good_events())
    assert len(list(many.batches())) == len(good_events())
    assert list(one.events()) == list(many.events()) == good_events()
    assert one.digest() == many.digest()


@pytest.mark.parametrize(
    ("row", "values"),
    [
        (9, {"key": 9}),
        (5, {"hit": False}),
        (5, {"hit": None}),
        (12, {"depth": 3}),
        (14, {"size": 2}),
        (4, {"search": 1}),
    ],
)
def test_every_value_counts_in_the_digest(tmp_path, row, values):
    good = TraceReader(write_events(tmp_path / "good", good_events()))
    other = TraceReader(write_events(tmp_path / "other", spoilt(row, **values)))
    assert good.digest() != other.digest()


def test_the_header_does_not_count_in_the_digest(tmp_path):
    one = write_events(tmp_path / "one", good_events())
    other = replace(header(), created="long ago")
    two = write_events(tmp_path / "two", good_events(), {HEADER_KEY: other.to_json().encode()})
    assert TraceReader(one).digest() == TraceReader(two).digest()


def test_the_committed_trace_is_sound():
    reader = TraceReader(COMMITTED)
    assert reader.check() == reader.rows == 93_654
    assert reader.digest() == "23fa50f3a3266a22a5f605adcfd293f51d2398ab68849fa83ae881a77b68e7af"


class TestFilesThatAreNoTrace:
    def test_no_such_file(self, tmp_path):
        assert_refused(tmp_path / "absent", "no such file")

    def test_a_folder(self, tmp_path):
        assert_refused(tmp_path, "is a folder")

    def test_a_file_taken_for_a_folder(self, tmp_path):
        (tmp_path / "file").write_text("text")
        assert_refused(tmp_path / "file" / "trace.parquet", "")

    def test_an_empty_file(self, tmp_path):
        (tmp_path / "empty").touch()
        assert_refused(tmp_path / "empty", "the file is empty")

    @pytest.mark.parametrize("text", ["x", "key,parent\n1,2\n" * 1000])
    def test_text(self, tmp_path, text):
        (tmp_path / "text").write_text(text)
        assert_refused(tmp_path / "text", "not a Parquet file")

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
    def test_a_truncated_file(self, tmp_path, share):
        whole = write_events(tmp_path / "whole", good_events()).read_bytes()
        (tmp_path / "cut").write_bytes(whole[: int(len(whole) * share)])
        assert_refused(tmp_path / "cut", "truncated")

    @pytest.mark.parametrize("size", [4, 5, 8, -1, -4, -5, -8, -9])
    def test_a_file_truncated_near_its_ends(self, tmp_path, size):
        whole = write_events(tmp_path / "whole", good_events()).read_bytes()
        (tmp_path / "cut").write_bytes(whole[:size])
        assert_refused(tmp_path / "cut", "")

    def test_parquet_without_a_header(self, tmp_path):
        path = write_events(tmp_path / "other", good_events(), PARQUET_BUT_NO_TRACE)
        assert_refused(path, "a Parquet file without a trace header")

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (b"{", "the header is not JSON"),
            (header().to_json().encode().replace(b'"schema_version": 1', b'"schema_version": 2'), "schema version 2"),
            (header().to_json().encode().replace(b'"env_num": 2', b'"env_num": 0'), "env_num must be a positive"),
            (header().to_json().encode().replace(b'"embed_dim": 16', b'"embed_dim": 15'), "embed_dim 15"),
        ],
    )
    def test_a_bad_header(self, tmp_path, text, fault):
        assert_refused(write_events(tmp_path / "bad", good_events(), {HEADER_KEY: text}), fault)

    @pytest.mark.parametrize("column", ["kind", "key", "depth"])
    def test_a_missing_column(self, tmp_path, column):
        table = pa.Table.from_batches([batch_of(good_events())]).drop_columns([column])
        assert_refused(write_table(tmp_path / "bad", table), f"column '{column}' is missing")

    @pytest.mark.parametrize(("column", "kind"), [("key", pa.int64()), ("env", pa.string()), ("kind", pa.string())])
    def test_a_column_of_another_type(self, tmp_path, column, kind):
        table = pa.Table.from_batches([batch_of(good_events())])
        index = table.schema.get_field_index(column)
        table = table.set_column(index, column, table.column(column).cast(kind))
        assert_refused(write_table(tmp_path / "bad", table), f"column '{column}' has type {kind}, not ")

    def test_a_further_column_does_no_harm(self, tmp_path):
        table = pa.Table.from_batches([batch_of(good_events())])
        table = table.append_column("remark", pa.array(["x"] * table.num_rows))
        assert list(TraceReader(write_table(tmp_path / "more", table)).events()) == good_events()


def test_a_damaged_byte_is_found_out_or_harmless(tmp_path):
    whole = synthetic(tmp_path / "whole").read_bytes()
    refused = []
    for place in range(4, len(whole), 29):
        path = tmp_path / "damaged"
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            check(path)
        except TraceError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(message.startswith(f"{path}: ") for message in refused)


def test_a_damaged_row_group_is_named(tmp_path):
    path = write_events(tmp_path / "trace", good_events())
    column = pq.ParquetFile(path).metadata.row_group(0).column(6)
    whole = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    whole[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(whole)
    assert_refused(path, "row group 0 (rows 0 to 17) cannot be read: it is damaged")


# What each spoilt trace is called, its events, the row at fault, and what is said of it.
BROKEN_RULES = {
    "unknown kind": (spoilt(5, kind="guess"), 5, "unknown kind 'guess': one of lookup, generate"),
    "no kind": (spoilt(5, kind=None), 5, "unknown kind None"),
    "unknown scope": (spoilt(5, scope="leaf"), 5, "a lookup has scope 'leaf': one of root, node"),
    "scope of another kind": (spoilt(9, scope="node"), 9, "a store has scope 'node': one of init, recur"),
    "null env": (spoilt(7, env=None), 7, "assemble without a value in column 'env'"),
    "null batch": (spoilt(7, batch=None), 7, "without a value in column 'batch'"),
    "null search": (spoilt(7, search=None), 7, "without a value in column 'search'"),
    "null simulation": (spoilt(7, simulation=None), 7, "without a value in column 'simulation'"),
    "lookup without key": (spoilt(5, key=None), 5, "a lookup without a value in column 'key'"),
    "generate without key": (spoilt(13, key=None), 13, "a generate without a value in column 'key'"),
    "assemble without size": (spoilt(7, size=None), 7, "without a value in column 'size'"),
    "store without key": (spoilt(9, key=None), 9, "a store without a value in column 'key'"),
    "store without tokens": (spoilt(9, tokens=None), 9, "a store without a value in column 'tokens'"),
    "env too large": (spoilt(7, env=2), 7, "env 2: the header has environments 0 to 1"),
    "env negative": (spoilt(7, env=-1), 7, "env -1: the header has environments 0 to 1"),
    "batch negative": (spoilt(0, batch=-1), 0, "a negative batch"),
    "search negative": (spoilt(7, search=-1), 7, "a negative batch, search"),
    "simulation before the root": (spoilt(7, simulation=-2), 7, "a negative batch, search or simulation"),
    "size negative": (spoilt(7, size=-1), 7, "size -1 is negative"),
    "size over the context": (spoilt(7, size=9), 7, "size 9 is over the context_length of 8"),
    "no new tokens": (spoilt(9, tokens=0), 9, "0 new tokens"),
    "more new tokens than fit": (spoilt(9, tokens=9), 9, "9 new tokens"),
    "context overflows": (spoilt(15, size=7), 16, "2 new tokens on a batch of 7 exceed the context_length of 8"),
    "depth negative": (spoilt(5, depth=-1), 5, "depth -1 is negative"),
    "parent never looked up": (spoilt(9, parent=77), 9, "the parent key 0x000000000000004d, which no lookup of env 0"),
    "no parent after a lookup": (spoilt(9, parent=None), 9, "the store names no parent, which no lookup"),
    "parent of another env": (spoilt(9, parent=101), 9, "which no lookup of env 0 in this batch defines"),
    "parent without any lookup": (good_events()[:5] + good_events()[7:], 7, "which no lookup of env 0"),
    "key stored before it is looked up": (
        moved(9, 5),
        5,
        "the parent key 0x0000000000000064, which no lookup of env 0",
    ),
    "node stored later": (spoilt(5, node=9), 5, "the node it means, row 9, is no store before this row"),
    "node that is no store": (spoilt(5, node=1), 5, "the node it means, row 1, is no store before this row"),
    "node negative": (spoilt(5, node=-3), 5, "the node it means, row -3, is no store before this row"),
    "node of another key": (
        spoilt(5, node=3),
        5,
        "it looks up key 0x0000000000000064 but means row 3, which stored 0x0000000000000065",
    ),
    "generate of a key not looked up": (spoilt(13, key=998), 13, "which env 0 did not look up in this batch"),
    "batches out of order": (spoilt(11, batch=0), 11, "batch 0 after batch 1: batches come in order"),
    "lookup after a store": (moved(6, 9), 9, "a lookup after a store of the same batch"),
    "assemble before lookup": (moved(7, 5), 6, "lookup after a"),
    "two lookups of an env": (spoilt(6, env=0), 6, "a second lookup of env 0 in batch 1"),
    "two stores of an env": (spoilt(10, env=0, parent=100), 10, "a second store of env 0 in batch 1"),
    "unequal tokens": (spoilt(10, tokens=1), 10, "1 new tokens, but the batch's rows get 2"),
    "stored but not assembled": (
        [each for number, each in enumerate(good_events()) if number != 8],
        9,
        "env 1 stores in batch 1 but was not assembled in it",
    ),
}


# The same of leaves, in traces that may have them.
BROKEN_LEAVES = {
    "a simulation twice": (7, {"simulation": 0}, 7, "a second lookup of env 0 and simulation 0 in batch 1"),
    "stored twice": (15, {"simulation": 0}, 15, "a second store of env 0 and simulation 0 in batch 1"),
    "another leaf's parent": (
        15,
        {"parent": 101},
        15,
        "names the parent key 0x0000000000000065, which no lookup of env",
    ),
    "a number left out": (
        8,
        {"simulation": 2},
        8,
        "simulation 2 of env 1 in batch 1: its leaves are numbered one after",
    ),
    "a store's number left out": (16, {"simulation": 2}, 16, "simulation 2 of env 1 in batch 1: its leaves are numb"),
    "a leaf not assembled": (12, {"env": 0, "simulation": 2}, 16, "env 1 stores in batch 1 but was not assembled"),
}


def test_leaves_are_rows_of_their_own(tmp_path):
    reader = TraceReader(write_leaves(tmp_path / "leaves", leaf_events()))
    assert reader.check() == 17
    *_, step = read_steps(reader.events())
    assert (step.envs, step.simulations, step.simulation) == ([0, 1, 0, 1], [0, 0, 1, 1], 0)
    assert (step.keys, step.stores, step.nodes) == ([200, 201, 210, 211], [13, 14, 15, 16], [2, 3, 2, 3])
    assert step.parents == [100, 101, 100, 101]


def test_leaves_belong_to_their_schema_version(tmp_path):
    for version in (1, "1.1"):
        path = write_leaves(tmp_path / "leaves", leaf_events(), version)
        assert_refused(path, "a second lookup of env 0 in batch 1", 7)


@pytest.mark.parametrize(("changed", "values", "row", "fault"), BROKEN_LEAVES.values(), ids=BROKEN_LEAVES)
def test_a_broken_rule_of_leaves_is_named_with_its_row(tmp_path, changed, values, row, fault):
    events = leaf_events()
    events[changed] |= values
    assert_refused(write_leaves(tmp_path / "leaves", events), fault, row)


def write_leaves(path, events, version="1.2"):
    return write_events(path, events, {HEADER_KEY: header(schema_version=version).to_json().encode()})


@pytest.mark.parametrize(("events", "row", "fault"), BROKEN_RULES.values(), ids=BROKEN_RULES)
def test_a_broken_rule_is_named_with_its_row(tmp_path, events, row, fault):
    assert_refused(write_events(tmp_path / "bad.parquet", events), fault, row)


def test_events_before_the_fault_are_still_given(tmp_path):
    events = TraceReader(write_events(tmp_path / "bad", spoilt(9, tokens=0))).events()
    assert [next(events) for _ in range(9)] == good_events()[:9]
    with pytest.raises(TraceError):
        next(events)


def test_a_fault_beyond_the_first_row_group_has_its_row_in_the_file(tmp_path):
    table = pa.Table.from_batches([batch_of(spoilt(16, tokens=0))])
    metadata = {HEADER_KEY: header().to_json().encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "bad", row_group_size=5)
    assert_refused(tmp_path / "bad", "0 new tokens", 16)


def test_a_lookup_whose_env_neither_stores_nor_assembles_is_refused(tmp_path):
    """A replay would leave it out without a word: rows of a batch are named by its stores."""
    events = [each for number, each in enumerate(good_events()) if number not in (8, 10)]
    for each in events:
        if each["node"] == 10:
            each["node"] = None
    assert_refused(write_events(tmp_path / "bad", events), "env 1", 6)


def test_clears_need_no_environment(tmp_path):
    events = [*good_events(), event("clear", "all", NO_ENV, 3, -1), event("clear", "init", NO_ENV, 3, -1)]
    assert check(write_events(tmp_path / "trace", events)) == 20


def test_a_trace_of_another_geometry_is_held_to_its_own(tmp_path):
    wide = header(replace(TINY, context_length=16))
    path = write_events(tmp_path / "wide", spoilt(15, size=9), {HEADER_KEY: wide.to_json().encode()})
    assert check(path) == 18


def test_a_header_that_does_not_match_its_checksum_is_refused(tmp_path):
    path = synthetic(tmp_path / "good")
    table = pq.read_table(path)
    text = table.schema.metadata[b"kvcache"].replace(b'"env_num": 2', b'"env_num": 3')
    assert text != table.schema.metadata[b"kvcache"]
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"kvcache": text}), path)
    with pytest.raises(TraceError, match="does not match its checksum"):
        TraceReader(path)
