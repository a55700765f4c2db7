"""Schema version 1.3: what a search knows beside keys and depths."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from traces import TINY, batch_of, good_events, header, steps_of, synthetic, write_events

from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import EVENT_SCHEMA, HEADER_KEY, SEARCH_COLUMNS, TraceError, TraceHeader
from kvbench.trace.steps import TraceSteps
from kvbench.trace.writer import TraceWriter, recover_trace, write_trace
from kvcache import SearchInfo


def known_events(**values):
    """Good events, of which each store below the root has these too."""
    known = {"visits": 1, "prior": 0.25, **values}
    return [each | known if each["kind"] == "store" and each["scope"] == "recur" else each for each in good_events()]


def add_all(writer, events):
    for each in events:
        writer.add_row(tuple(each.values()))


def test_what_was_recorded_is_read_again(tmp_path):
    with TraceWriter(tmp_path / "trace", header(actions=4)) as writer:
        add_all(writer, known_events())
    reader = TraceReader(tmp_path / "trace")
    assert (reader.header.schema_version, reader.header.actions) == ("1.3", 4)
    assert list(reader.events()) == known_events()
    steps = list(TraceSteps(reader))
    below, roots = ([step for step in steps if step.is_recurrent is each] for each in (True, False))
    assert [step.info for step in below] == [
        SearchInfo(step.depths, [1] * len(step.envs), [0.25] * len(step.envs), 4) for step in below
    ]
    assert all((step.info.visits, step.info.priors, step.info.actions) == (None, None, 4) for step in roots)


def test_a_file_without_it_is_of_an_older_version(tmp_path):
    with TraceWriter(tmp_path / "trace", header()) as writer:
        add_all(writer, good_events())
    assert pq.read_schema(tmp_path / "trace").names == [
        name for name in EVENT_SCHEMA.names if name not in SEARCH_COLUMNS
    ]
    assert "actions" not in json.loads(pq.read_schema(tmp_path / "trace").metadata[HEADER_KEY])
    reader = TraceReader(tmp_path / "trace")
    assert (reader.header.schema_version, reader.header.actions) == (1, None)
    assert all(step.info.visits is step.info.priors is None for step in steps_of(tmp_path / "trace"))


def test_actions_alone_need_the_version_too(tmp_path):
    write_trace(tmp_path / "trace", header(actions=2), [batch_of(good_events()).cast(EVENT_SCHEMA)])
    reader = TraceReader(tmp_path / "trace")
    assert (reader.header.schema_version, reader.header.actions, reader.check()) == ("1.3", 2, len(good_events()))


def test_a_file_of_an_older_version_may_have_a_column_of_that_name(tmp_path):
    write_trace(tmp_path / "trace", header(), [batch_of(good_events()).cast(EVENT_SCHEMA)])
    table = pq.read_table(tmp_path / "trace")
    pq.write_table(table.append_column("visits", [["many"] * len(table)]), tmp_path / "more")
    assert list(TraceReader(tmp_path / "more").events()) == good_events()


@pytest.mark.parametrize("name", SEARCH_COLUMNS)
def test_a_file_of_this_version_has_the_columns(tmp_path, name):
    write_trace(tmp_path / "trace", header(), [batch_of(known_events()).cast(EVENT_SCHEMA)])
    pq.write_table(pq.read_table(tmp_path / "trace").drop_columns(name), tmp_path / "less")
    with pytest.raises(TraceError, match=f"column '{name}' is missing$"):
        TraceReader(tmp_path / "less")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"visits": -1}, "visits is -1: it must be from 0 to 1048576"),
        ({"prior": 1.5}, "prior is 1.5: it must be from 0 to 1"),
        ({"prior": float("nan")}, "prior is nan: it must be from 0 to 1"),
    ],
)
def test_what_no_search_can_know_is_refused(tmp_path, values, fault):
    text = header(schema_version="1.3").to_json().encode()
    path = write_events(tmp_path / "trace", known_events(**values), {HEADER_KEY: text})
    row = next(row for row, each in enumerate(known_events()) if each["prior"] is not None)
    with pytest.raises(TraceError, match=f"row {row}: {fault}$"):
        TraceReader(path).check()


@pytest.mark.parametrize(("actions", "fault"), [(0, "actions is 0: it must be from 1"), ("2", "actions has the wrong")])
def test_a_headers_actions_are_a_number(actions, fault):
    text = json.loads(header(schema_version="1.3").to_json()) | {"actions": actions}
    with pytest.raises(ValueError, match=fault):
        TraceHeader.from_json(json.dumps(text))


def test_a_header_of_an_older_version_has_none():
    text = json.loads(header().to_json()) | {"actions": 2}
    with pytest.raises(ValueError, match=r"unknown: \['actions'\]"):
        TraceHeader.from_json(json.dumps(text))


def test_a_killed_recording_keeps_it(tmp_path):
    writer = TraceWriter(tmp_path / "trace", header(actions=3))
    add_all(writer, known_events())
    writer.abandon()
    recover_trace(tmp_path / "trace")
    reader = TraceReader(tmp_path / "trace")
    assert (reader.header.actions, list(reader.events())) == (3, known_events())


def test_a_synthetic_search_says_what_its_tree_had(tmp_path):
    """Of each new node: how often the search had gone on from its parent, and a share of the parent's priors."""
    path = synthetic(tmp_path / "trace", replace(TINY, num_simulations=12), searches=2, num_actions=2)
    assert TraceReader(path).header.actions == 2
    went_on, above, shares = {}, {}, {}
    for step in steps_of(path):
        assert bool(step.visits) == bool(step.priors) == step.is_recurrent
        for row, (store, node) in enumerate(zip(step.stores, step.nodes, strict=True)):
            above[store] = node if step.is_recurrent else None
            went_on.setdefault(store, 0)
            if step.is_recurrent:
                assert step.visits[row] == went_on[node]
                shares.setdefault(node, []).append(step.priors[row])
                upward = node
                while upward is not None:
                    went_on[upward] += 1
                    upward = above[upward]
    assert all(0 < sum(each) < 1 + 1e-9 and min(each) > 0 for each in shares.values())
    whole = [sum(each) for each in shares.values() if len(each) == 2]
    assert whole == pytest.approx([1] * len(whole))
    assert whole
