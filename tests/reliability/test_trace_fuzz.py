"""Damaged and invented traces against everything that reads one: an answer or one line, and bounded memory.

``KVBENCH_FUZZ=2000`` makes as many traces for each of the tests; every trace goes to five readers.
"""

import json
import os
import resource
from dataclasses import replace

import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traces import TINY, batch_of, event, good_events, header, synthetic, write_table

from kvbench.capacity.curves import hit_rate_curves
from kvbench.cli import main
from kvbench.errors import KvbenchError
from kvbench.measure import free_memory
from kvbench.report.searches import read_searches
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import COLUMNS, EVENT_SCHEMA, HEADER_KEY, KINDS, SCOPES
from kvbench.trace.steps import read_steps

FEW = 12
TRACES = int(os.environ.get("KVBENCH_FUZZ", FEW))
FREE_MEGABYTES = 400  # as if no more were there: what is estimated to need more is refused
MOST_MEGABYTES = 500
REPORTED = 40  # one of so many sound traces becomes pages, which takes a second

fuzzed = settings(
    max_examples=TRACES,
    deadline=None,
    derandomize=TRACES == FEW,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def counted(request, figure):
    figure(f"fuzzing: traces, {request.node.name.removeprefix('test_')}: {TRACES:,} traces")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def whole(folder):
    """Bytes of sound traces: with checksums of pages and without."""
    write_table(folder / "plain", pa.Table.from_batches([batch_of(good_events())]))
    synthetic(folder / "checked", replace(TINY, num_simulations=3), 2, episode_length=2, clear_ended=True)
    return [(folder / name).read_bytes() for name in ("plain", "checked")]


@pytest.fixture(scope="module", autouse=True)
def bounded_memory(folder, whole):
    """No more than is free is taken, by all of the traces; the first ones import what is imported once."""
    for number, content in enumerate(whole):
        path = folder / f"{number}.parquet"
        path.write_bytes(content)
        read_by_all(path)
        report(path, folder)
    before = megabytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(free_memory, "free_bytes", lambda device: FREE_MEGABYTES * 2**20)
        yield
    assert megabytes() - before < MOST_MEGABYTES


def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(*arguments):
    """Exit code, and the error in one line."""
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), arguments
    _, error, line = result.stderr.partition("Error: ")
    assert result.exit_code == bool(error)
    assert len(line.splitlines()) == bool(error)
    return result.exit_code, line


def in_process(read):
    """Whether it was read; what is wrong is a KvbenchError of one line."""
    fault = ""
    try:
        read()
    except KvbenchError as error:
        fault = str(error)
    assert len(fault.splitlines()) == bool(fault)
    return not fault


def read_by_all(path):
    """Give a trace to five readers, which must agree. Returns whether it is sound."""
    checked = run("trace", "check", path)
    shown = run("trace", "show", path)
    replayed = run("replay", "--repetitions", "0", "--backend", "new:slab", path)
    if checked[0]:
        assert replayed == checked
    else:
        assert shown[0] == 0
        assert replayed[0] == 0 or "are free: give a smaller --capacity" in replayed[1]
    assert in_process(lambda: read_searches(path)) == (not checked[0])
    in_process(lambda: TraceReader(path).to_pandas())
    if replayed[0] == 0:
        reader = TraceReader(path)
        if reader.header.geometry.slid_size >= 1:
            hit_rate_curves(list(read_steps(reader.events())), reader.header.geometry, [2], ["lru", "legacy", "belady"])
    return not checked[0]


def report(path, folder):
    return run("report", "--trace", path, "--output", folder / "pages")


@fuzzed
@given(data=st.data())
def test_damaged_bytes(folder, whole, data):
    content = bytearray(data.draw(st.sampled_from(whole)))
    places = st.integers(0, len(content) - 1)
    # The last bytes are the file's own description: a flip there is more than a wrong number.
    ends = st.integers(max(0, len(content) - 4_000), len(content) - 1)
    for place, bits in data.draw(st.lists(st.tuples(places | ends, st.integers(1, 255)), max_size=6)):
        content[place] ^= bits
    cut = data.draw(st.sampled_from(["nothing", "nothing", "end", "middle", "twice"]))
    first, last = sorted((data.draw(places), data.draw(places)))
    if cut == "end":
        del content[first:]
    elif cut == "middle":
        del content[first : min(last, first + 64)]
    elif cut == "twice":
        content[first:first] = content[first:last]
    path = folder / "damaged.parquet"
    path.write_bytes(content)
    read_by_all(path)


NUMBERS = st.sampled_from([-(2**31), -2, -1, 0, 1, 2, 3, 5, 7, 8, 9, 100, 2**20, 2**31 - 1]) | st.integers(-3, 12)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | NUMBERS | st.integers() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
GEOMETRIES = st.fixed_dictionaries(
    {},
    optional={
        "env_num": st.integers(1, 5) | JSON, "context_length": st.integers(1, 9) | JSON,
        "embed_dim": st.sampled_from([1, 2, 16, 2**16]) | JSON, "num_layers": st.integers(1, 3) | JSON,
        "num_heads": st.integers(1, 2) | JSON, "num_simulations": NUMBERS | JSON,
        "positions": st.sampled_from(["rotary", "absolute"]) | JSON, "name": JSON,
    },
)  # fmt: skip
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "source": JSON, "synthetic": JSON, "backend": JSON, "created": JSON, "recorder": JSON,
        "schema_version": st.sampled_from([1, "1.1", "1.2"]) | JSON, "pools": JSON | st.just({"init": 3, "recur": 4}),
        "unknown": JSON,
    },
)  # fmt: skip


@fuzzed
@given(geometry=GEOMETRIES, values=HEADERS, text=st.none() | st.binary(max_size=30) | JSON.map(json.dumps))
def test_invented_headers(folder, geometry, values, text):
    made = json.loads(header().to_json()) | values
    made["geometry"] = TINY.to_dict() | geometry
    encoded = json.dumps(made) if text is None else text
    metadata = {HEADER_KEY: encoded if isinstance(encoded, bytes) else encoded.encode("utf-8", "surrogatepass")}
    table = pa.Table.from_batches([batch_of(good_events())])
    read_by_all(write_table(folder / "header.parquet", table, metadata))


NAMES = st.sampled_from([*KINDS, *{scope for scopes in SCOPES.values() for scope in scopes}])
CELLS = {
    **dict.fromkeys(COLUMNS, st.none() | st.sampled_from([*range(-2, 10), 100, 101, 200, 999, 2**31 - 1])),
    **dict.fromkeys(("kind", "scope"), NAMES | st.none() | st.text(max_size=3)),
    "key": st.none() | st.sampled_from([0, 100, 101, 200, 999, 2**64 - 1]),
    "parent": st.none() | st.sampled_from([0, 100, 101, 200, 999, 2**64 - 1]),
    "hit": st.none() | st.booleans(),
}
CHANGES = st.lists(
    st.sampled_from(COLUMNS).flatmap(lambda name: st.tuples(st.integers(0, 20), st.just(name), CELLS[name])), max_size=4
)
SEEN = [0]


@fuzzed
@given(data=st.data(), changes=CHANGES)
def test_events_that_no_search_made(folder, data, changes):
    events = good_events()
    clear = event("clear", *data.draw(st.sampled_from([("init", 0), ("init", -1), ("all", -1), ("recur", 1)])), 2, 1)
    events += [clear] * data.draw(st.integers(0, 2))
    for row in data.draw(st.lists(st.integers(0, len(events) - 1), max_size=2)):
        del events[row : row + 1]
    for row in data.draw(st.lists(st.integers(0, 12), max_size=1)):
        events.insert(row, events.pop(data.draw(st.integers(0, len(events) - 1))))
    for row, name, value in changes:
        events[row % len(events)][name] = value
    top = replace(header(), schema_version=data.draw(st.sampled_from([1, "1.1", "1.2"])))
    sizes = data.draw(st.sampled_from([{}, {"context_length": 3}, {"context_length": 4}, {"positions": "rotary"}]))
    top = replace(top, geometry=replace(TINY, **sizes))
    metadata = {HEADER_KEY: top.to_json().encode()}
    path = write_table(folder / "events.parquet", pa.Table.from_batches([batch_of(events)]), metadata)
    if read_by_all(path):
        SEEN[0] += 1
        if SEEN[0] % REPORTED == 1:
            assert report(path, folder)[0] == 0


KINDS_OF_COLUMN = st.sampled_from(
    [pa.int8(), pa.int64(), pa.string(), pa.float64(), pa.bool_(), pa.binary(), pa.null()]
)


@fuzzed
@given(data=st.data())
def test_other_columns(folder, data):
    table = pa.Table.from_batches([batch_of(good_events())])
    for _ in range(data.draw(st.integers(1, 3))):
        names = table.column_names
        name = data.draw(st.sampled_from(sorted(COLUMNS)))
        change = data.draw(st.sampled_from(["drop", "twice", "order", "type", "rename", "nested"]))
        place = names.index(name) if names.count(name) == 1 else None
        if place is None or change == "order":
            table = table.select(data.draw(st.permutations(range(len(names)))))
        elif change == "drop":
            table = table.remove_column(place)
        elif change == "twice":
            table = table.append_column(name, table.column(place))
        elif change == "type":
            table = table.set_column(place, name, pa.nulls(table.num_rows, data.draw(KINDS_OF_COLUMN)))
        elif change == "rename":
            new = data.draw(st.text(max_size=4) | st.sampled_from([f"{name}.{name}", name.upper()]))
            table = table.rename_columns([new if each == name else each for each in names])
        else:
            rows = [{name: 1}] * table.num_rows
            table = table.set_column(place, name, pa.array(rows, pa.struct([(name, EVENT_SCHEMA.field("env").type)])))
    read_by_all(write_table(folder / "columns.parquet", table))
