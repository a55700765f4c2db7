"""The share of distinct keys."""

import pytest
from traces import batch_of, event, good_events, header

from kvbench.trace import keys
from kvbench.trace.keys import distinct_keys
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import EVENT_SCHEMA
from kvbench.trace.writer import TraceWriter


def share(events):
    return distinct_keys([batch_of(events).cast(EVENT_SCHEMA)])


def test_it_is_of_recurrent_stores():
    assert share(good_events()) == 1.0
    repeated = [event("store", "recur", 0, 0, number, key=key, tokens=2) for number, key in enumerate([7, 7, 8, 7])]
    roots = [event("store", "init", 0, 0, number, key=9, tokens=2) for number in range(5)]
    assert share(roots + repeated) == 0.5


@pytest.mark.parametrize("held", [1, 3, 100])
def test_it_does_not_depend_on_how_many_keys_are_held_at_once(monkeypatch, held):
    monkeypatch.setattr(keys, "_HELD", held)
    repeated = [event("store", "recur", 0, 0, each, key=each * each % 17, tokens=2) for each in range(40)]
    assert share(repeated) == 9 / 40


def test_without_recurrent_stores_there_is_none(tmp_path):
    roots = good_events()[:5]
    assert share(roots) is None
    with TraceWriter(tmp_path / "trace", header()) as writer:
        for each in roots:
            writer.add(**each)
    assert "distinct_keys" not in TraceReader(tmp_path / "trace").header.source
