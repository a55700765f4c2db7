"""What a pass over columns counts is what a pass over steps does, however rows are divided into batches."""

import pytest
from traces import COMMITTED, TINY, event, good_events, header, synthetic, write_events

from kvbench.capacity.census import Census, number_rows
from kvbench.capacity.curves import most_entries
from kvbench.capacity.requests import Requests
from kvbench.trace.columns import Columns
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import NO_ENV, ROOT_SIMULATION, TraceError
from kvbench.trace.steps import TraceSteps
from kvcache import Scope


def census_of(path, rows=None, searches=None):
    (batch,) = TraceReader(path).batches()
    size = rows or batch.num_rows
    parts = ((first, Columns.of(batch.slice(first, size))) for first in range(0, batch.num_rows, size))
    return Census.of(number_rows(parts, searches))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    return synthetic(folder / "tiny", searches=9, episode_length=3, transpositions=0.3, clear_ended=True)


@pytest.mark.parametrize("rows", [None, 1, 7, 100])
@pytest.mark.parametrize("searches", [None, 4])
def test_as_steps_say(path, rows, searches):
    census, steps = census_of(path, rows, searches), TraceSteps(TraceReader(path), searches)
    asked = {scope: sum(key is not None for s in steps if s.scope is scope for key in s.parents) for scope in Scope}
    assert census.lookups == asked
    assert census.most_entries == {kind: most_entries(steps, pool=kind) for kind in ("init", "recur")}
    assert census.searches == len({step.search for step in steps})
    assert len(census.periods) == len({step.search for step in steps if step.is_recurrent})
    assert census.least_tokens["recur"] == min(step.tokens for step in steps if step.is_recurrent)
    assert not census.crosses


def test_a_node_of_an_earlier_search_is_noticed(tmp_path):
    def searched(*more):
        return [*good_events(), *more]

    root = {"search": 1}
    second = [
        event("assemble", "root", 0, 3, ROOT_SIMULATION, size=0) | root,
        event("store", "init", 0, 3, ROOT_SIMULATION, key=500, tokens=1, depth=0) | root,
        event("clear", "recur", NO_ENV, 3, ROOT_SIMULATION) | root,
    ]
    for key, node, crosses in ((500, 19, False), (300, 16, True)):
        asks = event("lookup", "node", 0, 4, 0, key=key, node=node, depth=1) | root
        path = write_events(tmp_path / str(key), searched(*second, asks))
        assert census_of(path).crosses is crosses
        assert census_of(path, 1).crosses is crosses


def test_searches_that_are_not_there(path):
    with pytest.raises(TraceError, match="none of the first 0 searches"):
        Requests(TraceReader(path), 0)


def test_an_unsound_trace_is_refused_with_its_row(tmp_path):
    events = good_events()
    events[9]["parent"] = 7
    with pytest.raises(TraceError, match="row 9: the store names the parent key"):
        Requests(TraceReader(write_events(tmp_path / "bad", events)))


def test_steps_are_those_of_the_trace_each_time(path):
    requests = Requests(TraceReader(path))
    assert list(requests) == list(requests) == list(TraceSteps(TraceReader(path)))
    assert requests.geometry == header(TINY).geometry


def test_long_traces_are_read_anew_each_time(path, monkeypatch):
    kept = list(Requests(TraceReader(path)))
    monkeypatch.setattr("kvbench.capacity.requests.IN_MEMORY", 0)
    requests = Requests(TraceReader(path))
    assert list(requests) == list(requests) == kept


@pytest.mark.slow
def test_the_recorded_search():
    requests = Requests(TraceReader(COMMITTED))
    assert requests.census.events == 93_654
    assert requests.census.lookups == {Scope.ROOT: 1152, Scope.NODE: 30_000}
    assert requests.census.most_entries["recur"] == 200
