"""Samples of whole searches: what is chosen, and whether the error that is printed is the error that is made."""

from dataclasses import replace

import numpy as np
import pytest
from traces import COMMITTED, TINY, synthetic

from kvbench.capacity.census import Census
from kvbench.capacity.curves import ENTRIES, PAGES, Sized, count_lines
from kvbench.capacity.lines import follow
from kvbench.capacity.requests import Requests
from kvbench.capacity.sampling import FEWEST, Estimate, Sample
from kvbench.trace.reader import TraceReader
from kvcache import Scope

RATES = ["hit_rate", "context_mismatch_rate", "stale_hit_rate", "miss_rate"]
ERRORS = [each.replace("rate", "error") for each in RATES]


@pytest.fixture(scope="module")
def long_trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "long.parquet"
    return TraceReader(synthetic(path, searches=80, episode_length=8, transpositions=0.3))


def counted(requests, lines, pool="recur"):
    return count_lines(requests, TINY, lines, pool, census=requests.census, sample=requests.sample)


def census_of(periods):
    return Census(events=100 * periods, lookups=dict.fromkeys(Scope, 50 * periods), periods=np.arange(1, periods + 1))


class TestWhatIsChosen:
    def test_whole_periods_and_as_many_as_asked_for(self):
        sample = Sample.of(census_of(1000), 20_000)
        assert len(sample.chosen) == 200
        assert sample.periods == 1000
        assert set(sample.chosen) <= set(range(1, 1001))

    def test_a_larger_sample_holds_a_smaller_one(self):
        small, large = (Sample.of(census_of(1000), events) for events in (5_000, 20_000))
        assert set(small.chosen) < set(large.chosen)

    def test_never_fewer_than_tell_of_the_spread(self):
        assert len(Sample.of(census_of(1000), 1).chosen) == FEWEST

    def test_all_is_no_sample(self):
        assert Sample.of(census_of(20), 2_000) is None
        assert Sample.of(census_of(FEWEST), 1) is None

    def test_steps_are_those_of_chosen_searches_and_all_roots(self, long_trace):
        requests = Requests(long_trace, most_events=long_trace.rows // 4)
        whole, sampled = list(Requests(long_trace)), list(requests)
        roots = [step for step in whole if step.scope is Scope.ROOT]
        assert [step for step in sampled if step.scope is Scope.ROOT] == roots
        nodes = [step for step in sampled if step.is_recurrent]
        searches = {step.search for step in nodes}
        assert len(searches) == len(requests.sample.chosen) == 20
        assert nodes == [step for step in whole if step.is_recurrent and step.search in searches]

    def test_of_the_first_searches_alone(self, long_trace):
        requests = Requests(long_trace, 40, long_trace.rows // 8)
        assert requests.census.searches == 40
        assert max(step.search for step in requests) < 40
        assert len(requests.sample.chosen) == 10


class TestErrors:
    LINES = (Sized("fifo", ENTRIES, [2, 5]), Sized("legacy", ENTRIES, [3]), Sized("lru", PAGES, [20]),
             Sized("belady", ENTRIES, [3]), Sized("strict", ENTRIES, [3]))  # fmt: skip

    def test_everything_has_no_error(self, long_trace):
        assert not counted(Requests(long_trace), self.LINES)[ERRORS].to_numpy().any()

    def test_counts_are_of_the_whole_trace(self, long_trace):
        whole, sampled = (counted(Requests(long_trace, most_events=most), self.LINES) for most in (None, 2000))
        assert sampled["lookups"].tolist() == whole["lookups"].tolist()
        assert sampled[RATES].sum(axis=1).tolist() == pytest.approx([1.0] * len(whole))

    def test_estimates_are_right_in_the_mean_and_within_their_errors(self, long_trace):
        # 95 % of the intervals of many samples; of 200, 90 % is more than five deviations below.
        periods = counts_of_periods(Requests(long_trace), Sized("fifo", ENTRIES, [2, 5]))
        census = Requests(long_trace).census
        exact = rates_of(periods, None)[0]
        samples = [Sample.of(census, census.events // 3, seed) for seed in range(200)]
        found = [rates_of(periods, each) for each in samples]
        off = np.array([rates for rates, _ in found]) - exact
        assert np.abs(off.mean(axis=0)).max() < 0.005
        within = np.abs(off) <= np.array([errors for _, errors in found]) + 1e-9
        assert within.mean(axis=0)[:, HIT].min() >= 0.9
        assert np.abs(off).max() > 0.02  # single samples do differ

    def test_a_larger_sample_has_a_smaller_error(self, long_trace):
        errors = [
            counted(Requests(long_trace, most_events=long_trace.rows // part), self.LINES)[ERRORS].to_numpy().max()
            for part in (8, 2)
        ]
        assert 0 < errors[1] < errors[0]

    def test_the_interval_of_equal_periods_is_that_of_their_mean(self):
        # Periods of one size: the estimate is the mean of their shares, with Student's interval.
        generator = np.random.default_rng(0)
        shares, sample = generator.integers(0, 11, 40), Sample(np.arange(40), 10**9, {Scope.ROOT: 0, Scope.NODE: 10**9})
        estimate = Estimate()
        for hits in shares:
            estimate.add(np.array([[[0, 0, 0, 0], [hits, 0, 0, 10 - hits]]]))
        half = 2.0227 * (shares / 10).std(ddof=1) / 40**0.5
        assert estimate.errors(sample)[0, 0] == pytest.approx(half, rel=1e-4)
        assert estimate.counts(sample)[0, 0] == pytest.approx(1e9 * shares.mean() / 10)

    def test_one_period_says_nothing(self):
        estimate = Estimate()
        estimate.add(np.array([[[0, 0, 0, 0], [5, 0, 0, 5]]]))
        assert estimate.errors(Sample(np.arange(1), 9, {Scope.ROOT: 0, Scope.NODE: 90})).tolist() == [[1, 1, 1, 1]]

    @pytest.mark.slow
    def test_on_the_recorded_search(self):
        reader = TraceReader(COMMITTED)
        line = [Sized("lru", ENTRIES, [12, 50, 100, 150])]
        whole, requests = Requests(reader), Requests(reader, most_events=18_000)
        exact = count_lines(whole, whole.geometry, line, census=whole.census)
        sampled = count_lines(requests, whole.geometry, line, census=requests.census, sample=requests.sample)
        off = np.abs(exact[RATES].to_numpy() - sampled[RATES].to_numpy())
        assert len(requests.sample.chosen) == 29
        assert 0 < off.max() < 0.015
        assert (off <= 2 * sampled[ERRORS].to_numpy() + 1e-9).all()


HIT = 0


def counts_of_periods(requests, line):
    """Of each period, by its number."""
    made, found, before, period = line.made(TINY, "recur", True), {}, 0, 0
    for step in follow(requests, [made]):
        if "recur" in step.clears:
            found[period], before, period = made.table() - before, made.table(), period + 1
    found[period] = made.table() - before
    return found


def rates_of(periods, sample):
    estimate = Estimate()
    for number, counts in periods.items():
        is_followed = sample is None or number in sample.chosen
        estimate.add(counts * np.array([1, int(is_followed)])[:, None])  # root lookups are followed in all
    counts = estimate.counts(sample)
    return counts / counts.sum(axis=1, keepdims=True), estimate.errors(sample)


class TestWhatCannotBeSampled:
    def test_a_pool_that_is_never_cleared(self, tmp_path):
        reader = TraceReader(synthetic(tmp_path / "one", searches=1))
        requests = Requests(reader, most_events=10)
        assert requests.sample is None
        assert requests.cannot_sample == "it never clears the recurrent pool between lookups"

    def test_nodes_of_earlier_searches(self, long_trace, monkeypatch):
        monkeypatch.setattr(Census, "of", classmethod(lambda cls, parts: replace(real(parts), crosses=True)))
        requests = Requests(long_trace, most_events=1000)
        assert requests.sample is None
        assert requests.cannot_sample == "its lookups mean contexts of earlier searches"


real = Census.of
