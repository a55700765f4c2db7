"""Whole row groups are checked as their events are one by one."""

from dataclasses import replace

import pyarrow as pa
import pytest
from checked_one_by_one import OneByOne
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traces import TINY, batch_of, event, good_events, header, leaf_events, synthetic, write_table

from kvbench.trace import stored_keys
from kvbench.trace.columns import Columns
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import COLUMNS, EVENT_SCHEMA, HEADER_KEY, KINDS, NO_ENV, SCOPES, TraceError


def one_by_one(path, events, top):
    """How many events are sound, and the fault after them; or the reach of all."""
    checker = OneByOne(path, top)
    for row, each in enumerate(events):
        try:
            checker.check(row, each)
        except TraceError as error:
            return row, str(error)
    return len(events), checker.reach


def by_groups(path):
    """The same of a file."""
    reader, sound = TraceReader(path), 0
    checker = reader.checker()
    try:
        for batch in reader.checked(checker):
            sound += batch.num_rows
    except TraceError as error:
        return sound, str(error)
    return sound, checker.reach


def write(path, events, top, rows):
    """Write events in row groups of so many."""
    table = pa.Table.from_batches([batch_of(events)])
    return write_table(path, table, {HEADER_KEY: top.to_json().encode()}, rows)


def long_events(folder, searches=4):
    """Several searches, with clears of one environment and transpositions."""
    path = synthetic(folder / "long", searches=searches, transpositions=0.3, clear_ended=True, episode_length=2)
    return list(TraceReader(path).events())


@pytest.fixture(scope="module")
def kinds_of_traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checker")
    return folder, [good_events(), leaf_events(), long_events(folder, searches=2)]


NUMBERS = st.sampled_from([*range(-2, 12), 16, 17, 100, 101, 200, 999, 2**20 + 1, 2**31 - 1])
NAMES = st.sampled_from([*KINDS, *{scope for scopes in SCOPES.values() for scope in scopes}, "guess", None])


def cell(name):
    if name in ("kind", "scope"):
        return NAMES
    if name == "hit":
        return st.none() | st.booleans()
    return st.none() | (NUMBERS.filter(lambda number: number >= 0) if name in ("key", "parent") else NUMBERS)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_spoilt_traces_have_the_same_first_fault(kinds_of_traces, data):
    folder, traces = kinds_of_traces
    events = [dict(each) for each in traces[data.draw(st.integers(0, len(traces) - 1))]]
    places = st.integers(0, len(events) - 1)
    for row in data.draw(st.lists(places, max_size=2)):
        events.insert(row, events.pop(data.draw(places)))
    for row in data.draw(st.lists(places, max_size=1)):
        events.insert(row, dict(events[data.draw(places)]))
    for row in data.draw(st.lists(places, max_size=2)):
        name = data.draw(st.sampled_from(COLUMNS))
        other = events[data.draw(places)][name]  # a value that is somewhere in the trace
        events[row][name] = data.draw(st.just(other) | cell(name))
    for row in data.draw(st.lists(places, max_size=1)):
        del events[row]
    sizes = data.draw(st.sampled_from([{}, {"context_length": 4}, {"env_num": 1}]))
    version = data.draw(st.sampled_from([1, "1.1", "1.2"]))
    top = replace(header(schema_version=version), geometry=replace(TINY, **sizes))
    path = write(folder / "spoilt", events, top, data.draw(st.sampled_from([11, 50, 10**6])))
    assert by_groups(path) == one_by_one(path, events, top)


@pytest.mark.parametrize("remembered", [0, 7, 10**6])
def test_old_nodes_are_read_from_the_file_again(tmp_path, monkeypatch, remembered):
    """The last searches' lookups mean the first search's nodes."""
    monkeypatch.setattr(stored_keys, "_REMEMBERED", remembered)
    events = long_events(tmp_path)
    stores = [row for row, each in enumerate(events) if each["kind"] == "store"][:12]
    lookups = [row for row, each in enumerate(events) if each["kind"] == "lookup"][-60:]
    for number, row in enumerate(lookups):
        env, parent, key = (events[row][name] for name in ("env", "batch", "key"))
        node = stores[number % len(stores)]
        events[row] |= {"node": node, "key": events[node]["key"]}
        for each in events:
            if (each["env"], each["batch"], each["parent"]) == (env, parent, key):
                each["parent"] = events[node]["key"]
    top, path = header(schema_version="1.1"), tmp_path / "far"
    assert TraceReader(write(path, events, top, 29)).check() == len(events)
    events[lookups[-1]]["node"] = stores[1]
    with pytest.raises(TraceError, match=f"row {lookups[-1]}: .* but means row {stores[1]}, which stored"):
        TraceReader(write(path, events, top, 29)).check()


def test_no_more_is_remembered_than_some_rows_and_an_inference(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_keys, "_REMEMBERED", 50)
    path = synthetic(tmp_path / "trace", searches=6)
    table = TraceReader(path)._file.read()
    reader = TraceReader(write_table(tmp_path / "divided", table, None, row_group_size=40))
    checker = reader.checker()
    for batch in reader.checked(checker):
        assert len(checker._stored._keys) <= 50 + 40 + len(batch)
        assert len(checker._begun) <= 3 * TINY.env_num + 1


def test_clears_at_the_end_are_of_no_environment():
    columns = Columns.of(batch_of([event("clear", "all", NO_ENV, 0, -1)]).cast(EVENT_SCHEMA))
    assert columns.list_of("key") == [None]
    assert columns.list_of("env") == [NO_ENV]
