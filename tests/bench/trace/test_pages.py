"""Sizes that are read from pages are those that a truthful footer has."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import COMMITTED, batch_of, good_events, synthetic

from kvbench.trace import pages
from kvbench.trace.pages import decoded_bytes
from kvbench.trace.schema import COLUMNS


def assert_like_footer(path):
    metadata = pq.ParquetFile(path).metadata
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        decoded = decoded_bytes(path, group, COLUMNS)
        columns = [group.column(each) for each in range(group.num_columns)]
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
