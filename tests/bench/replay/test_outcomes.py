"""The judge of a lookup, and the recorded search's contexts."""

import pytest

from kvbench.replay.content import NO_CONTEXT, extend_context, generated_context
from kvbench.replay.outcomes import Outcome, Outcomes, RecordedContexts, judge
from kvbench.trace.steps import Step
from kvcache import Scope


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (None, Outcome.MISS),
        ((1, 10), Outcome.HIT),
        ((1, 11), Outcome.CONTEXT_MISMATCH),
        ((2, 10), Outcome.STALE_HIT),
        ((2, 11), Outcome.STALE_HIT),
    ],
)
def test_a_lookup_is_judged_by_key_and_then_by_context(found, outcome):
    assert judge((1, 10), found) is outcome


def step(parent, node, hit=None, store=None):
    return Step(Scope.NODE, 0, 0, [0], [parent], [node], [hit], [7], [store], [0], 1)


def test_a_context_is_what_was_appended_to_what():
    recorded = RecordedContexts()
    assert recorded.wanted(step(None, None), 0) == NO_CONTEXT
    recorded.store(step(None, None, store=3))
    root = extend_context(NO_CONTEXT, 7)
    assert recorded.wanted(step(7, 3), 0) == root
    assert recorded.wanted(step(7, None), 0) == generated_context(7)
    recorded.store(step(7, 3, hit=True, store=4))
    assert recorded.wanted(step(7, 4), 0) == extend_context(root, 7)


def test_after_a_recorded_miss_the_history_goes_on_from_a_generated_context():
    recorded = RecordedContexts()
    recorded.store(step(None, None, store=3))
    recorded.store(step(7, 3, hit=False, store=4))
    assert recorded.wanted(step(7, 3, hit=False), 0) == extend_context(NO_CONTEXT, 7)
    assert recorded.wanted(step(7, 4), 0) == extend_context(generated_context(7), 7)


def test_outcomes_are_counted_by_scope_and_against_the_recorded_run():
    outcomes = Outcomes()
    outcomes.add(Scope.ROOT, Outcome.HIT, True)
    outcomes.add(Scope.NODE, Outcome.MISS, True)
    outcomes.add(Scope.NODE, Outcome.STALE_HIT, True)  # to the recorded run it was a hit
    outcomes.add(Scope.NODE, Outcome.MISS, None)
    assert outcomes.root == {Outcome.HIT: 1}
    assert outcomes.node == {Outcome.MISS: 2, Outcome.STALE_HIT: 1}
    assert (outcomes.recorded, outcomes.disagreements) == (3, 1)
    assert outcomes.by_lookup == [Outcome.HIT, Outcome.MISS, Outcome.STALE_HIT, Outcome.MISS]
