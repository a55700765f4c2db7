"""A gate run: pairs of processes in alternating order, until every benchmark is decided or the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kvbench.gate.processes import GateError, Measured
from kvbench.gate.rows import Row, compare_metrics, compare_times
from kvbench.gate.thresholds import TIME, Thresholds
from kvbench.judge.paired import FEWEST_PAIRS
from kvbench.judge.verdict import Verdict

__all__ = ["GateReport", "run_gate"]

# Deterministic metrics are measured by two processes a side, with hash seeds of their own: they must agree.
COUNTED_PAIRS = 2

# Measures one side: its name, a hash seed, what to measure, and where (nowhere: everything).
Measure = Callable[[str, int, str, Iterable[str]], Measured]
Progress = Callable[[int, int, float], None]  # (pairs done, benchmarks still to decide, seconds passed)


@dataclass
class GateReport:
    """What a gate run found: every metric of every benchmark, in so many pairs of processes and seconds.

    ``notes`` say what could not be measured here, and why.
    """

    rows: list[Row]
    pairs: int
    seconds: float
    notes: list[str] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        """Whether something got worse, is gone or failed."""
        return any(row.verdict.fails for row in self.rows)

    @property
    def is_conclusive(self) -> bool:
        """Whether there was something to compare, and all of it was decided."""
        verdicts = {row.verdict for row in self.rows}
        return Verdict.INCONCLUSIVE not in verdicts and verdicts != {Verdict.NEW}


@dataclass
class _Side:
    """What all processes of one side found so far; times pair by pair."""

    times: dict[str, list[float]] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    skips: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Benchmarks that measured something."""
        return {*self.metrics, *self.times}

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
    budget: float = 300,
    with_times: bool = True,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = lambda pairs, undecided, seconds: None,
) -> GateReport:
    """Compare base and head.

    Pairs of processes are measured in the order A B, B A, A B, ... Everything is measured until the least number of
    pairs that can decide. After that only what is undecided is measured, as long as another pair fits the budget.

    ``budget`` is seconds, like ``clock``: metrics are measured whatever it is. Without ``with_times`` nothing else is.
    ``progress`` is called after each pair.

    Raises GateError: there was nothing to compare.
    """
    pairs = _Pairs(measure)
    began = clock()
    while True:
        before = clock()
        pairs.measure_next(with_times)
        rows = pairs.judge(thresholds)
        now = clock()
        progress(pairs.done, len(pairs.undecided), now - began)
        fits = now - began + (now - before) <= budget
        if pairs.done >= COUNTED_PAIRS and not (pairs.undecided and fits):
            return GateReport(rows, pairs.done, clock() - began)


class _Pairs:
    """All pairs of processes so far: how many, what each side showed, and which benchmarks are undecided."""

    def __init__(self, measure: Measure) -> None:
        self.done = 0
        self.undecided: list[str] = []
        self._measure = measure
        self._sides = {"base": _Side(), "head": _Side()}
        self._places: dict[str, str] = {}

    def measure_next(self, with_times: bool) -> None:
        what = "metrics" if not with_times else "both" if self.done < COUNTED_PAIRS else "times"
        chosen = [self._places[name] for name in self.undecided] if self.done >= FEWEST_PAIRS else []
        measured: dict[str, Measured] = {}
        for side in ("base", "head") if self.done % 2 == 0 else ("head", "base"):
            measured[side] = self._measure(side, self.done + 1, what, chosen)
            self._sides[side].add(measured[side], side)
            self._places |= measured[side].places
        for name in measured["base"].times.keys() & measured["head"].times.keys():
            for side, found in self._sides.items():
                found.times.setdefault(name, []).append(measured[side].times[name])
        self.done += 1

    def judge(self, thresholds: Thresholds) -> list[Row]:
        base, head = self._sides["base"], self._sides["head"]
        # What the head's failure means does not depend on the base's.
        rows = [Row(name, "", Verdict.FAILED, reason=reason) for name, reason in head.failures.items()]
        for name in sorted((base.names | head.names) - set(head.failures)):
            rows += _judge(name, base, head, thresholds)
        if not rows:
            reason = next(iter(head.skips.values()), "no benchmark was selected")
            raise GateError(f"{reason}: there is nothing to compare")
        times = [row for row in rows if row.metric == TIME]
        self.undecided = sorted(row.benchmark for row in times if row.verdict is Verdict.INCONCLUSIVE)
        return rows


def _judge(name: str, base: _Side, head: _Side, thresholds: Thresholds) -> list[Row]:
    if name not in base.names:
        return [Row(name, "", Verdict.NEW, reason=base.failures.get(name) or base.skips.get(name, ""))]
    if name in base.failures:
        return [Row(name, "", Verdict.INCONCLUSIVE, reason=f"the base failed: {base.failures[name]}")]
    if name not in head.names:
        return [Row(name, "", Verdict.GONE, reason=head.skips.get(name, ""))]
    rows = compare_metrics(name, base.metrics.get(name, {}), head.metrics.get(name, {}), thresholds)
    if name in base.times and name in head.times:
        rows.append(compare_times(name, base.times[name], head.times[name], thresholds))
    return rows
