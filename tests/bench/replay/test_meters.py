"""Which calls are of a recurrent step: its operations, and a share of every clear after its search."""

from dataclasses import replace

import pytest
import torch
from traces import TINY, steps_of, synthetic

from kvbench.measure.counters import Counts
from kvbench.replay.meters import CountMeter, SearchSteps, TimeMeter
from kvbench.replay.passes import Replay
from kvbench.trace.steps import Step
from kvcache import CacheConfig, KVCacheManager, Scope

SEARCH, ROOT = Step(Scope.NODE, 0, 0, envs=[0]), Step(Scope.ROOT, 1, -1, envs=[0])
EPISODE_ENDS = Step(Scope.ROOT, 1, -1)  # between inferences


def shared(*calls):
    """The steps that share each ``None``, which is a clear, among steps."""
    search, found = SearchSteps(), []
    for call in calls:
        if call is None:
            found.append(list(search.clear()))
        else:
            search.begin(call)
    return found


@pytest.mark.parametrize(
    ("calls", "steps"),
    [
        ([ROOT, None, SEARCH, SEARCH, ROOT, None], [[], [0, 1]]),
        # All of one inference's clears, and those of episodes that end before it.
        ([SEARCH, ROOT, None, None], [[0], [0]]),
        ([SEARCH, EPISODE_ENDS, None, None, ROOT, None], [[0], [0], [0]]),
        # LightZero's roots may be several batches, of which the last clears.
        ([SEARCH, ROOT, ROOT, None], [[0]]),
        # A later root without a search clears at nobody's cost.
        ([SEARCH, ROOT, None, ROOT, None, SEARCH, ROOT, None], [[0], [], [1]]),
    ],
)
def test_a_search_pays_for_what_is_cleared_after_it(calls, steps):
    assert shared(*calls) == steps


class Clock:
    """A nanosecond a call, and a million a clear."""

    def time(self, call, *args):
        return call(*args), (10**6 if "clear" in getattr(call, "__name__", "") else 1, None)


def test_every_search_of_a_timed_pass_is_cleared_once():
    meter, backend = TimeMeter(Clock()), KVCacheManager(CacheConfig(TINY))
    for step in (ROOT, SEARCH, SEARCH, ROOT):
        meter.begin(step)
        meter("lookup", len, ())
    meter("clear", backend.clear_recur_cache)
    meter.end(backend)
    assert meter.clears == [(range(2), (10**6, None))]
    meter.begin(SEARCH)
    meter.end(backend)
    assert meter.clears[1:] == [(range(2, 3), (10**6, None))]


class SlowClear(KVCacheManager):
    """Touches a tensor for each entry that it clears, as one that clears entry by entry would."""

    def clear_recur_cache(self):
        for _ in range(len(self.recur_pool)):
            torch.zeros(1).clone()
        super().clear_recur_cache()


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    return steps_of(synthetic(tmp_path_factory.mktemp("trace") / "trace", TINY, searches=3))


def test_a_clear_that_does_more_shows_in_the_counts_of_a_step(steps):
    def counts(kind, searches=None):
        replay = Replay(steps, CacheConfig(TINY), ["new"], make=lambda name, config: kind(config))
        return replay.verify("new", counted_searches=searches)

    plain, slow = counts(KVCacheManager), counts(SlowClear)
    stored = TINY.env_num  # entries a step
    pairs = zip(slow.step_counts, plain.step_counts, strict=True)
    more = [each.tensor_ops - before.tensor_ops for each, before in pairs]
    searched = len(more) * 2 // 3
    assert more == [2 * stored] * searched + [0] * (len(more) - searched)  # the last search is not cleared
    # The clear that ends the first search is a part of it, though the next root makes it.
    assert counts(SlowClear, 1).step_counts == slow.step_counts[: len(more) // 3]
    assert counts(SlowClear, 1).counts["clear"].tensor_ops == 2 * stored * len(more) // 3


def test_shares_are_whole_and_add_up():
    meter = CountMeter(None)
    for _ in range(3):
        meter.begin(replace(SEARCH))
    meter.begin(ROOT)
    meter("clear", lambda: [torch.zeros(1) for _ in range(5)])
    assert sum(meter.by_step, Counts()) == meter.by_operation["clear"]
    assert sorted(each.allocations for each in meter.by_step) == [1, 2, 2]
