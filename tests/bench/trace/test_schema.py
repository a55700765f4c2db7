import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from traces import TINY, header

from kvbench.trace.schema import (
    COLUMNS,
    EVENT_SCHEMA,
    KINDS,
    NEWEST_VERSION,
    SCHEMA_VERSION,
    SCOPES,
    TraceError,
    TraceHeader,
)


def test_header_survives_json():
    full = header(backend="legacy-0.2.0", pools={"init": 2, "recur": 400})
    assert TraceHeader.from_json(full.to_json()) == full
    assert TraceHeader.from_json(full.to_json().encode()) == full


def test_header_of_now_names_its_time_and_its_recorder():
    made = header()
    assert made.created.endswith("+00:00")
    assert made.recorder.startswith("kvcache ")
    assert made.schema_version == SCHEMA_VERSION


def changed(**values):
    """The JSON of a header with some values replaced; ``...`` removes one."""
    fields = json.loads(header().to_json()) | values
    return json.dumps({name: value for name, value in fields.items() if value is not ...})


def changed_geometry(**values):
    return changed(geometry={**TINY.to_dict(), **values})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "the header is not JSON"),
        (b"\xff\xfe{}", "the header is not JSON"),
        ("[]", "does not say that this is a kvcache-trace"),
        ('"kvcache-trace"', "does not say that this is a kvcache-trace"),
        (changed(format="parquet"), "does not say that this is a kvcache-trace"),
        (changed(schema_version=SCHEMA_VERSION + 1), f"schema version {SCHEMA_VERSION + 1}"),
        (changed(schema_version=...), "schema version None"),
        (changed(source=...), r"missing: \['source'\]"),
        (changed(colour="red"), r"unknown: \['colour'\]"),
        (changed(geometry=[]), "geometry is not an object"),
        (changed(geometry={"env_num": 8}), "geometry: missing fields"),
        (changed_geometry(env_num=0), "env_num must be a positive integer, got 0"),
        (changed_geometry(env_num="8"), "env_num must be a positive integer, got '8'"),
        (changed_geometry(embed_dim=17), "17 is not a multiple of num_heads 2"),
        (changed_geometry(positions="learnt"), "positions must be one of"),
        (changed_geometry(colour="red"), r"unknown fields \['colour'\]"),
        (changed(pools=[]), "pools are not an object of positive sizes"),
        (changed(pools={"init": 0}), "pools are not an object of positive sizes"),
        (changed(pools={"init": "2"}), "pools are not an object of positive sizes"),
        (changed(source=None), "source"),
        (changed(source=[]), "source"),
        (changed(synthetic="no"), "synthetic"),
    ],
)
def test_a_bad_header_is_refused_by_name(text, fault):
    with pytest.raises(ValueError, match=fault):
        TraceHeader.from_json(text)


def test_the_refusal_of_another_version_says_what_to_do():
    with pytest.raises(ValueError, match=r"reads versions 1, .* and '1\.3': use the kvcache that wrote it, or"):
        TraceHeader.from_json(changed(schema_version=0))


@pytest.mark.parametrize("version", [SCHEMA_VERSION, NEWEST_VERSION])
def test_both_versions_are_read(version):
    assert TraceHeader.from_json(changed(schema_version=version)).schema_version == version


@pytest.mark.parametrize("version", ["1.4", "2", 1.1, [1], True])
def test_other_minor_versions_are_refused(version):
    with pytest.raises(
        ValueError, match=r"^schema version .*, but this kvcache reads versions 1, '1\.1', '1\.2' and '1\.3': use"
    ):
        TraceHeader.from_json(changed(schema_version=version))


def test_error_names_file_row_and_fault():
    error = TraceError("some/trace", "is bad", 7)
    assert (str(error), error.path, error.row) == ("some/trace: row 7: is bad", Path("some/trace"), 7)
    assert str(TraceError("some/trace", "is bad")) == "some/trace: is bad"


def test_every_column_has_a_type_and_names_are_dictionaries():
    assert tuple(EVENT_SCHEMA.names) == COLUMNS
    assert set(SCOPES) == set(KINDS)
    for column in EVENT_SCHEMA:
        assert pa.types.is_dictionary(column.type) == (column.name in ("kind", "scope"))
        assert not pa.types.is_binary(column.type)
    assert EVENT_SCHEMA.field("key").type == pa.uint64()


def test_headers_that_differ_are_unequal():
    assert header() != replace(header(), synthetic=False)
