"""What a change is judged by: the base's limits, and what of them the change may loosen."""

import pytest

from kvbench.gate.limits import LIMITS, judged_by
from kvbench.gate.thresholds import TIME, Limit, Meant, Thresholds
from kvbench.judge.verdict import Verdict

TIMES = Limit("lower", relative=0.05, absolute=0.1)
BASE = Thresholds(TIMES, {"copies": Limit("lower", relative=0.1), "hits": Limit("none")})
PADDING = Meant("copies", "padding", absolute=1)


def judged(time=TIMES, metrics=BASE.metrics, meant=(), directions=None, base=BASE):
    limits, rows = judged_by(Thresholds(time, metrics, meant), base, directions)
    return limits, {row.metric: row for row in rows}


def test_nothing_changed_is_no_finding():
    assert judged() == (BASE, {})


@pytest.mark.parametrize(
    "time", [Limit("lower", relative=0.5, absolute=0.1), Limit("lower", relative=0.05, absolute=5)]
)
def test_a_looser_limit_of_times_fails_and_does_not_hold(time):
    limits, rows = judged(time)
    assert limits.time == TIMES
    assert (rows[TIME].benchmark, rows[TIME].verdict) == (LIMITS, Verdict.WORSE)
    assert "the base's limit holds" in rows[TIME].reason


@pytest.mark.parametrize(
    ("metric", "limit", "change"),
    [
        ("copies", Limit("lower", relative=0.2), "relative 0.1 -> 0.2"),
        ("copies", Limit("lower", relative=0.1, absolute=3), "absolute 0.0 -> 3"),
        ("copies", Limit("higher", relative=0.1), "direction lower -> higher"),
        ("hits", Limit("higher"), "direction none -> higher"),
        # The base's file says nothing of it: a counter may not rise at all.
        ("bytes_copied", Limit("lower", relative=0.01), "relative 0.0 -> 0.01"),
        ("hit", Limit("higher"), "direction none -> higher"),
    ],
)
def test_a_looser_limit_of_a_metric_fails_and_does_not_hold(metric, limit, change):
    limits, rows = judged(metrics=BASE.metrics | {metric: limit})
    assert {name: row.verdict for name, row in rows.items()} == {metric: Verdict.WORSE}
    assert rows[metric].reason.startswith(f"{change}: ")
    assert limits.limit_of(metric) == BASE.limit_of(metric)


@pytest.mark.parametrize(
    ("metric", "limit"),
    [
        ("copies", Limit("lower", relative=0.05)),
        ("copies", Limit("none", relative=0.1)),
        ("leaks", Limit("lower", relative=9)),
    ],
)
def test_a_stricter_limit_and_one_of_a_new_metric_are_no_finding(metric, limit):
    limits, rows = judged(metrics=BASE.metrics | {metric: limit})
    assert rows == {}
    assert limits.limit_of(metric) == (BASE.metrics.get(metric) or limit)


def test_a_limit_that_is_removed_still_holds():
    limits, rows = judged(metrics={})
    assert limits == BASE
    assert rows == {}


class TestMeant:
    LOOSE = Limit("lower", relative=0.2)

    def test_a_looser_limit_that_is_meant_holds(self):
        meant = (Meant("copies", "the counter is coarse", change="limit"),)
        limits, rows = judged(metrics=BASE.metrics | {"copies": self.LOOSE}, meant=meant)
        assert (rows["copies"].verdict, rows["copies"].reason) == (
            Verdict.MEANT, "relative 0.1 -> 0.2: the counter is coarse",
        )  # fmt: skip
        assert limits.limit_of("copies") == self.LOOSE

    @pytest.mark.parametrize(
        "meant",
        [Meant("copies", "", relative=1), Meant("hits", "", change="limit"), Meant("copies", "", change="gone")],
    )
    def test_by_another_table_it_is_not(self, meant):
        _, rows = judged(metrics=BASE.metrics | {"copies": self.LOOSE}, meant=(meant,))
        assert rows["copies"].verdict is Verdict.WORSE

    def test_what_the_base_has_already_is_spent(self):
        meant = Meant("copies", "", change="limit")
        base = Thresholds(TIMES, BASE.metrics, (meant, PADDING))
        limits, rows = judged(metrics=BASE.metrics | {"copies": self.LOOSE}, meant=(meant, PADDING), base=base)
        assert rows["copies"].verdict is Verdict.WORSE
        assert limits.meant == ()

    def test_an_allowance_that_was_changed_or_is_beside_a_spent_one_is_a_new_one(self):
        base = Thresholds(TIMES, BASE.metrics, (PADDING,))
        more = Meant("copies", "padding", absolute=2)
        assert judged(meant=(PADDING, more), base=base)[0].meant == (more,)


def test_a_direction_that_turns_in_the_harness_fails_and_the_bases_holds():
    limits, rows = judged(directions={"bytes_copied": "higher", "hit": "none"})
    assert {name: row.verdict for name, row in rows.items()} == {"bytes_copied": Verdict.WORSE}
    assert limits.limit_of("bytes_copied") == Limit("higher")


def test_a_base_without_limits_leaves_the_heads():
    assert judged_by(BASE, None, None) == (BASE, [])


# An old base's harness may have no table of metrics.
@pytest.mark.parametrize("directions", [{"bytes_copied": "lower"}, {}])
@pytest.mark.parametrize("metric", ["instructions", "bytecodes_in_small_pool"])
def test_a_metric_that_the_bases_harness_does_not_have_gets_the_heads_limit(metric, directions):
    limit = Limit("lower", relative=0.005, absolute=100)
    limits, rows = judged(metrics=BASE.metrics | {metric: limit}, directions=directions)
    assert rows == {}
    assert limits.limit_of(metric) == limit
