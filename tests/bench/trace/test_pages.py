"""Sizes that are read from pages are those that a truthful footer has."""

import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import COMMITTED, batch_of, good_events, synthetic, write_table

from kvbench.trace import pages
from kvbench.trace.pages import decoded_bytes, read_chunks
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import COLUMNS, TraceError

MAY_BE_NULL = b"\x25\x02\x18"  # of a column in a footer, before its name


def assert_like_footer(path):
    metadata = pq.ParquetFile(path).metadata
    chunks = read_chunks(path)
    assert len(chunks) == metadata.num_row_groups
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        decoded = decoded_bytes(path, chunks[number], COLUMNS)
        columns = [group.column(each) for each in range(group.num_columns)]
        assert [each.column for each in chunks[number]] == [each.path_in_schema for each in columns]
        named = sum(each.total_uncompressed_size for each in columns)  # with the pages' headers
        assert 0 < decoded <= named <= decoded + 400 * len(columns) + named // 20


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_of_files_by_other_writers(tmp_path, version, compression, dictionary):
    table = pa.Table.from_batches([batch_of(good_events())] * 200)
    options = {"data_page_version": version, "compression": compression, "use_dictionary": dictionary}
    pq.write_table(table, tmp_path / "file", row_group_size=1000, data_page_size=500, **options)
    assert_like_footer(tmp_path / "file")


def test_of_recorded_and_synthetic_traces(tmp_path):
    assert_like_footer(COMMITTED)
    assert_like_footer(synthetic(tmp_path / "trace"))


def test_a_damaged_footer_never_ends_the_process(tmp_path):
    """pyarrow 26 does that where a column that may be null is said to be never null: its histograms are too long."""
    path = tmp_path / "trace"
    write_table(path, pa.Table.from_batches([batch_of(good_events())]))
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    places = [each.start() for each in re.finditer(MAY_BE_NULL, whole) if each.start() >= footer]
    assert places
    pid = os.fork()
    if not pid:
        os._exit(not all(is_read_or_refused(path, whole, place) for place in places))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def is_read_or_refused(path, whole, place):
    damaged = bytearray(whole)
    damaged[place + 1] = 0
    path.write_bytes(damaged)
    try:
        TraceReader(path).check()
    except TraceError:
        return True
    except BaseException:
        return False
    return True


@given(st.binary(max_size=200))
def test_bytes_that_are_no_pages_end(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("pages") / "file"
    path.write_bytes(content)
    with open(path, "rb") as file:
        try:
            assert pages._decoded_bytes(file, 0, len(content)) >= 0
        except (ValueError, OverflowError) as error:
            assert not isinstance(error, UnicodeError), error  # noqa: PT017


@pytest.mark.parametrize("octet", [0x19, 0x1C, 0x9C, 0x99])
def test_lists_and_structs_within_each_other_end(tmp_path, octet):
    (tmp_path / "file").write_bytes(bytes([octet]) * 10_000)
    with open(tmp_path / "file", "rb") as file, pytest.raises(ValueError, match="structs within structs"):
        pages._decoded_bytes(file, 0, 10_000)
