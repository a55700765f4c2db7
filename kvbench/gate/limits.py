"""What a change is judged by: the base's limits. A limit that the change itself loosens is a finding."""

from __future__ import annotations

from collections.abc import Mapping

from kvbench.gate.thresholds import TIME, Limit, Meant, Thresholds
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict
from kvbench.metrics import SMALL_POOL

__all__ = ["LIMITS", "judged_by"]

LIMITS = "limits"  # in place of a benchmark's name


def judged_by(
    head: Thresholds, base: Thresholds | None, directions: Mapping[str, str] | None
) -> tuple[Thresholds, list[Row]]:
    """The limits that hold between a base and a head, and a row for each limit that the head loosens.

    The base's limits hold. A metric that is new with the head has the head's, and so has one whose loosened limit is
    meant. Meant changes are the head's: those that the base has already are spent. None: no base has limits yet.
    ``directions`` are the base's own of its metrics; None where they do not differ.
    """
    if base is None:
        return head, []
    meant = tuple(each for each in head.meant if each not in base.meant)
    rows: list[Row] = []
    limits = {TIME: head.time, **head.metrics}
    known = {TIME: base.time, **{name: Limit(each) for name, each in (directions or {}).items()}, **base.metrics}
    for metric in {**known, **head.metrics}:
        is_new = directions is not None and metric.removesuffix(SMALL_POOL) not in {*directions, TIME}
        old = known.get(metric) or (None if is_new else base.limit_of(metric))
        new = head.time if metric == TIME else head.limit_of(metric)
        if old is None:
            continue  # the head's limit holds
        limits[metric] = old
        if new is not None and _is_looser(new, old):
            rows.append(_row(metric, new, old, meant))
            if rows[-1].verdict is Verdict.MEANT:
                limits[metric] = new
    return Thresholds(limits.pop(TIME), limits, meant), rows


def _is_looser(new: Limit, old: Limit) -> bool:
    turns = new.direction not in (old.direction, "none")  # with "none" every change counts
    return turns or new.relative > old.relative or new.absolute > old.absolute


def _row(metric: str, new: Limit, old: Limit, meant: tuple[Meant, ...]) -> Row:
    why = next((each.why for each in meant if each.covers(LIMITS, metric, "limit")), None)
    changes = ", ".join(
        f"{name} {getattr(old, name)} -> {getattr(new, name)}"
        for name in ("direction", "relative", "absolute")
        if getattr(old, name) != getattr(new, name)
    )
    if why is not None:
        return Row(LIMITS, metric, Verdict.MEANT, reason=f"{changes}: {why}")
    advice = 'the base\'s limit holds; a [[meant]] with change = "limit" would loosen it'
    return Row(LIMITS, metric, Verdict.WORSE, reason=f"{changes}: {advice}")
