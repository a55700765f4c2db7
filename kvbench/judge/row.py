"""What a gate finds of one metric of one benchmark. Its file has these rows, and pages and comments read them."""

from __future__ import annotations

from dataclasses import dataclass

from kvbench.judge.verdict import Verdict

__all__ = ["ALL", "Row"]

ALL = "all benchmarks together"


@dataclass(frozen=True)
class Row:
    """One metric of one benchmark.

    Attributes:
        metric: ``time`` or a counter's name; empty where it is about all of them.
        base, head: values; of times the medians over processes, in microseconds. None where there is none.
        ratio: of times: head / base, the mean of the pairs of processes.
        low, high: what ``ratio`` lies in, as the test has it: above the limit is worse, below it is the same.
        reason: of a failure, a skip or an allowance.
    """

    benchmark: str
    metric: str
    verdict: Verdict
    base: float | None = None
    head: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    reason: str = ""
