"""The recorded traces are what their manifest says, are replayed as recorded, and counted."""

import hashlib
import json
import shlex

import pandas as pd
import pytest
import recorded_traces
from recorded_traces import replayed_as_recorded, traces, what_it_shows
from traces import TINY, batch_of, good_events, header, spoilt, steps_of, synthetic, write_events

from kvbench.cli.record import lightzero
from kvbench.trace.keys import distinct_keys
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import EVENT_SCHEMA, HEADER_KEY
from kvbench.trace.writer import write_trace
from kvcache.legacy import LEGACY_0_2_0

PATHS = traces()
MANIFEST = json.loads((recorded_traces.FOLDER / "manifest.json").read_text())
SEARCHES = 6
LARGEST = 20_000_000  # bytes of all


def test_all_are_in_the_manifest_and_small():
    assert {path.name for path in PATHS} == set(MANIFEST)
    assert sum(path.stat().st_size for path in PATHS) < LARGEST


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_manifest_says_what_the_file_is(path):
    listed, reader = MANIFEST[path.name], TraceReader(path)
    top = reader.header
    assert listed["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (listed["bytes"], listed["backend"], listed["pools"]) == (
        path.stat().st_size, top.backend, top.pools,
    )  # fmt: skip
    assert listed["geometry"] == top.geometry.to_dict()
    assert listed["training"] == top.source["training"]
    assert listed["versions"]["lightzero"] == top.source["version"]
    events = list(reader.batches())
    assert listed["distinct_keys"] == round(distinct_keys(events), 4)
    assert listed["searches"] == events[-1]["search"].to_pylist()[-1] + 1
    assert top.source.get("distinct_keys", listed["distinct_keys"]) == listed["distinct_keys"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_command_is_the_one_that_made_it(path, monkeypatch):
    monkeypatch.chdir(recorded_traces.FOLDER.parents[1])
    listed, source = MANIFEST[path.name], TraceReader(path).header.source
    program, *words = shlex.split(listed["command"])
    assert (program, words[:2]) == ("kvbench", ["record", "lightzero"])
    given = lightzero.make_context("lightzero", words[2:]).params
    assert (given["seed"], given["searches"]) == (source["seed"], listed["searches"])
    assert given["train_steps"] == source["training"].get("max_env_step", 0)
    assert given["output"].name == path.name
    assert dict(each.split("=") for each in given["settings"]).keys() == source.get("settings", {}).keys()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_lookup_comes_out_as_recorded_on_the_backend_that_recorded_it(path):
    """Of the first searches; recorded_traces.py prints it of all."""
    assert TraceReader(path).header.backend == LEGACY_0_2_0.name
    compared = replayed_as_recorded(path, searches=SEARCHES)
    events = TraceReader(path).events()
    lookups = sum(each["kind"] == "lookup" for each in events if each["search"] < SEARCHES)
    assert (compared.lookups, compared.different) == (lookups, 0)
    assert lookups > 0


@pytest.mark.parametrize(("row", "column", "value"), [(12, "hit", False), (15, "size", 2)])
def test_a_lookup_that_comes_out_otherwise_is_counted(tmp_path, row, column, value):
    events = spoilt(row, **{column: value})
    recorded_by = {HEADER_KEY: header(backend=LEGACY_0_2_0.name).to_json().encode()}
    path = write_events(tmp_path / "trace.parquet", events, recorded_by)
    compared = replayed_as_recorded(path)
    assert (compared.lookups, compared.different) == (4, 1)


def test_what_a_trace_shows(tmp_path):
    path = tmp_path / "trace.parquet"
    write_trace(path, header(), [batch_of(good_events()).cast(EVENT_SCHEMA)])
    shown = what_it_shows(steps_of(path), TraceReader(path).to_pandas(), TINY)
    assert (shown.root, shown.by_init, shown.by_recur, shown.by_none) == (0, 2, 1, 1)
    assert shown.reuse == [0]  # nothing of the recurrent pool was used between
    assert (shown.depths, shown.stores, shown.slides) == ([1, 1, 1, 2], 6, 0)
    assert shown.fill == [1, 1, 1, 3]


def test_windows_that_slide_are_counted_from_their_sizes(tmp_path):
    path = synthetic(tmp_path / "trace.parquet", searches=5)
    reader = TraceReader(path)
    shown = what_it_shows(steps_of(path), reader.to_pandas(), TINY)
    sizes = pd.Series(shown.fill)
    assert 0 < shown.slides < shown.stores
    assert sizes.max() <= TINY.context_length - 2
    assert shown.by_init + shown.by_recur + shown.by_none + shown.root == sum(
        event["kind"] == "lookup" for event in reader.events()
    )


def test_the_tables(tmp_path, capsys, monkeypatch):
    path = synthetic(tmp_path / "mine.parquet", searches=2)
    monkeypatch.setattr(recorded_traces, "traces", lambda: [path])
    monkeypatch.setattr("sys.argv", ["recorded_traces.py"])
    recorded_traces.main()
    tables = [each.splitlines() for each in capsys.readouterr().out.strip().split("\n\n")]
    assert [len(each) - 2 for each in tables] == [1, 3, 4]
    for table in tables:
        assert {line.count("|") for line in table} == {table[0].count("|")}
    assert {line.split(" | ")[0] for table in tables for line in table[2:]} == {"| mine"}
