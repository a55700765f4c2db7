import tracemalloc

import pytest
from traces import event, good_events

from kvbench.trace.schema import NO_ENV
from kvbench.trace.steps import PackedSteps, Step, read_steps
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


STEPS = [
    *read_steps(good_events()),
    Step(Scope.NODE, 2**48, 7, [3], [2**64 - 1], [None], [None], [], [], [0], 0, ["all", "recur"], [1, 0]),
    Step(Scope.ROOT, 0, -1),
]


class TestPackedSteps:
    def test_steps_come_out_as_they_went_in(self):
        packed = PackedSteps(iter(STEPS))
        assert len(packed) == len(STEPS)
        assert list(packed) == STEPS
        assert packed[1:3] == STEPS[1:3]
        assert packed[-1] == STEPS[-1]
        with pytest.raises(IndexError):
            packed[len(STEPS)]

    def test_what_is_done_to_a_step_is_not_done_to_the_next_pass(self):
        packed = PackedSteps(STEPS)
        packed[0].clears.clear()
        packed[0].keys.clear()
        assert list(packed) == STEPS

    def test_a_step_takes_a_few_bytes_an_event(self):
        steps = [
            Step(Scope.NODE, 1, 1, *[[8 * each + row for row in range(8)] for each in range(7)]) for each in range(500)
        ]
        tracemalloc.start()
        packed = PackedSteps(steps)
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert taken < 40 * 3 * 8 * len(packed)
