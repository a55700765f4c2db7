"""A gate run: who is measured when, and what becomes of what was found. No process, no time."""

import re

import pytest

from kvbench.gate.processes import GateError, Measured
from kvbench.gate.session import run_gate
from kvbench.gate.thresholds import TIME, Limit, Meant, Thresholds
from kvbench.judge.paired import FEWEST_PAIRS
from kvbench.judge.verdict import Verdict

LIMITS = Thresholds(Limit("lower", relative=0.05), {"copies": Limit("lower"), "hits": Limit("none")})
SECONDS = 10.0  # of a process
# What each side of four pairs takes where noise decides nothing.
NOISE = {"base": (10, 20, 10, 24), "head": (24, 10, 20, 10)}


class GateFixture:
    """Measures what it is told to, and remembers what it was asked.

    Args:
        names: of the benchmarks; all are alike on both sides.
        noisy: those whose times decide nothing.
        find: changes what a process found, given its side and its number on that side.
    """

    def __init__(self, *names, noisy=(), find=lambda measured, side, number: None):
        self.names = names
        self.noisy = noisy
        self.find = find
        self.asked = []
        self.seconds = 0.0

    def clock(self):
        return self.seconds

    def measure(self, side, seed, what, places):
        number = sum(each[0] == side for each in self.asked)
        self.asked.append((side, seed, what, list(places)))
        self.seconds += SECONDS
        measured = Measured()
        for name in [place.removeprefix("at ") for place in places] or self.names:
            measured.places[name] = f"at {name}"
            if what != "metrics":
                measured.times[name] = NOISE[side][number % 4] if name in self.noisy else 10
            if what != "times":
                measured.metrics[name] = {"copies": 3, "hits": 5}
        self.find(measured, side, number)
        return measured

    def measure_sides(self, sides, *asked):
        return {side: self.measure(side, *asked) for side in sides}

    def run(self, **options):
        return run_gate(self.measure_sides, LIMITS, clock=self.clock, **options)


def drop(measured, name):
    measured.times.pop(name, None)
    measured.metrics.pop(name, None)


def of(report, name):
    """A benchmark's rows, by metric."""
    return {row.metric: row for row in report.rows if row.benchmark == name}


def having(report, verdict):
    """The rows with a verdict."""
    return [row for row in report.rows if row.verdict is verdict]


class TestOrder:
    def test_sides_take_turns_in_going_first(self):
        fixture = GateFixture("store")
        fixture.run()
        sides = [side for side, *_ in fixture.asked]
        assert sides == ["base", "head", "head", "base", "base", "head", "head", "base", "base", "head"]

    def test_a_pair_shares_its_hash_seed_and_no_other_pair_has_it(self):
        fixture = GateFixture("store")
        fixture.run()
        assert [seed for _, seed, *_ in fixture.asked] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]

    def test_two_pairs_count_and_the_others_only_time(self):
        fixture = GateFixture("store")
        fixture.run()
        assert [what for _, _, what, _ in fixture.asked] == ["both"] * 4 + ["times"] * 6

    def test_without_times_two_pairs_are_enough(self):
        fixture = GateFixture("store", "lookup", noisy=["store"])
        report = fixture.run(with_times=False)
        assert [what for _, _, what, _ in fixture.asked] == ["metrics"] * 4
        assert (report.pairs, report.seconds) == (2, 4 * SECONDS)
        assert {row.metric for row in report.rows} == {"copies", "hits"}
        assert report.is_decided

    def test_first_everything_is_measured_and_then_what_is_undecided(self):
        fixture = GateFixture("store", "lookup", "slide", noisy=["store", "slide"])
        report = fixture.run(budget=2 * SECONDS * (FEWEST_PAIRS + 3))
        places = [places for *_, places in fixture.asked]
        assert places == [[]] * 2 * FEWEST_PAIRS + [["at slide", "at store"]] * 6
        assert [of(report, name)[TIME].pairs for name in fixture.names] == [8, 5, 8]

    def test_what_gets_decided_is_measured_no_more(self):
        def calm_down(measured, side, number):
            if number >= 8 and "store" in measured.times:
                measured.times["store"] = 20 if side == "head" else 10

        fixture = GateFixture("store", "slide", noisy=["store", "slide"], find=calm_down)
        report = fixture.run(most_pairs=40)
        pairs = {name: of(report, name)[TIME].pairs for name in fixture.names}
        assert pairs["store"] < pairs["slide"] == 40
        assert [places for *_, places in fixture.asked][-1] == ["at slide"]


class TestBudget:
    @pytest.mark.parametrize("most_pairs", [5, 11])
    def test_it_ends_after_the_last_pair(self, most_pairs):
        report = GateFixture("store", noisy=["store"]).run(most_pairs=most_pairs, budget=1e9)
        assert report.pairs == of(report, "store")[TIME].pairs == most_pairs
        assert not report.is_decided

    @pytest.mark.parametrize("last", [{"most_pairs": 12}, {"budget": 2 * SECONDS * 12}])
    def test_the_last_look_may_spend_what_the_others_left(self, last):
        """A slowdown that is not sure enough at an earlier look is, at the last one."""

        def slower(measured, side, number):
            if side == "head" and "store" in measured.times:
                measured.times["store"] = (10.6, 12.7)[number % 2]

        assert GateFixture("store", find=slower).run(**last).fails
        assert GateFixture("store", find=slower).run(budget=1e9).pairs > 12

    def test_it_ends_when_all_is_decided(self):
        report = GateFixture("store", "lookup").run(budget=1e9)
        assert report.pairs == FEWEST_PAIRS
        assert report.is_decided
        assert not report.fails

    @pytest.mark.parametrize(("budget", "pairs"), [(140, 7), (159.9, 7), (160, 8)])
    def test_it_ends_before_a_pair_that_would_not_fit(self, budget, pairs):
        report = GateFixture("store", noisy=["store"]).run(budget=budget)
        assert (report.pairs, report.seconds) == (pairs, pairs * 2 * SECONDS)
        assert [row.benchmark for row in having(report, Verdict.NOT_DECIDED)] == ["store"]
        assert not report.is_decided
        assert not report.fails

    @pytest.mark.parametrize(("pairs", "fails"), [(2, False), (3, True), (4, True)])
    def test_where_few_pairs_fit_a_large_slowdown_still_fails(self, pairs, fails):
        """It makes a pair longer: the larger it is, the fewer fit."""

        def slower(measured, side, number):
            if side == "head" and "store" in measured.times:
                measured.times["store"] *= 4

        report = GateFixture("store", find=slower).run(budget=2 * SECONDS * pairs)
        assert (report.pairs, report.fails) == (pairs, fails)

    def test_metrics_are_measured_whatever_it_is(self):
        def one_more(measured, side, number):
            if side == "head":
                measured.metrics["store"]["copies"] = 4

        report = GateFixture("store", find=one_more).run(budget=0)
        assert report.pairs == 2
        assert of(report, "store")["copies"].verdict is Verdict.WORSE
        assert of(report, "store")["hits"].verdict is Verdict.SAME
        assert of(report, "store")[TIME].verdict is Verdict.NOT_DECIDED

    def test_progress_is_told_after_each_pair(self):
        told = []
        GateFixture("store", "lookup", noisy=["store"]).run(budget=120, progress=lambda *each: told.append(each))
        assert told == [(1, 2, 20.0), (2, 2, 40.0), (3, 2, 60.0), (4, 2, 80.0), (5, 1, 100.0), (6, 1, 120.0)]


class TestTimes:
    @pytest.mark.parametrize("factor", [0.5, 1.001, 2])
    def test_a_slower_benchmark_fails_and_no_other(self, factor):
        def slower(measured, side, number):
            if side == "head" and "store" in measured.times:
                measured.times["store"] *= factor

        report = GateFixture("store", "lookup", find=slower).run()
        assert report.fails is (factor == 2)
        assert [row.benchmark for row in having(report, Verdict.WORSE)] == (["store"] if factor == 2 else [])
        assert of(report, "store")[TIME].ratio == pytest.approx(factor)
        assert of(report, "lookup")[TIME].verdict is Verdict.SAME
        assert report.is_decided

    def test_a_benchmark_that_is_not_timed_has_its_metrics(self):
        def untimed(measured, side, number):
            measured.times.pop("store", None)

        report = GateFixture("store", "lookup", find=untimed).run()
        assert set(of(report, "store")) == {"copies", "hits"}
        assert set(of(report, "lookup")) == {"copies", "hits", TIME}


class TestFailures:
    def found(self, side, *names, numbers=range(99)):
        """A run in which ``store`` fails on one side, in processes of those numbers."""

        def fail(measured, of_side, number):
            if of_side == side and number in numbers:
                for name in names:
                    drop(measured, name)
                    measured.failures[name] = f"{name} returned wrong content"

        return GateFixture("store", "lookup", find=fail).run(with_times=False)

    @pytest.mark.parametrize("numbers", [[0], [1], [0, 1]])
    def test_one_of_the_head_fails_with_its_reason(self, numbers):
        report = self.found("head", "store", numbers=numbers)
        (row,) = of(report, "store").values()
        assert (row.metric, row.verdict, row.reason) == ("", Verdict.FAILED, "store returned wrong content")
        assert report.fails
        assert {row.verdict for row in of(report, "lookup").values()} == {Verdict.SAME}

    def test_one_of_the_base_alone_is_repaired_and_so_new(self):
        report = self.found("base", "store")
        (row,) = of(report, "store").values()
        assert (row.verdict, row.reason) == (Verdict.NEW, "store returned wrong content")
        assert not report.fails

    def test_one_in_a_later_process_is_one(self):
        def fail(measured, side, number):
            if side == "head" and number == 4:
                drop(measured, "store")
                measured.failures["store"] = "it raised"

        report = GateFixture("store", "lookup", find=fail).run()
        assert [row.reason for row in having(report, Verdict.FAILED)] == ["it raised"]

    @pytest.mark.parametrize(("side", "verdict"), [("head", Verdict.FAILED), ("base", Verdict.NOT_DECIDED)])
    @pytest.mark.parametrize("second", [{"copies": 4, "hits": 5}, {"copies": 3, "hits": 5, "more": 1}, {"hits": 5}])
    def test_processes_of_a_side_must_agree(self, side, verdict, second):
        def differ(measured, of_side, number):
            if (of_side, number) == (side, 1):
                measured.metrics["store"] = second

        report = GateFixture("store", "lookup", find=differ).run(with_times=False)
        (row,) = of(report, "store").values()
        differing = "more" if "more" in second else "copies"
        assert row.verdict is verdict
        prefix = "the base failed: " if side == "base" else ""
        assert row.reason == f"{prefix}not deterministic: two processes of the {side} differ in {differing}"


class TestListed:
    """What the base measures by its own files, and this checkout's benchmarks do not."""

    METRICS = frozenset({"copies", "hits"})

    def found(self, listed, meant=(), find=lambda *_: None, **options):
        limits = Thresholds(LIMITS.time, LIMITS.metrics, tuple(meant))
        fixture = GateFixture("store", "lookup", find=find)
        return run_gate(fixture.measure_sides, limits, clock=fixture.clock, listed=listed, **options)

    def test_what_is_measured_as_before_is_no_finding(self):
        report = self.found(dict.fromkeys(["store", "lookup"], self.METRICS | {TIME}))
        assert {row.verdict for row in report.rows} == {Verdict.SAME}

    def test_a_benchmark_that_is_no_more_is_gone(self):
        report = self.found({"slide": self.METRICS}, with_times=False)
        (row,) = of(report, "slide").values()
        assert (row.verdict, row.reason) == (Verdict.GONE, "the base's own benchmarks measure it")
        assert report.fails

    def test_a_compiled_module_that_nothing_looks_for_any_more_is_gone(self):
        report = self.found({"kvcache._slots": {"compiled"}}, with_times=False)
        (row,) = of(report, "kvcache._slots").values()
        assert (row.metric, row.verdict) == ("compiled", Verdict.GONE)

    def test_a_compiled_module_that_is_looked_for_is_judged_by_what_is_found(self):
        def find(measured, side, number):
            measured.compiled["kvcache._slots"] = {"built", "imported"}

        report = self.found({"kvcache._slots": {"compiled"}}, find=find, with_times=False)
        assert {row.verdict for row in report.rows} == {Verdict.SAME}

    def test_one_that_is_skipped_on_both_sides_is_gone_with_the_reason(self):
        def skip(measured, side, number):
            drop(measured, "store")
            measured.skips["store"] = "it is slow"

        (row,) = of(self.found({"store": self.METRICS}, find=skip, with_times=False), "store").values()
        assert (row.verdict, row.reason) == (Verdict.GONE, "it is slow")

    def test_all_that_is_gone_is_a_finding_and_not_nothing_to_compare(self):
        def nothing(measured, side, number):
            for name in ("store", "lookup"):
                drop(measured, name)

        assert self.found({"store": self.METRICS}, find=nothing, with_times=False).fails

    def test_a_metric_that_is_counted_no_more_is_gone(self):
        report = self.found({"store": self.METRICS | {"bytes_copied"}}, with_times=False)
        assert {name: row.verdict for name, row in of(report, "store").items()} == {
            "copies": Verdict.SAME, "hits": Verdict.SAME, "bytes_copied": Verdict.GONE,
        }  # fmt: skip

    def test_a_time_that_is_measured_no_more_is_gone(self):
        def untimed(measured, side, number):
            measured.times.pop("store", None)

        report = self.found(dict.fromkeys(["store", "lookup"], self.METRICS | {TIME}), find=untimed)
        assert of(report, "store")[TIME].verdict is Verdict.GONE
        assert of(report, "lookup")[TIME].verdict is Verdict.SAME

    @pytest.mark.parametrize("metric", ["*", "bytes_copied"])
    def test_what_is_meant_to_be_gone_passes(self, metric):
        gone = {"*": {"slide": self.METRICS}, "bytes_copied": {"store": self.METRICS | {"bytes_copied"}}}[metric]
        report = self.found(gone, [Meant(metric, "merged with store", *gone, change="gone")], with_times=False)
        assert [row.reason for row in having(report, Verdict.MEANT)] == ["merged with store"]
        assert not report.fails

    def test_what_this_checkout_cannot_measure_of_the_base_is_not_new(self):
        def skip(measured, side, number):
            if side == "base":
                drop(measured, "store")
                measured.skips["store"] = "no such backend"

        (row,) = of(self.found({"store": self.METRICS}, find=skip, with_times=False), "store").values()
        assert row.verdict is Verdict.NOT_DECIDED
        assert row.reason.endswith("this checkout's do not: no such backend")


class TestOneSideOnly:
    def missing(self, side, *names, why="this commit has no such backend"):
        def skip(measured, of_side, number):
            if of_side == side:
                for name in names:
                    drop(measured, name)
                    measured.skips[name] = why

        return GateFixture("store", "lookup", find=skip)

    def test_what_the_base_lacks_is_new_with_the_reason(self):
        report = self.missing("base", "store").run()
        (row,) = of(report, "store").values()
        assert (row.verdict, row.reason) == (Verdict.NEW, "this commit has no such backend")
        assert report.is_decided
        assert not report.fails

    def test_what_the_head_lacks_is_gone_with_the_reason(self):
        report = self.missing("head", "store").run()
        (row,) = of(report, "store").values()
        assert (row.verdict, row.reason) == (Verdict.GONE, "this commit has no such backend")
        assert report.fails

    def test_a_base_that_has_nothing_decides_nothing(self):
        report = self.missing("base", "store", "lookup").run(with_times=False)
        assert [row.verdict for row in report.rows] == [Verdict.NEW] * 2
        assert not report.is_decided
        assert not report.fails

    def test_a_head_that_has_nothing_has_lost_everything(self):
        assert len(having(self.missing("head", "store", "lookup").run(with_times=False), Verdict.GONE)) == 2

    def test_nothing_selected_is_no_comparison(self):
        with pytest.raises(GateError, match="no benchmark was selected: there is nothing to compare"):
            GateFixture().run()

    def test_everything_skipped_is_no_comparison_and_why(self):
        why = "this commit's kvcache does not fit the harness"

        def skip(measured, side, number):
            drop(measured, "store")
            measured.skips["store"] = why

        with pytest.raises(GateError, match=re.escape(f"{why}: there is nothing to compare")):
            GateFixture("store", find=skip).run()
