import json

import pytest

from kvbench.measure.counters import Counts
from kvbench.replay.outcomes import Outcome, Outcomes
from kvbench.replay.passes import BackendReport, StepTimes, Verification
from kvbench.replay.summary import median_step, ratio, summarise
from kvcache.backend import Scope


def report(name="some", **values):
    return BackendReport(name, **values)


def timed(*repetitions):
    return report(times=StepTimes(step=[list(each) for each in repetitions]))


def verification(outcomes, steps=()):
    return Verification(outcomes, [], {"store": Counts(1, 2, 3, 4, 5)}, list(steps), {"init": 1, "recur": 2}, {})


def test_rates_are_shares_of_all_lookups_and_never_mixed():
    outcomes = Outcomes()
    for outcome, times in zip(Outcome, (5, 1, 2, 1, 1), strict=True):
        for _ in range(times):
            outcomes.add(Scope.NODE, outcome, True)
    summary = summarise(report(verification=verification(outcomes)))["outcomes"]
    assert summary["node"] == summary["total"]
    assert summary["total"] == {
        "lookups": 10, "hit": 5, "miss": 1, "stale_hit": 2, "context_mismatch": 1, "wrong_content": 1,
        "hit_rate": 0.5, "miss_rate": 0.1, "stale_hit_rate": 0.2, "context_mismatch_rate": 0.1,
        "wrong_content_rate": 0.1,
    }  # fmt: skip
    assert summary["recorded_lookups"] == 10
    assert summary["disagreements_with_recorded_run"] == 1


def test_no_lookups_have_no_rate():
    summary = summarise(report(verification=verification(Outcomes())))["outcomes"]
    assert summary["root"]["lookups"] == 0
    assert summary["root"]["hit_rate"] is None


def test_what_was_not_measured_is_none():
    summary = summarise(report())
    assert summary.pop("name") == "some"
    assert set(summary.values()) == {None}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_counts_by_operation():
    summary = summarise(report(verification=verification(Outcomes())))
    assert summary["counts"] == {
        "store": {"tensor_ops": 1, "bytes_copied": 2, "allocations": 3, "bytes_allocated": 4, "synchronisations": 5}
    }
    assert summary["evictions"] == {"init": 1, "recur": 2}


def test_latencies_are_microseconds():
    times = StepTimes(step=[[1000, 3000], [2000, 4000]])
    times.host["store"] = list(range(1000, 102_000, 1000))
    latency = summarise(report(times=times))["latency_us"]
    assert latency["store"].pop("percentiles") == pytest.approx(range(1, 102))
    assert latency["store"] == {"p50": 51.0, "p95": 96.0, "p99": 100.0, "samples": 101}
    assert latency["recurrent_step"]["p50"] == 2.5
    assert latency["recurrent_step"]["samples"] == 4
    assert "clear" not in latency  # never called: no number


def test_median_of_counts():
    counts = [Counts(tensor_ops=each, bytes_copied=10 * each) for each in (1, 2, 9)]
    assert median_step(counts) == {
        "tensor_ops": 2.0, "bytes_copied": 20.0, "allocations": 0.0, "bytes_allocated": 0.0, "synchronisations": 0.0,
    }  # fmt: skip
    assert median_step([]) is None


class TestRatio:
    def test_is_the_median_of_pairs_not_the_ratio_of_medians(self):
        baseline, other = timed([10, 20, 100]), timed([10, 5, 20])
        assert ratio(baseline, other)["median"] == 4.0

    def test_repetitions(self):
        found = ratio(timed([2, 2], [4, 4]), timed([1, 1], [1, 1]))
        assert found == {"median": 3.0, "p25": 2.0, "p75": 4.0, "lowest_repetition": 2.0, "highest_repetition": 4.0}

    def test_turned_round(self):
        assert ratio(timed([2, 2]), timed([4, 4]))["median"] == 0.5

    @pytest.mark.parametrize("untimed", [report(), timed([])])
    def test_nothing_timed(self, untimed):
        assert ratio(untimed, untimed) is None
