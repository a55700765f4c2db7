"""A gate run: pairs of processes in alternating order, until every benchmark is decided or the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kvbench.gate.processes import GateError, Measured
from kvbench.gate.thresholds import TIME, Thresholds
from kvbench.gate.verdicts import FEWEST_PAIRS, Row, Verdict, compare_metrics, compare_times

__all__ = ["BUDGET", "GateReport", "run_gate"]

BUDGET = 300.0  # seconds
# Deterministic metrics are measured by two processes a side, with hash seeds of their own: they must agree.
COUNTED_PAIRS = 2

# Measures one side: its name, a hash seed, what to measure, and where (nowhere: everything).
Measure = Callable[[str, int, str, Iterable[str]], Measured]
Progress = Callable[[int, int, float], None]  # (pairs done, benchmarks still to decide, seconds passed)


def _no_progress(pairs: int, undecided: int, seconds: float) -> None:
    pass


@dataclass
class GateReport:
    """What a gate run found.

    Attributes:
        rows: every metric of every benchmark.
        pairs: of processes that were measured.
        seconds: that it took.
    """

    rows: list[Row]
    pairs: int
    seconds: float

    def of(self, *verdicts: Verdict) -> list[Row]:
        """The rows with one of these verdicts."""
        return [row for row in self.rows if row.verdict in verdicts]

    @property
    def fails(self) -> bool:
        """Whether something got worse, is gone or failed."""
        return any(row.verdict.fails for row in self.rows)

    @property
    def is_conclusive(self) -> bool:
        """Whether there was something to compare, and all of it was decided."""
        return not self.of(Verdict.INCONCLUSIVE) and len(self.of(Verdict.NEW)) < len(self.rows)


@dataclass
class _Side:
    """What all processes of one side found so far; times pair by pair."""

    times: dict[str, list[float]] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    skips: dict[str, str] = field(default_factory=dict)

    def add(self, measured: Measured, side: str) -> None:
        for name, metrics in measured.metrics.items():
            known = self.metrics.setdefault(name, metrics)
            differing = sorted(each for each in {*known, *metrics} if metrics.get(each) != known.get(each))
            if differing:
                self.failures[name] = f"not deterministic: two processes of the {side} differ in {', '.join(differing)}"
        self.failures |= measured.failures
        self.skips |= measured.skips


def run_gate(
    measure: Measure,
    thresholds: Thresholds,
    *,
    budget: float = BUDGET,
    with_times: bool = True,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = _no_progress,
) -> GateReport:
    """Compare base and head.

    Pairs of processes are measured in the order A B, B A, A B, ... Everything is measured until the least number of
    pairs that can decide; from then on only what is undecided, as long as another pair fits the budget.

    Args:
        measure: of one process (``GateFixture.measure``).
        thresholds: what counts as a change.
        budget: seconds for measuring. Metrics are measured whatever it is.
        with_times: whether times are measured, or deterministic metrics only.
        clock: seconds.
        progress: told after each pair.

    Raises:
        GateError: there was nothing to compare.
    """
    sides = {"base": _Side(), "head": _Side()}
    places: dict[str, str] = {}
    began = clock()
    pairs = 0
    undecided: list[str] = []
    while True:
        before = clock()
        counted = pairs < COUNTED_PAIRS
        what = "metrics" if not with_times else "both" if counted else "times"
        measured: dict[str, Measured] = {}
        chosen = [places[name] for name in undecided] if pairs >= FEWEST_PAIRS else []
        for side in ("base", "head") if pairs % 2 == 0 else ("head", "base"):
            measured[side] = measure(side, pairs + 1, what, chosen)
            sides[side].add(measured[side], side)
            places |= measured[side].places
        for name in measured["base"].times.keys() & measured["head"].times.keys():
            for side, found in sides.items():
                found.times.setdefault(name, []).append(measured[side].times[name])
        pairs += 1
        rows = _judge(sides["base"], sides["head"], thresholds)
        if not rows:
            reason = next(iter(sides["head"].skips.values()), "no benchmark was selected")
            raise GateError(f"{reason}: there is nothing to compare")
        undecided = _undecided(rows)
        now = clock()
        progress(pairs, len(undecided), now - began)
        if pairs >= COUNTED_PAIRS and (not undecided or now - began + (now - before) > budget):
            break
    return GateReport(rows, pairs, clock() - began)


def _undecided(rows: list[Row]) -> list[str]:
    return sorted(row.benchmark for row in rows if row.metric == TIME and row.verdict is Verdict.INCONCLUSIVE)


def _judge(base: _Side, head: _Side, thresholds: Thresholds) -> list[Row]:
    rows = []
    # What the head's failure means does not depend on the base's.
    for name, reason in head.failures.items():
        rows.append(Row(name, "", Verdict.FAILED, reason=reason))
    for name in sorted({*base.metrics, *base.times, *head.metrics, *head.times} - set(head.failures)):
        in_base = name in base.metrics or name in base.times
        in_head = name in head.metrics or name in head.times
        if not in_base:
            rows.append(Row(name, "", Verdict.NEW, reason=base.failures.get(name) or base.skips.get(name, "")))
        elif name in base.failures:
            rows.append(Row(name, "", Verdict.INCONCLUSIVE, reason=f"the base failed: {base.failures[name]}"))
        elif not in_head:
            rows.append(Row(name, "", Verdict.GONE, reason=head.skips.get(name, "")))
        else:
            rows += compare_metrics(name, base.metrics.get(name, {}), head.metrics.get(name, {}), thresholds)
            if name in base.times and name in head.times:
                rows.append(compare_times(name, base.times[name], head.times[name], thresholds))
    return rows
