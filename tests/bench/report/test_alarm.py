"""What an alarm says: one row for what a commit did to a metric, and how to find the commit of a range."""

import numpy as np
import pytest

from kvbench.history.series import Series
from kvbench.judge.change_points import ChangePoint, Judgement
from kvbench.judge.changes import Change
from kvbench.judge.lost import Lost
from kvbench.report.alarm import alarm_lines, alarm_markdown, find_alarms

NONE = np.array([])
COMMAND = "kvbench bisect time aaaaaaaa bbbbbbbb -k 'operation[new:slab- and -store]'"


def point(ratio, geometry="pong", metric="time", between=2, commit="b", backend="new:slab"):
    cell = {"operation": "store", "geometry": geometry, "backend": backend}
    unit = "bytes per call" if metric == "bytes_copied" else "us"
    params = ", ".join(f"{name}={value}" for name, value in cell.items())
    series = Series("github", f"operations.Operations.track_{metric}", params, unit, NONE, NONE, NONE, cell)
    change = Change(4, 1.0, ratio, ratio)
    return ChangePoint(series, change, commit * 40, "a" * 40, between, "somebody", "subject", True)


def test_what_one_commit_did_to_one_metric_is_one_row():
    points = [point(2.0), point(1.5, "wide"), point(1.4, metric="time_over_legacy"), point(1.2, commit="c")]
    alarms = find_alarms(Judgement(points))
    assert [(each.where[-8:], each.metric, each.number) for each in alarms] == [
        ("bbbbbbbb", "Operations.time", 2),
        ("bbbbbbbb", "Operations.time_over_legacy", 1),
        ("cccccccc", "Operations.time", 1),
    ]
    title, first, *_ = alarm_lines(alarms, "since v1")
    assert title == "4 new regressions since v1, at 2 commits."
    assert "geometry=pong, backend=new:slab and 1 more  +100.0 % (1 to 2 us)" in first


@pytest.mark.parametrize(
    "text", [lambda alarms: "\n".join(alarm_lines(alarms, "")), lambda alarms: alarm_markdown(alarms, "")]
)
def test_the_commit_of_a_range_is_asked_for_once(text):
    points = [point(2.0), point(1.4, metric="time_over_legacy")]
    assert text(find_alarms(Judgement(points))).count(COMMAND) == 1
    known = [point(2.0, between=0)]
    assert "bisect" not in text(find_alarms(Judgement(known)))


def test_where_the_gate_has_not_the_worst_one_another_is_asked_for():
    points = [point(2.0, metric="bytes_copied", backend="legacy"), point(1.5, metric="bytes_copied")]
    (alarm,) = find_alarms(Judgement(points))
    assert (alarm.number, alarm.command) == (2, COMMAND.replace("time", "bytes_copied"))


def test_a_long_table_is_cut_and_its_blocks_stand_apart():
    text = alarm_markdown(find_alarms(Judgement([point(2.0, metric=f"time_{each}") for each in range(60)])), "")
    assert "|\n\n10 more rows are left out: the regressions page has all.\n" in text
    text = alarm_markdown(find_alarms(Judgement([point(2.0)])), "")
    assert "|\n\nTo find the commit" in text


def test_of_a_range_the_last_commit_is_not_blamed():
    (alarm,) = find_alarms(Judgement([point(2.0)]))
    assert (alarm.where, alarm.subject) == ("aaaaaaaa..bbbbbbbb", "one of 3 commits, the last: subject")


def test_lost_series_are_counted():
    lost = Lost("github", "Operations.time", "operation=store", 3, "fails", "b" * 40, "a" * 40, True)
    title, row = alarm_lines(find_alarms(Judgement(lost=[lost])), "since v1")
    assert title == "3 new regressions since v1, at 1 commit."
    assert "operation=store and 2 more  fails" in row
