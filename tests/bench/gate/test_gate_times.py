"""Times of a run pair by pair: what is decided stays so, and what all benchmarks say together."""

import numpy as np
import pytest

from kvbench.gate.thresholds import TIME, Limit, Meant, Thresholds
from kvbench.gate.times import FEWEST_OF_ALL, PairedRun
from kvbench.judge.paired import FEWEST_PAIRS
from kvbench.judge.row import ALL
from kvbench.judge.verdict import Verdict

LIMITS = Thresholds(Limit("lower", relative=0.05), {})


class Run:
    """Benchmarks that take 10 us, with noise of their own; ``slower`` are factors of the head's."""

    def __init__(self, slower, noise=0.02, limits=LIMITS, most_pairs=20):
        self.random = np.random.default_rng(0)
        self.slower = np.array(slower)
        self.noise = noise
        self.names = [f"b{number:02}" for number in range(len(slower))]
        self.run = PairedRun(limits, most_pairs)
        self.rows = {}

    def go_on(self, pairs, is_last=False):
        for _ in range(pairs):
            base, head = 10 * np.exp(self.random.normal(0, self.noise, (2, len(self.names))))
            names = self.names if self.run.needs_all else self.run.undecided
            base, head = (dict(zip(self.names, side, strict=True)) for side in (base, head * self.slower))
            self.run.add({name: base[name] for name in names}, {name: head[name] for name in names})
            self.rows = {row.benchmark: row for row in self.run.judge(self.names, is_last)}
        return self


def test_what_is_slower_everywhere_ends_the_run_after_five_pairs():
    found = Run([1.3] * 60, noise=0.1).go_on(FEWEST_PAIRS)
    row = found.rows[ALL]
    assert (row.metric, row.verdict, row.pairs, row.base) == (TIME, Verdict.WORSE, 5, None)
    assert row.low > 1.05
    assert found.run.is_slower
    assert len(found.run.undecided) > 30  # each alone is not sure yet


def test_what_is_slower_in_half_of_all_is_worse():
    assert Run([1.3, 1.0] * 30).go_on(8).rows[ALL].verdict is Verdict.WORSE


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_identical_code_is_not(noise):
    found = Run([1.0] * 40, noise=noise).go_on(20)
    assert not any(row.verdict.fails for row in found.rows.values())


def test_all_together_are_measured_until_they_are_decided_and_then_what_is_not():
    found = Run([1.0] * 20, noise=0.5).go_on(FEWEST_PAIRS)
    assert found.run.needs_all
    while found.run.needs_all:
        found.go_on(1)
    assert found.rows[ALL].verdict is Verdict.SAME
    pairs = found.rows[ALL].pairs
    found.go_on(3)
    assert found.rows[ALL].pairs == pairs
    assert {found.rows[name].pairs for name in found.run.undecided} == {pairs + 3}


def test_what_is_decided_stays_so_while_others_are_measured():
    found = Run([1.0, 2.0, *[1.08] * 10], noise=0.01).go_on(FEWEST_PAIRS)
    before = {name: row for name, row in found.rows.items() if row.verdict is not Verdict.NOT_DECIDED}
    assert {"b00", "b01"} <= before.keys()
    found.slower = found.slower[::-1]
    found.go_on(4)
    assert {name: found.rows[name] for name in before} == before


@pytest.mark.parametrize("many", [1, FEWEST_OF_ALL - 1])
def test_few_benchmarks_are_not_asked_together(many):
    found = Run([1.3] * many).go_on(FEWEST_PAIRS)
    assert ALL not in found.rows
    assert not found.run.needs_all


@pytest.mark.parametrize(
    "limits",
    [
        Thresholds(LIMITS.time, {}, (Meant(TIME, "so", "b0*", relative=2),)),
        Thresholds(Limit("lower", relative=0.05, absolute=11), {}),
    ],
)
def test_what_is_meant_or_too_short_to_matter_is_no_matter_of_all(limits):
    slower = [2.0] * 10 + [1.0] * 10
    assert Run(slower).go_on(8).rows[ALL].verdict is Verdict.WORSE
    assert not Run(slower, limits=limits).go_on(8).run.is_slower


def test_where_each_is_decided_nothing_is_asked_of_all():
    found = Run([2.0] * 3 + [1.0] * 5, noise=0.003).go_on(FEWEST_PAIRS)
    assert not found.run.undecided
    assert ALL not in found.rows
