"""New against legacy in a line: how much faster, how much smaller, and the outcomes of lookups."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kvbench.history.series import CONTROL, History
from kvbench.judge.segments import FEWEST_VALUES
from kvbench.judge.smallest import SmallestStep
from kvbench.judge.verdict import Rates, Verdict, overall, sign_of_count, sign_of_rates, sign_of_time
from kvbench.measure.machine import short_commit
from kvbench.metrics import SMALL_POOL
from kvbench.report.input_files import Replay, ReplayFile
from kvbench.report.panels import Table
from kvbench.results.replay import DEFAULT_CAPACITIES, OUTCOMES, BackendResult
from kvcache import GEOMETRIES

__all__ = ["Comparison", "comparison_table", "from_history", "from_replays", "headlines"]

DEFAULT_BACKENDS = ("new", "new:paged")  # what the library does by default, by either name
RECORDED, SYNTHETIC = "recorded", "synthetic"
_REPLAYS = "replays.Replays.track_"
_TIME, _BYTES = "step_time_over_legacy", "bytes_reserved"
_TRACKED = ("miss", "stale_hit", "context_mismatch")  # outcomes whose rates asv tracks
_OPEN = "time not decided"
_QUARTER = 0.6745  # standard deviations from the mean of a normal distribution to its quartiles
_OUTCOMES = {
    "hit": "hits", "stale_hit": "stale hits", "miss": "misses", "context_mismatch": "context mismatches",
    "wrong_content": "wrong content",
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One backend against legacy, on one trace at one capacity.

    Attributes:
        geometry, device, trace, kind, capacity, backend: of what; ``kind`` says whether a real search stands behind it.
        faster: how many times, on a recurrent step; None where nothing was timed. With quartiles where they are known.
        smaller: how many times fewer bytes are reserved.
        rates: of the backend and of legacy, %, by outcome.
        source: where the numbers come from.
        size: of the recurrent pool: bytes that legacy reserves for it.
        slots: of that pool, where they were given.
        command: that measured it; empty where it is not known.
    """

    geometry: str
    device: str
    trace: str
    kind: str
    capacity: str
    backend: str
    faster: float | None
    quartiles: tuple[float, float] | None
    smaller: float | None
    rates: dict[str, Rates]
    source: str
    size: float | None = None
    slots: int | None = None
    command: str = ""

    @property
    def word(self) -> str:
        """``better`` in everything, ``worse`` in everything, ``mixed``; in what, where the time decides nothing.

        A backend that returns wrong content more often than legacy is ``worse``, however fast it is.
        """
        wrong, legacys_wrong = self.rates["wrong_content"]
        if (wrong or 0.0) > (legacys_wrong or 0.0):
            return Verdict.WORSE
        time = sign_of_time(self.faster, self.quartiles)
        # Legacy's stale hits are no hits: a backend that never lies and never hits has gained nothing.
        signs = {
            "time": time, "memory": sign_of_count(self.smaller),
            "stale hits": -sign_of_rates(self.rates["stale_hit"]), "hits": sign_of_rates(self.rates["hit"]),
        }  # fmt: skip
        verdict = overall(signs.values())
        if verdict is Verdict.NOT_DECIDED:
            return _OPEN
        if time or verdict is Verdict.MIXED:
            return verdict
        decided = " and ".join(name for name, sign in signs.items() if sign)
        return f"{verdict} in {decided}; {'not timed' if self.faster is None else _OPEN}"

    @property
    def tone(self) -> str:
        """How a page marks it: ``better`` and ``worse`` are kept for what is so in everything."""
        return self.word if self.word in (Verdict.BETTER, Verdict.WORSE) else Verdict.MIXED


def from_replays(files: Iterable[ReplayFile]) -> list[Comparison]:
    """A comparison for each backend of each replay that has legacy for its baseline."""
    return [
        _of_replay(replay, backend)
        for file in files
        for replay in file.replays
        if replay.result.baseline == CONTROL
        for backend in replay.result.backends
        if backend.name != CONTROL
    ]


def _of_replay(replay: Replay, backend: BackendResult) -> Comparison:
    file, result, legacy = replay.file, replay.result, replay.result.first
    over = result.baseline_over_backend.get(backend.name)
    mine, theirs = sum(backend.bytes_reserved.values()), sum(legacy.bytes_reserved.values())
    return Comparison(
        result.trace.geometry.name,
        result.device,
        result.trace.file,
        SYNTHETIC if result.trace.synthetic else RECORDED,
        result.capacity.label,
        backend.name,
        None if over is None else over.median,
        None if over is None else (over.p25, over.p75),
        theirs / mine if mine else None,
        {outcome: (backend.rate(outcome), legacy.rate(outcome)) for outcome in OUTCOMES},
        f"{file.name}, commit {short_commit(file.commit)}" if file.commit else file.name,
        legacy.bytes_reserved.get("recur"),
        result.capacity.recur,
        file.command,
    )


def from_history(history: History, spreads: Mapping[tuple[str, str, str], SmallestStep]) -> list[Comparison]:
    """A comparison for each backend of each trace that asv replayed, at the last commit that measured all of it.

    A commit that measured a part, as a run of some benchmarks does, does not compare a backend with legacy. How far a
    time scatters is what its history says: ``spreads`` has it by ``Series.family``.
    """
    found: list[Comparison] = []
    for machine, commits in history.commits.items():
        replays = [each for each in history.series if each.machine == machine and each.benchmark.startswith(_REPLAYS)]
        values = {(each.benchmark.removeprefix(_REPLAYS), each.params): each.values for each in replays}
        known = pd.DataFrame(values, index=commits)
        for series in [each for each in replays if each.benchmark == f"{_REPLAYS}{_TIME}"]:
            cell = series.cell
            if set(cell) != {"trace", "backend", "device"} or cell["backend"].startswith(CONTROL):
                continue
            long_enough = np.count_nonzero(~np.isnan(series.values)) >= FEWEST_VALUES
            spread = spreads.get(series.family) if long_enough else None
            found += _of_cell(cell, known, f"asv, {machine}", None if spread is None else spread.spread)
    return found


def _of_cell(cell: dict[str, str], known: pd.DataFrame, source: str, spread: float | None) -> Iterator[Comparison]:
    """Of one backend and trace, with the usual pools and with a small one, where they were measured."""
    of_both = [cell["backend"], CONTROL]
    params = [f"trace={cell['trace']}, backend={each}, device={cell['device']}" for each in of_both]
    usual = [(_TIME, params[0]), *((name, each) for name in (_BYTES, *_rates("")) for each in params)]
    whole = known[usual].dropna() if {*usual} <= {*known} else known.iloc[:0]
    if not len(whole):
        return
    commit = whole.index[-1]
    last = known.loc[commit].to_dict()
    faster = 1 / last[_TIME, params[0]] if last[_TIME, params[0]] else None
    mine, legacys = (last[_BYTES, each] for each in params)
    usual_pools = Comparison(
        _geometry(cell["trace"]),
        cell["device"],
        cell["trace"],
        SYNTHETIC if cell["trace"].startswith("synthetic-") else RECORDED,
        "default",
        cell["backend"],
        faster,
        None if faster is None or spread is None else _quartiles(faster, spread),
        legacys / mine if mine and legacys else None,
        _outcomes(last, "", params),
        f"{source}, commit {short_commit(commit)}",
    )
    yield usual_pools
    small = [(name, each) for name in _rates(SMALL_POOL) for each in params]
    if all(not math.isnan(last.get(each, math.nan)) for each in small):
        rates = _outcomes(last, SMALL_POOL, params)
        yield replace(usual_pools, capacity="small pool", faster=None, quartiles=None, smaller=None, rates=rates)


def _quartiles(middle: float, spread: float) -> tuple[float, float]:
    """Of a value whose logarithm scatters so."""
    quarter = math.exp(_QUARTER * spread)
    return middle / quarter, middle * quarter


def _rates(pool: str) -> list[str]:
    return [f"{outcome}_rate{pool}" for outcome in _TRACKED]


def _outcomes(values: dict[tuple[str, str], float], pool: str, params: Sequence[str]) -> dict[str, Rates]:
    """Rates of a backend and of legacy by outcome; what asv does not track is the rest, or not known."""
    found: dict[str, Rates] = dict.fromkeys(OUTCOMES, (None, None))
    tracked = [[values[name, each] for name in _rates(pool)] for each in params]
    found |= {name: (mine, legacys) for name, mine, legacys in zip(_TRACKED, *tracked, strict=True)}
    found["hit"] = (100 - sum(tracked[0]), 100 - sum(tracked[1]))
    return found


def _geometry(trace: str) -> str:
    """The geometry that a trace of the suite is of, which its name begins with."""
    name = trace.removeprefix("synthetic-")
    return next((each for each in sorted(GEOMETRIES, key=len, reverse=True) if name.startswith(each)), name)


def headlines(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """One comparison for each geometry and device: of the default backend, if it can be, at default capacity.

    Replays given to the report come before asv's, recorded searches before synthetic ones.
    """
    order = {name: place for place, name in enumerate(GEOMETRIES)}
    best: dict[tuple[str, str], Comparison] = {}
    for each in sorted(comparisons, key=_rank):
        best.setdefault((each.geometry, each.device), each)
    return sorted(best.values(), key=lambda each: (order.get(each.geometry, len(order)), each.device))


def _rank(comparison: Comparison) -> tuple[bool, ...]:
    return (
        comparison.capacity not in DEFAULT_CAPACITIES,
        comparison.backend not in DEFAULT_BACKENDS,
        comparison.source.startswith("asv, "),
        comparison.kind == SYNTHETIC,
    )


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """All of them, with every number."""
    headings = (
        "geometry", "device", "trace", "kind", "slots", "backend", "verdict", "times faster", "p25", "p75",
        "times fewer bytes", *(f"{whose}{name}, %" for name in _OUTCOMES.values() for whose in ("", "legacy's ")),
        "from",
    )  # fmt: skip
    rows = [
        (
            each.geometry, each.device, each.trace, each.kind, each.capacity, each.backend, each.word, each.faster,
            *(each.quartiles or (None, None)), each.smaller,
            *(rate for outcome in _OUTCOMES for rate in each.rates[outcome]), each.source,
        )
        for each in comparisons
    ]  # fmt: skip
    return Table(headings, rows)
