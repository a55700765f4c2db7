"""New against legacy in a line: how much faster, how much smaller, and the outcomes of lookups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from kvbench.history.series import CONTROL, History
from kvbench.judge.verdict import Rates, Verdict, overall, sign_of_count, sign_of_rates, sign_of_time
from kvbench.measure.machine import short_commit
from kvbench.report.input_files import Replay, ReplayFile
from kvbench.report.panels import Table
from kvbench.report.text import number
from kvbench.results.replay import DEFAULT_CAPACITIES, OUTCOMES, BackendResult
from kvcache import GEOMETRIES

__all__ = ["Comparison", "comparison_table", "from_history", "from_replays", "headlines", "where_legacy_lies"]

DEFAULT_BACKENDS = ("new", "new:paged")  # what the library does by default, by either name
RECORDED, SYNTHETIC = "recorded", "synthetic"
_REPLAYS = "replays.Replays.track_"
_TIME, _BYTES = "step_time_over_legacy", "bytes_reserved"
_TRACKED = ("miss", "stale_hit", "context_mismatch")  # outcomes whose rates asv tracks
_OPEN = "time undecided"
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
        if verdict is Verdict.INCONCLUSIVE:
            return _OPEN
        if time or verdict is Verdict.MIXED:
            return verdict
        decided = " and ".join(name for name, sign in signs.items() if sign)
        return f"{verdict} in {decided}; {'not timed' if self.faster is None else _OPEN}"

    @property
    def tone(self) -> str:
        """How a page marks it: ``better`` and ``worse`` are kept for what is so in everything."""
        return self.word if self.word in (Verdict.BETTER, Verdict.WORSE) else Verdict.MIXED

    @property
    def sentence(self) -> str:
        """The numbers in words."""
        if self.faster is None:
            timed = "not timed;"
        else:
            known = (
                "no spread is known" if self.quartiles is None else "quartiles {:.3g} to {:.3g}".format(*self.quartiles)
            )
            judged = "" if sign_of_time(self.faster, self.quartiles) else ": undecided"
            timed = f"a recurrent step is {self.faster:.3g} times as fast ({known}{judged});"
        reserved = ""
        if self.smaller == 1:
            reserved = "as many bytes reserved; "
        elif self.smaller:
            more = f"{1 / self.smaller:.3g} times as many" if self.smaller < 1 else f"{self.smaller:.3g} times fewer"
            reserved = f"{more} bytes reserved; "
        made = "synthetic " if self.kind == SYNTHETIC else ""
        return (
            f"{self.backend}: {timed} {reserved}{self.outcomes}. {made}{self.trace}, pools: {self.capacity}; "
            f"{self.source}."
        )

    @property
    def outcomes(self) -> str:
        """Lookup outcomes in words."""
        always = ("hit", "miss", "stale_hit")
        met = [outcome for outcome in ("context_mismatch", "wrong_content") if any(self.rates[outcome])]
        shown = [(_OUTCOMES[outcome], self.rates[outcome]) for outcome in (*always, *met)]
        return ", ".join(f"{name} {number(mine)} % (legacy {number(legacy)} %)" for name, (mine, legacy) in shown)


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
    )


def from_history(history: History) -> list[Comparison]:
    """A comparison for each backend of each trace that asv replayed, at the last commit that measured all of it.

    A commit that measured a part, as a run of some benchmarks does, does not compare a backend with legacy.
    """
    found = []
    of_both = [_BYTES, *(f"{outcome}_rate" for outcome in _TRACKED)]
    for machine, commits in history.commits.items():
        replays = [each for each in history.series if each.machine == machine and each.benchmark.startswith(_REPLAYS)]
        values = {(each.benchmark.removeprefix(_REPLAYS), each.params): each.values for each in replays}
        known = pd.DataFrame(values, index=commits)
        for params, cell in [(each.params, each.cell) for each in replays if each.benchmark == f"{_REPLAYS}{_TIME}"]:
            if set(cell) != {"trace", "backend", "device"} or cell["backend"].startswith(CONTROL):
                continue
            legacy = f"trace={cell['trace']}, backend={CONTROL}, device={cell['device']}"
            needed = [(_TIME, params), *((name, each) for name in of_both for each in (params, legacy))]
            whole = known[needed].dropna() if set(needed) <= set(known) else known.iloc[:0]
            if len(whole):
                source = f"asv, {machine}, commit {short_commit(whole.index[-1])}"
                last = whole.iloc[-1].to_dict()
                mine, theirs = ({name: last[name, each] for name in of_both} for each in (params, legacy))
                found.append(_of_cell(cell, last[_TIME, params], mine, theirs, source))
    return found


def _of_cell(
    cell: dict[str, str], over: float, mine: dict[str, float], legacy: dict[str, float], source: str
) -> Comparison:
    for values in (mine, legacy):
        values["hit_rate"] = 100 - sum(values[f"{outcome}_rate"] for outcome in _TRACKED)
    return Comparison(
        _geometry(cell["trace"]),
        cell["device"],
        cell["trace"],
        SYNTHETIC if cell["trace"].startswith("synthetic-") else RECORDED,
        "default",
        cell["backend"],
        1 / over if over else None,
        None,
        legacy[_BYTES] / mine[_BYTES] if mine[_BYTES] and legacy[_BYTES] else None,
        {outcome: (mine.get(f"{outcome}_rate"), legacy.get(f"{outcome}_rate")) for outcome in OUTCOMES},
        source,
    )


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


def where_legacy_lies(comparison: Comparison, others: Iterable[Comparison]) -> str:
    """Outcomes of the same lookups in the largest pools in which legacy has stale hits; empty where it has none."""
    same = [
        each
        for each in others
        if (each.geometry, each.device, each.trace, each.backend)
        == (comparison.geometry, comparison.device, comparison.trace, comparison.backend)
        and each.rates["stale_hit"][1]
    ]
    here = [each for each in same if each.source == comparison.source]
    found = max(here or same, key=lambda each: each.size or 0.0, default=comparison)
    if found.capacity == comparison.capacity:  # its sentence says so
        return ""
    return f"With pools {found.capacity}: {found.outcomes}."


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
