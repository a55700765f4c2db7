"""New against legacy in a line: how much faster, how much smaller, and the outcomes of lookups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kvbench.history.series import History
from kvbench.judge.verdict import Rates, Verdict, overall, sign_of_count, sign_of_rates, sign_of_time
from kvbench.measure.machine import short_commit
from kvbench.report.panels import Table
from kvbench.report.result_files import ReplayFile
from kvbench.report.text import number
from kvbench.results.replay import DEFAULT_CAPACITIES, ReplayResult
from kvcache import GEOMETRIES

__all__ = ["Comparison", "comparison_table", "from_history", "from_replays", "headlines", "where_legacy_lies"]

BASELINE = "legacy"
DEFAULT_BACKENDS = ("new", "new:paged")  # what the library does by default, by either name
RECORDED, SYNTHETIC = "recorded", "synthetic"
_TRACES = "replays.Replays."
_TIME = "step_time_over_legacy"
_METRICS = (_TIME, "bytes_reserved", "miss_rate", "stale_hit_rate", "context_mismatch_rate")
_OPEN = "time undecided"


@dataclass(frozen=True)
class Comparison:
    """One backend against legacy, on one trace at one capacity.

    Attributes:
        geometry, device, trace, kind, capacity, backend: of what; ``kind`` says whether a real search stands behind it.
        faster: how many times, on a recurrent step; None where nothing was timed. With quartiles where they are known.
        smaller: how many times fewer bytes are reserved.
        hit, stale: rates of the backend and of legacy, %.
        source: where the numbers come from.
        miss, mismatch, wrong: as ``hit``, of misses, of context mismatches and of wrong content.
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
    hit: Rates
    stale: Rates
    source: str
    miss: Rates = (None, None)
    mismatch: Rates = (None, None)
    wrong: Rates = (None, None)
    size: float | None = None

    @property
    def word(self) -> str:
        """``better`` in everything, ``worse`` in everything, ``mixed``; in what, where the time decides nothing.

        A backend that returns wrong content more often than legacy is ``worse``, however fast it is.
        """
        if (self.wrong[0] or 0.0) > (self.wrong[1] or 0.0):
            return Verdict.WORSE
        time = sign_of_time(self.faster, self.quartiles)
        # Legacy's stale hits are no hits: a backend that never lies and never hits has gained nothing.
        signs = {
            "time": time, "memory": sign_of_count(self.smaller),
            "stale hits": -sign_of_rates(self.stale), "hits": sign_of_rates(self.hit),
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
        parts = [f"{self.backend}:"]
        if self.faster is None:
            parts.append("not timed;")
        else:
            known = (
                "no spread is known" if self.quartiles is None else "quartiles {:.3g} to {:.3g}".format(*self.quartiles)
            )
            judged = "" if sign_of_time(self.faster, self.quartiles) else ": undecided"
            parts.append(f"a recurrent step is {self.faster:.3g} times as fast ({known}{judged});")
        if self.smaller == 1:
            parts.append("as many bytes reserved;")
        elif self.smaller:
            more = f"{1 / self.smaller:.3g} times as many" if self.smaller < 1 else f"{self.smaller:.3g} times fewer"
            parts.append(f"{more} bytes reserved;")
        made = "synthetic " if self.kind == SYNTHETIC else ""
        return " ".join([*parts, f"{self.rates}. {made}{self.trace}, pools: {self.capacity}; {self.source}."])

    @property
    def rates(self) -> str:
        """Lookup outcomes in words."""
        shown = [("hits", self.hit), ("misses", self.miss), ("stale hits", self.stale)]
        shown += [
            (name, rates)
            for name, rates in (("context mismatches", self.mismatch), ("wrong content", self.wrong))
            if any(rates)
        ]
        return ", ".join(f"{name} {number(mine)} % (legacy {number(legacy)} %)" for name, (mine, legacy) in shown)


def from_replays(files: Iterable[ReplayFile]) -> list[Comparison]:
    """A comparison for each backend of each replay that has legacy for its baseline."""
    return [
        _of_replay(file, replay.result, place)
        for file in files
        for replay in file.replays
        if replay.result.baseline == BASELINE
        for place, backend in enumerate(replay.result.backends)
        if backend.name != BASELINE
    ]


def _of_replay(file: ReplayFile, replay: ReplayResult, place: int) -> Comparison:
    backend, legacy = replay.backends[place], replay.first
    over = replay.baseline_over_backend.get(backend.name)
    mine, theirs = sum(backend.bytes_reserved.values()), sum(legacy.bytes_reserved.values())
    return Comparison(
        replay.trace.geometry.name,
        replay.device,
        replay.trace.file,
        SYNTHETIC if replay.trace.synthetic else RECORDED,
        replay.capacity.label,
        backend.name,
        None if over is None else over.median,
        None if over is None else (over.p25, over.p75),
        theirs / mine if mine else None,
        (backend.rate("hit"), legacy.rate("hit")),
        (backend.rate("stale_hit"), legacy.rate("stale_hit")),
        f"{file.name}, commit {short_commit(file.commit)}" if file.commit else file.name,
        (backend.rate("miss"), legacy.rate("miss")),
        (backend.rate("context_mismatch"), legacy.rate("context_mismatch")),
        (backend.rate("wrong_content"), legacy.rate("wrong_content")),
        legacy.bytes_reserved.get("recur"),
    )


def from_history(history: History) -> list[Comparison]:
    """A comparison for each backend of each trace that asv replayed, at the last commit that measured all of it.

    A commit that measured a part, as a run of some benchmarks does, does not compare a backend with legacy.
    """
    found = []
    for machine, commits in history.commits.items():
        known = {name: history.values(machine, f"{_TRACES}track_{name}") for name in _METRICS}
        for params in known[_TIME]:
            cell = dict(part.partition("=")[::2] for part in params.split(", "))
            if set(cell) != {"trace", "backend", "device"} or cell["backend"].startswith(BASELINE):
                continue
            legacy = f"trace={cell['trace']}, backend={BASELINE}, device={cell['device']}"
            place = _last_whole(known, params, legacy)
            if place is not None:
                source = f"asv, {machine}, commit {short_commit(commits[place])}"
                mine, theirs = (
                    {name: float(values[each][place]) for name, values in known.items() if each in values}
                    for each in (params, legacy)
                )
                found.append(_of_cell(cell, mine, theirs, source))
    return found


def _of_cell(cell: dict[str, str], mine: dict[str, float], legacy: dict[str, float], source: str) -> Comparison:
    def rates(name: str) -> Rates:
        return mine[f"{name}_rate"], legacy[f"{name}_rate"]

    over, reserved, theirs = mine[_TIME], mine["bytes_reserved"], legacy["bytes_reserved"]
    return Comparison(
        _geometry(cell["trace"]),
        cell["device"],
        cell["trace"],
        SYNTHETIC if cell["trace"].startswith("synthetic-") else RECORDED,
        "default",
        cell["backend"],
        1 / over if over else None,
        None,
        theirs / reserved if reserved and theirs else None,
        (_hits(mine), _hits(legacy)),
        rates("stale_hit"),
        source,
        rates("miss"),
        rates("context_mismatch"),
    )


def _last_whole(known: dict[str, dict[str, np.ndarray]], params: str, legacy: str) -> int | None:
    """The last commit with every metric of a backend and, its own ratio aside, of legacy; None without one."""
    needed = [
        values.get(each) for name, values in known.items() for each in ([params] if name == _TIME else [params, legacy])
    ]
    rows = [each for each in needed if each is not None]
    if len(rows) < len(needed):
        return None
    whole = np.flatnonzero(~np.isnan(rows).any(axis=0))
    return int(whole[-1]) if len(whole) else None


def _geometry(trace: str) -> str:
    """The geometry that a trace of the suite is of, which its name begins with."""
    name = trace.removeprefix("synthetic-")
    return next((each for each in sorted(GEOMETRIES, key=len, reverse=True) if name.startswith(each)), name)


def _hits(rates: dict[str, float]) -> float:
    return 100 - sum(rates[f"{name}_rate"] for name in ("miss", "stale_hit", "context_mismatch"))


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
        and each.stale[1]
    ]
    here = [each for each in same if each.source == comparison.source]
    found = max(here or same, key=lambda each: each.size or 0.0, default=comparison)
    if found.capacity == comparison.capacity:  # its sentence says so
        return ""
    return f"With pools {found.capacity}: {found.rates}."


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
        "times fewer bytes", "hits, %", "legacy's hits, %", "stale hits, %", "legacy's stale hits, %", "misses, %",
        "legacy's misses, %", "context mismatches, %",
        "legacy's context mismatches, %", "wrong content, %", "legacy's wrong content, %", "from",
    )  # fmt: skip
    rows = [
        (
            each.geometry, each.device, each.trace, each.kind, each.capacity, each.backend, each.word, each.faster,
            *(each.quartiles or (None, None)), each.smaller, *each.hit, *each.stale, *each.miss,
            *each.mismatch, *each.wrong, each.source,
        )
        for each in comparisons
    ]  # fmt: skip
    return Table(headings, rows)
