import pyarrow.parquet as pq
import pytest
from traces import event, good_events, header, leaf_events, spoilt, synthetic, write_events

from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import HEADER_KEY, NO_ENV, TraceError
from kvbench.trace.steps import Step, TraceSteps, read_steps
from kvcache.backend import Scope


def test_events_become_one_step_for_each_batch():
    root, first, second = read_steps(good_events())
    assert root == Step(
        Scope.ROOT, search=0, simulation=-1, envs=[0, 1], parents=[None, None], nodes=[None, None],
        recorded_hits=[None, None], keys=[100, 101], stores=[2, 3], depths=[0, 0], tokens=1, clears=["recur"],
    )  # fmt: skip
    assert first == Step(
        Scope.NODE, search=0, simulation=0, envs=[0, 1], parents=[100, 101], nodes=[2, 3],
        recorded_hits=[True, True], keys=[200, 201], stores=[9, 10], depths=[1, 1], tokens=2, clears=[],
    )  # fmt: skip
    assert second == Step(
        Scope.NODE, search=0, simulation=1, envs=[0, 1], parents=[999, 201], nodes=[None, 10],
        recorded_hits=[False, True], keys=[300, 301], stores=[16, 17], depths=[1, 2], tokens=2, clears=[],
    )  # fmt: skip


def test_only_simulations_with_rows_are_recurrent():
    clear = event("clear", "all", NO_ENV, 3, 2)
    steps = list(read_steps([*good_events(), clear]))
    assert [step.is_recurrent for step in steps] == [False, True, True, False]
    assert steps[-1].clears == ["all"]
    assert steps[-1].envs == []


def test_rows_stand_in_the_order_of_the_stores():
    events = good_events()
    events[9], events[10] = events[10], events[9]
    step = list(read_steps(events))[1]
    assert (step.envs, step.parents, step.keys) == ([1, 0], [101, 100], [201, 200])


def test_a_batch_without_stores_has_the_rows_of_its_lookups():
    step = list(read_steps(good_events()[:9]))[1]
    assert (step.envs, step.parents, step.keys, step.stores, step.tokens) == ([0, 1], [100, 101], [], [], 0)


def test_depth_is_zero_where_the_trace_does_not_say():
    events = [each | {"depth": None} for each in good_events()]
    assert all(step.depths == [0, 0] for step in read_steps(events))


def test_no_events_are_no_steps():
    assert list(read_steps([])) == []


def test_steps_are_read_as_they_come():
    def events():
        yield from good_events()[:6]
        raise AssertionError("read too far")

    assert next(read_steps(events())).keys == [100, 101]


def test_only_the_first_searches():
    later = [{**each, "search": 1, "batch": each["batch"] + 3} for each in good_events()]
    assert list(read_steps([*good_events(), *later], searches=1)) == list(read_steps(good_events()))
    assert len(list(read_steps([*good_events(), *later], searches=2))) == 6
    assert len(list(read_steps([*good_events(), *later]))) == 6


def test_events_after_the_last_search_are_not_asked_for():
    def events():
        yield from good_events()
        yield {**good_events()[0], "search": 1, "batch": 3}
        raise AssertionError("the event after the first of the next search")

    assert len(list(read_steps(events(), searches=1))) == 3


def test_the_init_cache_of_one_environment_is_cleared_by_a_clear_of_its_own():
    ends = [event("clear", "init", env, 3, 2) for env in (1, 0)]
    step = list(read_steps([*good_events(), *ends, event("clear", "recur", NO_ENV, 3, 2)]))[-1]
    assert (step.clears, step.cleared_envs) == (["recur"], [1, 0])


class TestTraceSteps:
    @pytest.mark.parametrize("rows", [3, 50, 10**6])
    def test_they_are_those_of_the_events_however_the_file_is_divided(self, tmp_path, rows):
        path = synthetic(tmp_path / "trace", searches=3, transpositions=0.3, clear_ended=True, episode_length=2)
        table = TraceReader(path)._file.read()
        pq.write_table(table, tmp_path / "divided", row_group_size=rows)
        reader = TraceReader(tmp_path / "divided")
        for searches in (None, 2, 9):
            steps, wanted = TraceSteps(reader, searches), list(read_steps(reader.events(), searches))
            assert list(steps) == list(steps) == wanted
            assert len(steps) == len(wanted)

    def test_leaves(self, tmp_path):
        text = header(schema_version="1.2").to_json().encode()
        reader = TraceReader(write_events(tmp_path / "leaves", leaf_events(), {HEADER_KEY: text}))
        assert list(TraceSteps(reader)) == list(read_steps(leaf_events()))

    def test_searches_need_not_be_in_order(self, tmp_path):
        events = [each | {"search": (5, 1, 7)[each["batch"]]} for each in good_events()]
        reader = TraceReader(write_events(tmp_path / "trace", events))
        assert [step.search for step in TraceSteps(reader, 6)] == [5, 1]
        assert len(TraceSteps(reader, 6)) == 2
        assert not TraceSteps(reader, 1)

    def test_what_is_done_to_a_step_is_not_done_to_the_next_pass(self, tmp_path):
        steps = TraceSteps(TraceReader(write_events(tmp_path / "trace", good_events())))
        for step in steps:
            step.keys.clear()
        assert list(steps) == list(read_steps(good_events()))
        assert next(iter(steps)) in steps

    def test_the_reach_is_that_of_the_farthest_node(self, tmp_path):
        steps = TraceSteps(TraceReader(write_events(tmp_path / "trace", good_events())))
        assert steps.reach == 3  # row 5 means row 2
        path = synthetic(tmp_path / "synthetic", searches=3)
        wanted = max(row - each["node"] for row, each in enumerate(TraceReader(path).events()) if each["node"])
        assert TraceSteps(TraceReader(path)).reach == wanted

    def test_all_of_a_trace_is_checked_at_once(self, tmp_path):
        path = write_events(tmp_path / "bad", spoilt(16, tokens=0))
        with pytest.raises(TraceError, match="row 16: 0 new tokens"):
            TraceSteps(TraceReader(path), searches=1)
