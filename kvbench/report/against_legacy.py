"""New against legacy as one table, a geometry a row, its numbers as bars; and the stale hits of small pools."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kvbench.judge.verdict import Rates, Verdict, sign_of_count, sign_of_rates, sign_of_time
from kvbench.report.comparisons import DEFAULT_BACKENDS, Comparison, headlines
from kvbench.report.panels import Panel, Plot, Series, Table
from kvbench.report.text import number
from kvbench.results.replay import DEFAULT_CAPACITIES
from kvcache import GEOMETRIES

__all__ = ["Bar", "Line", "lines_of", "stale_panel"]

RATES = {"hit": "hits", "stale_hit": "stale hits", "miss": "misses"}
_COLOURS = {"hit": 2, "stale_hit": 7, "miss": 6, "context_mismatch": 4}  # of the palette
_NEW_COLOUR, _LEGACYS = 2, (7, 1, 3, 4, 5, 6, 0)
_DEVICE = "cpu"
_TONES = {1: Verdict.BETTER.value, 0: Verdict.MIXED.value, -1: Verdict.WORSE.value}


@dataclass(frozen=True)
class Bar:
    """A number as a bar: ``share`` of its column, and how a page marks it. ``about`` says how sure it is."""

    text: str
    share: float
    tone: str = ""
    about: str = ""


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        name: the geometry, and the device where it is not the CPU.
        time, memory: new against legacy, with the pools' usual sizes; None where it was not measured.
        pool: what ``rates`` are of: bars of new and of legacy, outcome by outcome.
        about: which trace and files.
    """

    name: str
    time: Bar | None = None
    memory: Bar | None = None
    pool: str = ""
    rates: Sequence[tuple[Bar, Bar]] = ()
    about: str = ""


def lines_of(found: Sequence[Comparison]) -> list[Line]:
    """A row for each geometry and device; one that was not measured has no numbers. None where nothing was compared."""
    chosen = headlines(found)
    if not chosen:
        return []
    rows = [(each.geometry, each.device, each) for each in chosen]
    compared = {each.geometry for each in chosen}
    slowest = max((each.faster or 0.0 for each in chosen), default=0.0)
    largest = max((each.smaller or 0.0 for each in chosen), default=0.0)
    order = [*GEOMETRIES, *(name for name in compared if name not in GEOMETRIES)]
    lines = []
    for name in order:
        own = [each for geometry, _, each in rows if geometry == name]
        lines += [_line(each, found, slowest, largest) for each in own] or [Line(name)]
    return lines


def _line(each: Comparison, found: Sequence[Comparison], fastest: float, largest: float) -> Line:
    in_pool = smallest_pool(each, found)
    rates = [
        (
            _rate(mine, _tone(outcome, (mine, legacys))),
            _rate(legacys, _tone(outcome, (legacys, mine)) if outcome == "stale_hit" else "old"),
        )
        for outcome in RATES
        for mine, legacys in [in_pool.rates[outcome]]
    ]
    name = each.geometry if each.device == _DEVICE else f"{each.geometry}, {each.device}"
    pool = "default pools" if in_pool.capacity in DEFAULT_CAPACITIES else in_pool.capacity
    sources = dict.fromkeys(f"{one.kind} {one.trace}, {one.source}" for one in (each, in_pool))
    is_usual = each.capacity in DEFAULT_CAPACITIES  # a replay of small pools alone says nothing of usual ones
    return Line(
        name,
        _times(each.faster, sign_of_time(each.faster, each.quartiles), fastest, _spread(each)) if is_usual else None,
        _times(each.smaller, sign_of_count(each.smaller), largest, "") if is_usual else None,
        pool,
        rates,
        "; ".join(sources),
    )


def _tone(outcome: str, rates: Rates) -> str:
    """How a page marks the first of two rates; stale hits and misses are no gain."""
    sign = sign_of_rates(rates) * (1 if outcome == "hit" else -1)
    return _TONES[sign] if sign else ""


def _spread(each: Comparison) -> str:
    if each.quartiles is None:
        return "not decided: no spread is known"
    return " to ".join(f"{end:.2g}" for end in each.quartiles)


def _times(value: float | None, sign: int, largest: float, about: str) -> Bar | None:
    if value is None:
        return None
    return Bar(f"{value:.3g}\N{MULTIPLICATION SIGN}", value / largest if largest else 0.0, _TONES[sign], about)


def _rate(value: float | None, tone: str) -> Bar:
    text = "-" if value is None else f"{value:.0f} %" if value >= 10 or value == int(value) else f"{value:.2g} %"
    return Bar(text, (value or 0.0) / 100, tone)


def smallest_pool(comparison: Comparison, found: Iterable[Comparison]) -> Comparison:
    """The same cache in the largest pool in which legacy has stale hits; of the same trace, if it can be.

    Where legacy has none, the comparison itself.
    """
    same = [
        each
        for each in found
        if (each.geometry, each.device) == (comparison.geometry, comparison.device)
        and (each.backend == comparison.backend or {each.backend, comparison.backend} <= {*DEFAULT_BACKENDS})
        and each.rates["stale_hit"][1]
    ]
    of_trace = [each for each in same if each.trace == comparison.trace]
    in_file = [each for each in of_trace if each.source == comparison.source]
    return max(in_file or of_trace or same, key=lambda each: each.size or 0.0, default=comparison)


def stale_panel(found: Sequence[Comparison]) -> Panel | None:
    """Stale hits in small pools; None where legacy was asked in none."""
    defaults = [each for each in found if each.backend in DEFAULT_BACKENDS and each.device == _DEVICE]
    curves: dict[str, dict[int, Comparison]] = {}
    for each in defaults:
        if each.slots:
            curves.setdefault(each.trace, {}).setdefault(each.slots, each)
    wide = {trace: points for trace, points in curves.items() if len(points) > 1}
    if wide:
        commands = dict.fromkeys(each.command for points in wide.values() for each in points.values() if each.command)
        return replace(_curves(wide), command="; ".join(commands))
    small = [smallest_pool(each, defaults) for each in headlines(defaults)]
    small = [each for each in small if each.capacity not in DEFAULT_CAPACITIES]
    return _outcomes(small) if small else None


def _curves(curves: dict[str, dict[int, Comparison]]) -> Panel:
    """Against the pool's size: a line for legacy on each trace, and one for new, the most of all."""
    rows: list[tuple[str, int, float | None, float | None]] = []
    most: dict[int, float] = {}
    series = []
    names = {trace: next(iter(points.values())).geometry for trace, points in curves.items()}
    for colour, (trace, points) in zip(_LEGACYS, curves.items(), strict=False):
        name = names[trace] if list(names.values()).count(names[trace]) == 1 else trace
        sizes = sorted(points)
        rates = [points[size].rates["stale_hit"] for size in sizes]
        rows += [(trace, size, *both) for size, both in zip(sizes, rates, strict=True)]
        for size, (mine, _) in zip(sizes, rates, strict=True):
            most[size] = max(most.get(size, 0.0), mine or 0.0)
        legacys = [math.nan if legacy is None else legacy for _, legacy in rates]
        series.append(Series(f"legacy, {name}", sizes, legacys, _hover, colour=colour))
    sizes = sorted(most)
    series.append(Series("new", sizes, [most[size] for size in sizes], _hover, colour=_NEW_COLOUR))
    return Panel(
        "stale-hits",
        "Stale hits in small pools",
        Table(("trace", "slots", "new, %", "legacy, %"), rows),
        plot=Plot("slots of the recurrent pool", "stale hits, % of lookups", series, from_zero=True),
    )


def _hover(slots: float, rate: float, name: str) -> str:
    return f"{number(rate)} %\n{name}\n{number(slots)} slots"


def _outcomes(small: Sequence[Comparison]) -> Panel:
    """What lookups come to: two bars for each geometry."""
    sides = {"legacy": 1, "new": 0}
    bars = [(f"{each.geometry}, {whose}", each, place) for each in small for whose, place in sides.items()]
    series = [
        Series(
            {**RATES, "context_mismatch": "context mismatches"}[outcome],
            range(len(bars)),
            [each.rates[outcome][place] or 0.0 for _, each, place in bars],
            lambda _, rate, name: f"{number(rate)} %\n{name}",
            colour=colour,
        )
        for outcome, colour in _COLOURS.items()
    ]
    rows = [
        (name, each.capacity, each.trace, *(each.rates[outcome][place] for outcome in _COLOURS))
        for name, each, place in bars
    ]
    headings = ("cache", "pool", "trace", *(f"{outcome.replace('_', ' ')}, %" for outcome in _COLOURS))
    return Panel(
        "stale-hits",
        "Lookups in a small pool",
        Table(headings, rows),
        plot=Plot("% of lookups", series=series, categories=[name for name, _, _ in bars]),
    )
