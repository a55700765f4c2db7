"""Capacity curves as tables, one for full entries and one for pages, and the answer in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from kvbench.cli.console import cells_of, make_table
from kvbench.metrics import OUTCOMES
from kvbench.replay.hierarchy import RECUR
from kvbench.results.capacity import CapacityPoint, CapacityResults
from kvcache import EvictionStrategy

__all__ = ["answers", "capacity_tables"]

_UNITS = {"entries": "slots", "pages": "pages"}
_TITLES = {"entries": "full entries: new:slab, new:private and legacy", "pages": "pages of one token: new:paged"}
_PLURALS = {"request": "s", "search": "es"}
_DEFAULT = EvictionStrategy.TREE.value  # of recurrent pools without room for a whole search
_POOLS = {"recur": "recurrent pool", "init": "init pools"}


def capacity_tables(results: CapacityResults) -> Iterator[Table]:
    """A table for each unit: a row a size, a column a policy, a section an outcome."""
    for unit, title in _TITLES.items():
        points = [each for each in results.points if each.unit == unit]
        if points:
            yield _table(results, points, f"{_POOLS[results.pool]} of {title}" if results.pool else "a pool of entries")


def _table(results: CapacityResults, points: Sequence[CapacityPoint], title: str) -> Table:
    unit = points[0].unit
    policies = list(dict.fromkeys(each.policy for each in points))
    sizes = {each.size: None if each.bytes is None else each.bytes / 1e6 for each in points}
    at = {(each.policy, each.size): each for each in points}
    trace = results.trace
    counted = (trace.events, "request") if trace.searches is None else (trace.searches, "search")
    of_all = f"{trace.file}, {counted[0]:,} {counted[1]}{'' if counted[0] == 1 else _PLURALS[counted[1]]}"
    table = make_table(f"{of_all}: {title}", [_UNITS[unit], "MB"], policies)
    for outcome in OUTCOMES:
        rates = {size: [at[policy, size].rates.get(outcome.name) for policy in policies] for size in sizes}
        if outcome.name != "hit" and not any(any(row) for row in rates.values()):
            continue
        table.add_row(Text(f"{outcome.label}, %", style="bold"))
        for size, row in rates.items():
            shown = cells_of([None if rate is None else 100 * rate for rate in row], "{:.2f}")
            table.add_row(f"{size:,}", *cells_of([sizes[size]], "{:,.2f}"), *shown)
    smallest = {each.policy: each for each in results.smallest if each.unit == unit}
    found = [smallest.get(policy) for policy in policies]
    table.add_row(Text(f"smallest within {_missing(results)}", style="bold"))
    table.add_row(_UNITS[unit], "", *cells_of([each and each.size for each in found], "{:,}"))
    if any(each and each.bytes for each in found):
        table.add_row("", "MB", *cells_of([each and (each.bytes or 0) / 1e6 for each in found], "{:,.2f}"))
    return table


def _missing(results: CapacityResults) -> str:
    return f"{100 * (1 - results.enough):.0f} %"


def answers(results: CapacityResults) -> Iterator[str]:
    """What the tables come to."""
    unlimited, pool = results.unlimited, _POOLS[results.pool] if results.pool else "pool"
    if not unlimited.lookups:
        yield "The trace has no lookups: there is nothing to size."
        return
    needs = "need" if results.pool == "init" else "needs"
    needed = _size("entries", unlimited.size, unlimited.bytes)
    yield f"Unlimited, the {pool} of this trace {needs} {needed}: {100 * (unlimited.rates['hit'] or 0):.2f} % hits."
    for unit in _TITLES:
        found = {each.policy: each for each in results.smallest if each.unit == unit}
        if found:
            best = min(found.values(), key=lambda each: each.size)
            with_it = " or ".join(policy for policy, each in found.items() if each.size == best.size)
            smallest = _size(unit, best.size, best.bytes)
            yield f"The smallest pool within {_missing(results)} of unlimited is {smallest}, with {with_it}."
            usual = found.get(_DEFAULT)
            if usual is not None and usual.size > best.size and results.pool == RECUR:
                size = _size(unit, usual.size, usual.bytes)
                yield f"With {_DEFAULT}, the default of small pools, it is {size}."
    if results.pool is None:
        yield "Context mismatches are unknown: the trace has no tree."
    if results.sampled is not None:
        widest = max((error for each in results.points for error in each.errors.values()), default=0.0)
        sampled = results.sampled
        yield (
            f"Sampled: {sampled.followed:,} of {sampled.total:,} {sampled.unit} were followed. With 95 % confidence no "
            f"share in the tables is off by more than {100 * widest:.2f} points."
        )


def _size(unit: str, size: int, size_in_bytes: int | None) -> str:
    megabytes = None if size_in_bytes is None else f"{size_in_bytes / 1e6:,.2f} MB"
    if unit == "pages":
        return f"{megabytes} of pages"
    one, more = ("slot", "slots") if megabytes else ("entry", "entries")
    counted = f"{size:,} {one if size == 1 else more}"
    return f"{counted} ({megabytes})" if megabytes else counted
