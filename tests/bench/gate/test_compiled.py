"""Compiled modules of both sides: what the head has no more, or uses no more, is worse."""

import pytest

from kvbench.gate.compiled import compare_compiled
from kvbench.gate.processes import Measured
from kvbench.gate.session import run_gate
from kvbench.gate.thresholds import Limit, Meant, Thresholds
from kvbench.judge.verdict import Verdict

SLOTS, PAGES = "kvcache._slots", "kvcache.storage._page_arrays"
BASE = {"built", "imported", "has claim", "has find", "claim in fifo", "find in fifo", "find in lru"}
LIMITS = Thresholds(Limit("lower", relative=0.05), {"copies": Limit("lower")})


def judge(base, head, *meant):
    (row,) = compare_compiled({SLOTS: base} if base else {}, {SLOTS: head} if head else {}, _limits(*meant))
    assert (row.benchmark, row.metric) == (SLOTS, "compiled")
    return row


def _limits(*meant):
    return Thresholds(LIMITS.time, LIMITS.metrics, meant)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (set(), "the head's library does not have it"),
        ({"built"}, "the head's library has it, and does not import it"),
        (
            {"built", "imported", "has claim", "has find"},
            "the head's library does not call claim in fifo, find in fifo, find in lru",
        ),
        (BASE - {"find in lru"}, "the head's library does not call find in lru"),
        (BASE - {"find in lru"} | {"find in mru", "claim in mru"}, "the head's library does not call find in lru"),
        (BASE - {"find in lru", "has find"}, "the head's library does not call find in lru"),
    ],
    ids=["dropped", "another import", "a fallback", "a fallback in one place", "more elsewhere", "none in its place"],
)
def test_what_the_head_uses_no_more_is_worse(head, reason):
    row = judge(BASE, head)
    assert (row.verdict, row.reason) == (Verdict.WORSE, reason)
    assert row.base == len(BASE) - 2
    assert row.head < row.base


@pytest.mark.parametrize(
    ("base", "head", "verdict"),
    [
        (BASE, BASE, Verdict.SAME),
        ({"built"}, {"built"}, Verdict.SAME),
        (set(), BASE, Verdict.BETTER),
        ({"built"}, BASE, Verdict.BETTER),
        # Another function does it now.
        (BASE, {"seek in fifo" if use == "find in fifo" else use for use in BASE} - {"has find", "find in lru"}
         | {"has seek", "seek in lru"}, Verdict.SAME),
    ],
    ids=["alike", "unused on both sides", "new", "newly used", "renamed"],
)  # fmt: skip
def test_what_passes(base, head, verdict):
    row = judge(base, head)
    assert (row.verdict, row.reason) == (verdict, "")


def test_a_module_that_is_meant_to_go():
    row = judge(BASE, set(), Meant("compiled", "NumPy is as fast", SLOTS, relative=1))
    assert (row.verdict, row.reason) == (Verdict.MEANT, "NumPy is as fast")
    assert judge(BASE, set(), Meant("compiled", "of another", PAGES, relative=1)).verdict is Verdict.WORSE


def test_a_long_reason_is_cut():
    base = {"built", "imported", *(f"find in {each}" for each in "abcde")}
    assert judge(base, {"built", "imported"}).reason.endswith(
        "does not call find in a, find in b, find in c and 2 more"
    )


def run(**compiled):
    """A gate run of counters, whose processes use these parts."""

    def measure(sides, seed, what, places):
        found = {"metrics": {"store": {"copies": 3}}, "places": {"store": "store"}}
        return {side: Measured(**found, compiled=compiled[side]) for side in sides}

    return run_gate(measure, LIMITS, with_times=False)


def test_a_run_has_a_row_of_each_module():
    report = run(base={SLOTS: BASE, PAGES: {"built"}}, head={PAGES: {"built"}})
    found = {row.benchmark: row.verdict for row in report.rows}
    assert found == {"store": Verdict.SAME, SLOTS: Verdict.WORSE, PAGES: Verdict.SAME}
    assert report.fails
    assert not run(base={SLOTS: BASE}, head={SLOTS: BASE}).fails
