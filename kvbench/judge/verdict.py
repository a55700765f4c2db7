"""What became of something that was compared: one vocabulary, and which way a difference points."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum

__all__ = [
    "SMALLEST_EFFECT", "SMALLEST_RATE", "Rates", "Verdict", "overall", "sign_of_count", "sign_of_rates", "sign_of_time",
    "verdict_of_change",
]  # fmt: skip

SMALLEST_EFFECT = 0.05  # of a time, as a share of it
SMALLEST_RATE = 0.01  # of a rate in %: less is rounding

Rates = tuple[float | None, float | None]  # of a backend and of what it is compared with, %


class Verdict(StrEnum):
    """What became of one metric, or of several together."""

    BETTER = "better"
    SAME = "same"
    MEANT = "meant"  # changed, and the commit says that it should
    NEW = "new"  # the base has nothing to compare with
    NOT_DECIDED = "not decided"
    WORSE = "worse"
    GONE = "gone"  # the base measured it and the head does not
    FAILED = "failed"
    MIXED = "mixed"  # some of several metrics are better, and some worse
    MACHINE = "machine"  # a time of legacy, whose code is left alone: the machine or the harness changed
    ENVIRONMENT = "with the environment"  # another Python, machine or setting was measured with: no commit is blamed
    UNKNOWN = ""  # it changed, and which direction is better is not known

    @classmethod
    def _missing_(cls, value: object) -> Verdict | None:
        return cls.NOT_DECIDED if value == "inconclusive" else None  # its name in files of 2026

    @property
    def fails(self) -> bool:
        """Whether a commit with such a verdict is not to be merged."""
        return self in (Verdict.WORSE, Verdict.GONE, Verdict.FAILED)

    @property
    def is_of_a_commit(self) -> bool:
        """Whether a commit of the code may have done it."""
        return self not in (Verdict.MACHINE, Verdict.ENVIRONMENT)


def verdict_of_change(rises: bool, better: str) -> Verdict:
    """``better`` is ``lower`` or ``higher``; ``none`` where no change is good; empty where it is not known."""
    if not better:
        return Verdict.UNKNOWN
    return Verdict.BETTER if better == ("higher" if rises else "lower") else Verdict.WORSE


def overall(signs: Iterable[int]) -> Verdict:
    """The verdict on several metrics by their signs (1 is better, -1 worse, 0 not decided)."""
    found = {sign for sign in signs if sign}
    if not found:
        return Verdict.NOT_DECIDED
    return Verdict.MIXED if len(found) > 1 else Verdict.BETTER if found == {1} else Verdict.WORSE


def sign_of_time(faster: float | None, quartiles: tuple[float, float] | None) -> int:
    """Whether a time is better: its ratio has the smallest effect, and both quartiles are on the same side of 1."""
    if faster is None or faster <= 0 or quartiles is None or abs(math.log(faster)) < math.log1p(SMALLEST_EFFECT):
        return 0
    low, high = quartiles
    return int(low > 1) if faster > 1 else -int(high < 1)


def sign_of_count(ratio: float | None) -> int:
    """Whether a ratio of counts is above 1 or below, by however little: counts are the same on any machine."""
    return 0 if ratio is None else (ratio > 1) - (ratio < 1)


def sign_of_rates(rates: Rates) -> int:
    """Whether the first rate is above the second or below, by ``SMALLEST_RATE`` or more."""
    mine, other = rates
    if mine is None or other is None or abs(mine - other) < SMALLEST_RATE:
        return 0
    return 1 if mine > other else -1
