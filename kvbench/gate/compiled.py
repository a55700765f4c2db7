"""Compiled parts of both libraries: what the base has and uses of them, the head must have and use."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

from kvbench.gate.rows import compare_metrics
from kvbench.gate.thresholds import Thresholds
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict
from kvbench.metrics import COMPILED

__all__ = ["Parts", "compare_compiled"]

# By module: ``built``, ``imported``, ``FUNCTION in WORKLOAD`` where that was called, and ``has FUNCTION`` for each.
Parts = Mapping[str, Set[str]]

_NAMED = 3  # uses that a reason lists


def compare_compiled(base: Parts, head: Parts, thresholds: Thresholds) -> list[Row]:
    """Judge each compiled module that either library has: a use that the head has no more is worse."""
    none: Set[str] = frozenset()
    return [_compare(each, base.get(each, none), head.get(each, none), thresholds) for each in sorted({*base, *head})]


def _compare(module: str, base: Set[str], head: Set[str], thresholds: Thresholds) -> Row:
    before, after = _uses(base), _uses(head)
    lost = {use for use in before - after if not _is_replaced(use, head)}
    # What came anew makes up for no loss.
    left = len(before) - len(lost) if lost else max(len(before), len(after))
    (row,) = compare_metrics(module, {COMPILED.name: len(before)}, {COMPILED.name: left}, thresholds)
    return replace(row, reason=_reason(lost)) if row.verdict is Verdict.WORSE else row


def _uses(parts: Set[str]) -> set[str]:
    return {each for each in parts if not each.startswith("has ")}


def _is_replaced(use: str, head: Set[str]) -> bool:
    """Whether the head's module lacks that function, and another one of it is called in its place."""
    function, called, workload = use.partition(" in ")
    return bool(called) and f"has {function}" not in head and any(each.endswith(f" in {workload}") for each in head)


def _reason(lost: set[str]) -> str:
    if "built" in lost:
        return "the head's library does not have it"
    if "imported" in lost:
        return "the head's library has it, and does not import it"
    named = sorted(lost)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"the head's library does not call {', '.join(named[:_NAMED])}{more}"
