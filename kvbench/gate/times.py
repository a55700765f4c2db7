"""Times of a gate run, pair by pair: which benchmarks are decided, and what of all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from kvbench.gate.rows import compare_all, compare_times
from kvbench.gate.thresholds import TIME, Thresholds
from kvbench.judge.paired import FEWEST_PAIRS, pair_of_all, worse_level
from kvbench.judge.row import ALL, Row
from kvbench.judge.verdict import Verdict

__all__ = ["PairedRun"]

# Of a run's false alarms, for the question that is asked of all benchmarks together; the others share the rest.
SHARE_OF_ALL = 0.5
FEWEST_OF_ALL = 8  # of fewer benchmarks the mean says little that they do not say themselves


class PairedRun:
    """What pairs of processes took so far. What is decided stays so, and further times of it are not taken in.

    Attributes:
        undecided: names of the benchmarks that want further pairs.
        is_slower: whether all benchmarks together are worse, which ends the run.
    """

    def __init__(self, thresholds: Thresholds, most_pairs: int) -> None:
        self.undecided: list[str] = []
        self.is_slower = False
        self._thresholds = thresholds
        self._most_pairs = most_pairs
        self._times: dict[str, tuple[list[float], list[float]]] = {}
        self._pairs = 0
        self._ratios_of_all: list[float] = []
        self._decided: dict[str, Row] = {}

    @property
    def needs_all(self) -> bool:
        """Whether the next pair has to measure what is decided, too: all together are not."""
        return self._pairs < FEWEST_PAIRS or (bool(self._ratios_of_all) and ALL not in self._decided)

    def add(self, base: Mapping[str, float], head: Mapping[str, float]) -> None:
        """Take in what both sides of a pair took, in microseconds."""
        both = sorted(base.keys() & head.keys())
        for name in both:
            if name not in self._decided:
                for times, side in zip(self._times.setdefault(name, ([], [])), (base, head), strict=True):
                    times.append(side[name])
        alike = [name for name in both if self._is_like_others(name, base[name])]
        if self.needs_all and len(alike) >= FEWEST_OF_ALL:
            ratios = np.log([head[name] for name in alike]) - np.log([base[name] for name in alike])
            self._ratios_of_all.append(float(pair_of_all(ratios)))
        self._pairs += 1

    def judge(self, names: Iterable[str], is_last: bool) -> list[Row]:
        """The rows of so many benchmarks, and of all together; ``is_last``: no pair will follow.

        Before the first look there are none.
        """
        if self._pairs < FEWEST_PAIRS and not is_last:
            self.undecided = [name for name in names if name in self._times]
            return []
        together = self._judge_all(is_last)
        self.is_slower = together is not None and together.verdict is Verdict.WORSE
        share = (1 - SHARE_OF_ALL if together else 1) / max(len(self._times), 1)
        level = worse_level(self._most_pairs, is_last or self.is_slower, share)
        rows = [self._decided.get(name) or self._judge(name, level) for name in names if name in self._times]
        self.undecided = [row.benchmark for row in rows if row.verdict is Verdict.NOT_DECIDED]
        # Where each benchmark is decided, nothing is left to ask of all.
        return [together, *rows] if together and (self.undecided or ALL in self._decided) else rows

    def _is_like_others(self, name: str, microseconds: float) -> bool:
        """Whether the limit is the one of all: no larger share of so short a time, and no change is meant."""
        limit = self._thresholds.time
        is_meant = any(each.covers(name, TIME) for each in self._thresholds.meant)
        return limit.room(microseconds) <= limit.relative * microseconds and not is_meant

    def _judge(self, name: str, level: float) -> Row:
        return self._keep(compare_times(name, *self._times[name], self._thresholds, level))

    def _judge_all(self, is_last: bool) -> Row | None:
        if not self._ratios_of_all or ALL in self._decided:
            return self._decided.get(ALL)
        level = worse_level(self._most_pairs, is_last, SHARE_OF_ALL)
        return self._keep(compare_all(self._ratios_of_all, self._thresholds, level))

    def _keep(self, row: Row) -> Row:
        if row.verdict is not Verdict.NOT_DECIDED:
            self._decided[row.benchmark] = row
        return row
