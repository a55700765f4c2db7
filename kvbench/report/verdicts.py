"""New against legacy in a line: how much faster, how much smaller, and what lookups came to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kvbench.measure.machine import short_commit
from kvbench.report.changes import SMALLEST_EFFECT
from kvbench.report.history import History
from kvbench.report.panels import Table
from kvbench.report.replays import DEFAULT_CAPACITIES, ReplayFile, ReplayResult
from kvbench.report.text import number
from kvcache import GEOMETRIES

__all__ = ["Verdict", "from_history", "from_replays", "headlines", "verdict_table", "where_legacy_lies"]

BASELINE = "legacy"
DEFAULT_BACKENDS = ("new", "new:paged")  # what the library does unless told otherwise, by either name
RECORDED, SYNTHETIC = "recorded", "synthetic"
_TRACES = "replays.Replays."
_TIME = "step_time_over_legacy"
_METRICS = (_TIME, "bytes_reserved", "miss_rate", "stale_hit_rate", "context_mismatch_rate")
_MATTERS = 0.01  # of a rate in %: less is rounding
_OPEN = "time undecided"

Rates = tuple[float | None, float | None]  # of the backend and of legacy, %


@dataclass(frozen=True)
class Verdict:
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
            return "worse"
        # Legacy's stale hits are no hits: a backend that never lies and never hits has gained nothing.
        judged = {
            "time": self._time(), "memory": _exact(self.smaller),
            "stale hits": -_difference(self.stale), "hits": _difference(self.hit),
        }  # fmt: skip
        found = {name: sign for name, sign in judged.items() if sign}
        if len(set(found.values())) != 1:
            return "mixed" if found else _OPEN
        word = "better" if min(found.values()) > 0 else "worse"
        if judged["time"]:
            return word
        return f"{word} in {' and '.join(found)}; {'not timed' if self.faster is None else _OPEN}"

    @property
    def tone(self) -> str:
        """How a page marks it: ``better`` and ``worse`` are kept for what is so in everything."""
        return self.word if self.word in ("better", "worse") else "mixed"

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
            judged = "" if self._time() else ": undecided"
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
        """What lookups came to, in words."""
        told = [("hits", self.hit), ("misses", self.miss), ("stale hits", self.stale)]
        told += [
            (name, rates)
            for name, rates in (("context mismatches", self.mismatch), ("wrong content", self.wrong))
            if any(rates)
        ]
        return ", ".join(f"{name} {number(mine)} % (legacy {number(legacy)} %)" for name, (mine, legacy) in told)

    def _time(self) -> int:
        """A ratio alone decides nothing: its quartiles have to be on one side, too."""
        if self.quartiles is None:
            return 0
        low, high = self.quartiles
        effect = _effect(self.faster)
        return effect if (low > 1 if effect > 0 else high < 1) else 0


def _effect(ratio: float | None) -> int:
    """Whether a ratio is of a size that counts, and to which side."""
    if not ratio or abs(math.log(ratio)) < math.log1p(SMALLEST_EFFECT):
        return 0
    return 1 if ratio > 1 else -1


def _exact(ratio: float | None) -> int:
    """To which side a ratio of counts is, by however little: the same on any machine."""
    return 0 if ratio is None else (ratio > 1) - (ratio < 1)


def _difference(rates: Rates) -> int:
    """Whether a backend's rate is above legacy's, or below."""
    mine, legacy = rates
    if mine is None or legacy is None or abs(mine - legacy) < _MATTERS:
        return 0
    return 1 if mine > legacy else -1


def from_replays(files: Iterable[ReplayFile]) -> list[Verdict]:
    """A verdict for each backend of each replay that has legacy for its baseline."""
    return [
        _of_replay(file, replay, place)
        for file in files
        for replay in file.replays
        if replay.baseline == BASELINE
        for place, backend in enumerate(replay.backends)
        if backend.name != BASELINE
    ]


def _of_replay(file: ReplayFile, replay: ReplayResult, place: int) -> Verdict:
    backend, legacy = replay.backends[place], replay.first
    over = backend.over_baseline
    mine, theirs = sum(backend.bytes_reserved.values()), sum(legacy.bytes_reserved.values())
    return Verdict(
        replay.geometry.name,
        replay.device,
        replay.trace,
        SYNTHETIC if replay.synthetic else RECORDED,
        replay.capacity,
        backend.name,
        None if over is None else over["median"],
        None if over is None else (over["p25"], over["p75"]),
        theirs / mine if mine else None,
        (backend.rate("hit"), legacy.rate("hit")),
        (backend.rate("stale_hit"), legacy.rate("stale_hit")),
        f"{file.name}, commit {short_commit(file.commit)}" if file.commit else file.name,
        (backend.rate("miss"), legacy.rate("miss")),
        (backend.rate("context_mismatch"), legacy.rate("context_mismatch")),
        (backend.rate("wrong_content"), legacy.rate("wrong_content")),
        legacy.bytes_reserved.get("recur"),
    )


def from_history(history: History) -> list[Verdict]:
    """A verdict for each backend of each trace that asv replayed, all of it at the last commit that measured all of it.

    A commit that measured a part, as a run of some benchmarks does, tells nothing of a backend against legacy.
    """
    found = []
    for machine in history.commits:
        known = {name: history.values(machine, f"{_TRACES}track_{name}") for name in _METRICS}
        for params in known[_TIME]:
            cell = dict(part.partition("=")[::2] for part in params.split(", "))
            if set(cell) != {"trace", "backend", "device"} or cell["backend"].startswith(BASELINE):
                continue
            legacy = f"trace={cell['trace']}, backend={BASELINE}, device={cell['device']}"
            place = _last_whole(known, params, legacy)
            if place is None:
                continue
            latest = {
                name: {each: float(values[each][place]) for each in (params, legacy) if each in values}
                for name, values in known.items()
            }
            over, reserved = latest[_TIME][params], latest["bytes_reserved"]
            mine, theirs = reserved[params], reserved[legacy]
            found.append(
                Verdict(
                    _geometry(cell["trace"]),
                    cell["device"],
                    cell["trace"],
                    SYNTHETIC if cell["trace"].startswith("synthetic-") else RECORDED,
                    "default",
                    cell["backend"],
                    1 / over if over else None,
                    None,
                    theirs / mine if mine and theirs else None,
                    (_hits(latest, params), _hits(latest, legacy)),
                    (latest["stale_hit_rate"][params], latest["stale_hit_rate"][legacy]),
                    f"asv, {machine}, commit {short_commit(history.commits[machine][place])}",
                    (latest["miss_rate"][params], latest["miss_rate"][legacy]),
                    (latest["context_mismatch_rate"][params], latest["context_mismatch_rate"][legacy]),
                )
            )
    return found


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


def _hits(latest: dict[str, dict[str, float]], params: str) -> float:
    return 100 - sum(latest[f"{name}_rate"][params] for name in ("miss", "stale_hit", "context_mismatch"))


def headlines(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """One verdict for each geometry and device: of the default backend, if it can be, at default capacity.

    Replays given to the report stand before asv's, recorded searches before synthetic ones.
    """
    order = {name: place for place, name in enumerate(GEOMETRIES)}
    best: dict[tuple[str, str], Verdict] = {}
    for verdict in sorted(verdicts, key=_rank):
        best.setdefault((verdict.geometry, verdict.device), verdict)
    return sorted(best.values(), key=lambda each: (order.get(each.geometry, len(order)), each.device))


def where_legacy_lies(verdict: Verdict, verdicts: Iterable[Verdict]) -> str:
    """What became of the same lookups in the largest pools in which legacy has stale hits; empty where it has none."""
    same = [
        each
        for each in verdicts
        if (each.geometry, each.device, each.trace, each.backend)
        == (verdict.geometry, verdict.device, verdict.trace, verdict.backend)
        and each.stale[1]
    ]
    here = [each for each in same if each.source == verdict.source]
    found = max(here or same, key=lambda each: each.size or 0.0, default=verdict)
    if found.capacity == verdict.capacity:  # its sentence says so
        return ""
    return f"With pools {found.capacity}: {found.rates}."


def _rank(verdict: Verdict) -> tuple[bool, ...]:
    return (
        verdict.capacity not in DEFAULT_CAPACITIES,
        verdict.backend not in DEFAULT_BACKENDS,
        verdict.source.startswith("asv, "),
        verdict.kind == SYNTHETIC,
    )


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
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
        for each in verdicts
    ]  # fmt: skip
    return Table(headings, rows)
