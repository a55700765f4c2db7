"""The plain form: pytest-benchmark's own comparison of two processes, around libraries that were built alike."""

from __future__ import annotations

from collections.abc import Callable

from kvbench.gate.processes import GATES, GateError, GateFixture

__all__ = ["FAILS", "compare_plainly"]

# One pair of processes finds nothing smaller for sure: see benchmarks/gates/README.md.
FAILS = "min:100%"

_PASSED, _FAILED, _SELECTED_NONE = 0, 1, 5  # pytest's exit codes
_SEED = 1  # of both sides


def compare_plainly(
    fixture: GateFixture, show: Callable[[str], None], fails: str = FAILS, other_parts: bool = False
) -> bool:
    """Save the base's times, and let pytest-benchmark compare the head's with them; ``show`` gets what it prints.

    ``fails`` is its ``--benchmark-compare-fail``. With ``other_parts`` the sides may use different compiled parts.

    Returns:
        Whether a benchmark of the head failed, or regressed.

    Raises:
        GateError: there was nothing to compare, or not with each other.
    """
    common = [
        str(GATES), "--gate-pass=times", f"--benchmark-storage=file://{fixture.sides['base'].parent / 'saved'}",
        "--benchmark-columns=min,median,rounds", "--benchmark-sort=fullname",
        *(["-k", fixture.keyword] if fixture.keyword else []),
    ]  # fmt: skip
    base = fixture.run_pytest("base", _SEED, [*common, _library(fixture, "base"), "--benchmark-save=base"])
    if base.returncode == _SELECTED_NONE:
        raise GateError("no benchmark was selected: there is nothing to compare")
    if base.returncode not in (_PASSED, _FAILED):
        raise fixture.not_measured("base", base)
    compared = ["--benchmark-compare", f"--benchmark-compare-fail={fails}"]
    others = ["--gate-other-parts"] if other_parts else []
    head = fixture.run_pytest("head", _SEED, [*common, _library(fixture, "head"), *compared, *others])
    if head.returncode not in (_PASSED, _FAILED):
        raise fixture.not_measured("head", head)
    show(head.stdout)
    return head.returncode == _FAILED


def _library(fixture: GateFixture, side: str) -> str:
    return f"--gate-library={fixture.sides[side]}"
