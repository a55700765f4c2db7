"""Rows of a pull request's comment: a benchmark of the gate with its worst metric, or two caches in a replay."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kvbench.gate.instructions import INSTRUCTIONS
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict, sign_of_count, sign_of_rates, sign_of_time
from kvbench.metrics import METRICS
from kvbench.results.replay import DEFAULT_CAPACITIES, STEP, BackendResult, ReplayResult

__all__ = ["Line", "gate_lines", "replay_lines"]

# The worst first. What is the same has no row.
_ORDER = (
    Verdict.FAILED, Verdict.GONE, Verdict.WORSE, Verdict.NOT_DECIDED, Verdict.UNKNOWN, Verdict.MEANT, Verdict.BETTER,
    Verdict.NEW,
)  # fmt: skip
_SIGNS = {1: Verdict.BETTER, 0: Verdict.SAME, -1: Verdict.WORSE}
_LONGEST = 200  # characters of a reason


@dataclass(frozen=True)
class Line:
    """One row: texts as they are shown, and how far from 1 the ratio is, by which rows of one verdict are ordered."""

    verdict: Verdict
    what: str
    metric: str
    before: str
    after: str
    change: str
    instructions: str = ""
    size: float = 0.0

    @property
    def rank(self) -> tuple[int, float]:
        return _ORDER.index(self.verdict), -self.size


def gate_lines(rows: Iterable[Row]) -> list[Line]:
    """One row for each benchmark of which a metric is not the same: with the worst of these metrics."""
    by_benchmark: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_benchmark[row.benchmark].append(row)
    return [line for each in by_benchmark.values() for line in _line_of(each)]


def _line_of(rows: Sequence[Row]) -> Iterator[Line]:
    changed = sorted((row for row in rows if row.verdict in _ORDER), key=_rank)
    if changed:
        worst, *others = changed
        names = [_label(row.metric) for row in others if row.verdict is worst.verdict]
        also = f" (also {', '.join(names)})" if names else ""
        counted = "; ".join(
            _share(row) for row in rows if row.metric == INSTRUCTIONS and None not in (row.base, row.head)
        )
        yield Line(
            worst.verdict, worst.benchmark.removeprefix("test_"), f"{_label(worst.metric)}{also}",
            _value(worst, worst.base), _value(worst, worst.head), _change(worst), counted, _size(worst),
        )  # fmt: skip


def _rank(row: Row) -> tuple[int, float]:
    return _ORDER.index(row.verdict), -_size(row)


def _label(metric: str) -> str:
    known = METRICS.get(metric)
    return known.label if known else metric.replace("_", " ")


def _value(row: Row, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.2f} us" if row.metric == "time" else f"{value:,.10g}"


def _change(row: Row) -> str:
    if row.ratio is not None:
        between = "" if row.low is None or row.high is None else f" ({row.low:.3f} to {row.high:.3f})"
        found = f"{row.ratio:.3f} times{between}"
    else:
        found = _share(row) if row.base is not None and row.head is not None else ""
    reason = row.reason if len(row.reason) <= _LONGEST else f"{row.reason[:_LONGEST]} ..."
    return ": ".join(each for each in (found, reason) if each)


def _share(row: Row) -> str:
    """How much a count changed, in % where it can be."""
    assert row.base is not None
    assert row.head is not None
    more = row.head - row.base
    if not more:
        return "same"
    return f"{100 * more / row.base:+,.2f} %" if row.base else f"{more:+,.10g}"


def _size(row: Row) -> float:
    ratio = row.ratio
    if ratio is None and row.base is not None and row.head is not None:
        ratio = row.head / row.base if row.base else math.inf
    return abs(math.log(ratio)) if ratio is not None and ratio > 0 else math.inf if ratio == 0 else 0.0


def replay_lines(replay: ReplayResult) -> Iterator[Line]:
    """Rows of each cache against the baseline: its step, what it returned that is not right, and its memory."""
    for each in replay.backends:
        if each.name != replay.baseline:
            name = f"{_described(replay)}: {replay.baseline} to {each.name}"
            found = (*_step(replay, each, name), *_outcomes(replay, each, name), *_memory(replay, each, name))
            yield from (line for line in found if line.verdict is not Verdict.SAME)


def _described(replay: ReplayResult) -> str:
    """The trace, and where it was replayed, unless that is as usual."""
    slots = [] if replay.capacity.label in DEFAULT_CAPACITIES else [replay.capacity.label]
    device = [] if replay.device == "cpu" else [replay.device]
    return ", ".join([replay.trace.file.removesuffix(".parquet"), *slots, *device])


def _times(ratio: float, more: str, less: str) -> str:
    return f"{ratio:.2f} times {more}" if ratio >= 1 else f"{1 / ratio:.2f} times {less}"


def _step(replay: ReplayResult, backend: BackendResult, name: str) -> Iterator[Line]:
    ratio = replay.baseline_over_backend.get(backend.name)
    times = [(each.latency_us or {}).get(STEP) for each in (replay.first, backend)]
    if ratio is not None and ratio.median > 0 and times[0] is not None and times[1] is not None:
        verdict = _SIGNS[sign_of_time(ratio.median, (ratio.p25, ratio.p75))]
        faster = f"{_times(ratio.median, 'faster', 'slower')} (ratio {ratio.p25:.2f} to {ratio.p75:.2f})"
        before, after = (f"{each.p50:,.1f} us" for each in times if each is not None)
        yield Line(verdict, name, "recurrent step", before, after, faster, size=abs(math.log(ratio.median)))


def _outcomes(replay: ReplayResult, backend: BackendResult, name: str) -> Iterator[Line]:
    for outcome in ("wrong_content", "stale_hit", "hit"):
        metric, rates = METRICS[outcome], (replay.first.rate(outcome), backend.rate(outcome))
        sign = sign_of_rates((rates[1], rates[0]))
        verdict = _SIGNS[sign if metric.better == "higher" else -sign]
        if outcome == "wrong_content" and rates[1]:
            verdict = Verdict.FAILED  # however little
        misses = [each.rate("miss") for each in (replay.first, backend)]
        if rates[0] is not None and rates[1] is not None and None not in misses:
            missed = f"misses: {misses[0]:.2f} % to {misses[1]:.2f} %"
            yield Line(
                verdict,
                name,
                metric.label,
                f"{rates[0]:.2f} %",
                f"{rates[1]:.2f} %",
                missed,
                size=abs(rates[1] - rates[0]),
            )


def _memory(replay: ReplayResult, backend: BackendResult, name: str) -> Iterator[Line]:
    before, after = (sum(each.bytes_reserved.values()) for each in (replay.first, backend))
    if before and after:
        verdict, less = _SIGNS[sign_of_count(before / after)], _times(before / after, "smaller", "larger")
        yield Line(
            verdict, name, "bytes reserved", f"{before:,}", f"{after:,}", less, size=abs(math.log(before / after))
        )
