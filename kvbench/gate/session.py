"""A gate run: pairs of processes in alternating order, until every benchmark is decided or no pair is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType

from kvbench.gate.compiled import compare_compiled
from kvbench.gate.processes import GateError, Measured
from kvbench.gate.rows import compare_metrics, gone
from kvbench.gate.thresholds import TIME, Thresholds
from kvbench.gate.times import PairedRun
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict
from kvbench.metrics import COMPILED

__all__ = ["BUDGET", "MOST_PAIRS", "GateReport", "run_gate"]

# Deterministic metrics are measured by two processes a side, with hash seeds of their own: they must agree.
COUNTED_PAIRS = 2
_BY_OWN_FILES = "the base's own benchmarks measure it"
MOST_PAIRS = 20
BUDGET = 900.0  # seconds

# Measures sides in their order: their names, a hash seed, what to measure, and where (nowhere: everything).
Measure = Callable[[Sequence[str], int, str, Iterable[str]], Mapping[str, Measured]]
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
    def is_decided(self) -> bool:
        """Whether there was something to compare, and all of it was decided."""
        verdicts = {row.verdict for row in self.rows}
        return Verdict.NOT_DECIDED not in verdicts and verdicts != {Verdict.NEW}


@dataclass
class _Side:
    """What all processes of one side found so far, but for times: those belong to pairs."""

    timed: set[str] = field(default_factory=set)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    skips: dict[str, str] = field(default_factory=dict)
    compiled: dict[str, set[str]] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Benchmarks that measured something."""
        return {*self.metrics, *self.timed}

    def timed_metric(self, name: str) -> set[str]:
        return {TIME} if name in self.timed else set()

    def add(self, measured: Measured, side: str) -> None:
        for name, metrics in measured.metrics.items():
            known = self.metrics.setdefault(name, metrics)
            differing = sorted(each for each in {*known, *metrics} if metrics.get(each) != known.get(each))
            if differing:
                self.failures[name] = f"not deterministic: two processes of the {side} differ in {', '.join(differing)}"
        self.timed |= measured.times.keys()
        self.failures |= measured.failures
        self.skips |= measured.skips
        self.compiled |= measured.compiled


def run_gate(
    measure: Measure,
    thresholds: Thresholds,
    *,
    most_pairs: int = MOST_PAIRS,
    budget: float = BUDGET,
    with_times: bool = True,
    listed: Mapping[str, Set[str]] = MappingProxyType({}),
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = lambda pairs, undecided, seconds: None,
) -> GateReport:
    """Compare base and head.

    Pairs of processes are measured in the order A B, B A, A B, ... Everything is measured until the least number of
    pairs that can decide. After that only what is not decided is measured, for at most ``most_pairs``.

    ``budget`` is seconds, like ``clock``: no pair is begun that would not end within it. Metrics are measured whatever
    it is. Without ``with_times`` nothing else is. ``progress`` is called after each pair.

    ``listed`` are the metrics, and ``time``, of each benchmark that the base has by its own files, and its compiled
    modules.

    Raises GateError: there was nothing to compare.
    """
    pairs = _Pairs(measure, PairedRun(thresholds, most_pairs), listed)
    began = clock()
    while True:
        before = clock()
        pairs.measure_next(with_times)
        now = clock()
        is_last = pairs.done >= most_pairs or now - began + (now - before) > budget
        rows = pairs.judge(thresholds, is_last)
        progress(pairs.done, len(pairs.times.undecided), now - began)
        if pairs.done >= COUNTED_PAIRS and (is_last or pairs.times.is_slower or not pairs.times.undecided):
            return GateReport(rows, pairs.done, clock() - began)


class _Pairs:
    """All pairs of processes so far: how many, and what each side showed."""

    def __init__(self, measure: Measure, times: PairedRun, listed: Mapping[str, Set[str]]) -> None:
        self.done = 0
        self._modules = {name for name, metrics in listed.items() if COMPILED.name in metrics}
        self._listed = {name: metrics for name, metrics in listed.items() if name not in self._modules}
        self.times = times
        self._measure = measure
        self._sides = {"base": _Side(), "head": _Side()}
        self._places: dict[str, str] = {}

    def measure_next(self, with_times: bool) -> None:
        what = "metrics" if not with_times else "both" if self.done < COUNTED_PAIRS else "times"
        chosen = [] if self.times.needs_all else [self._places[name] for name in self.times.undecided]
        sides = ("base", "head") if self.done % 2 == 0 else ("head", "base")
        measured = self._measure(sides, self.done + 1, what, chosen)
        for side, found in measured.items():
            self._sides[side].add(found, side)
            self._places |= found.places
        self.times.add(measured["base"].times, measured["head"].times)
        self.done += 1

    def judge(self, thresholds: Thresholds, is_last: bool) -> list[Row]:
        base, head = self._sides["base"], self._sides["head"]
        # What the head's failure means does not depend on the base's.
        rows = [Row(name, "", Verdict.FAILED, reason=reason) for name, reason in head.failures.items()]
        compared = []
        for name in sorted((base.names | head.names | self._listed.keys()) - head.failures.keys()):
            lone = _of_one_side(name, base, head, self._listed, thresholds)
            if lone is None:
                compared.append(name)
                found = compare_metrics(name, base.metrics.get(name, {}), head.metrics.get(name, {}), thresholds)
                lacking = self._listed.get(name, set()) - {row.metric for row in found} - head.timed_metric(name)
                rows += [*found, *(gone(name, each, thresholds, _BY_OWN_FILES) for each in sorted(lacking))]
            else:
                rows.append(lone)
        if not rows and not compared:
            reason = next(iter(head.skips.values()), "no benchmark was selected")
            raise GateError(f"{reason}: there is nothing to compare")
        rows += compare_compiled(base.compiled, head.compiled, thresholds)
        unseen = self._modules - base.compiled.keys() - head.compiled.keys()
        rows += [gone(name, COMPILED.name, thresholds, _BY_OWN_FILES) for name in sorted(unseen)]
        return rows + self.times.judge(compared, is_last)


def _of_one_side(name: str, base: _Side, head: _Side, listed: Container[str], thresholds: Thresholds) -> Row | None:
    """The row of a benchmark that cannot be compared."""
    if name not in head.names and (name in listed or (name in base.names and name not in base.failures)):
        return gone(name, "", thresholds, head.skips.get(name, _BY_OWN_FILES if name in listed else ""))
    reason = base.failures.get(name) or base.skips.get(name, "")
    if name in base.names and name in base.failures:
        return Row(name, "", Verdict.NOT_DECIDED, reason=f"the base failed: {reason}")
    if name in base.names:
        return None
    if name in listed:
        fault = "the base's own benchmarks measure it there, and this checkout's do not"
        return Row(name, "", Verdict.NOT_DECIDED, reason=f"{fault}: {reason}" if reason else fault)
    return Row(name, "", Verdict.NEW, reason=reason)
