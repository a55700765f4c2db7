"""Searches in turns: what a step's time is, by a clock that is not one."""

from traces import TINY

from kvbench.replay.drive import FillerContent, Latents
from kvbench.replay.lockstep import SearchClock, take_turns
from kvbench.trace.steps import Step
from kvcache import CacheConfig, KVCacheManager, Scope, make_backend

LAPS = {"hash_states": 1, "look_up": 10, "assemble": 100, "store": 1000, "clear": 50_000}


class FakeStopwatch:
    """Laps by the name of the call."""

    def __init__(self):
        self.calls = []

    def time(self, call, *args):
        name = getattr(call, "__name__", "")
        name = name if name in LAPS else "clear"
        self.calls.append(name)
        return call(*args), (LAPS[name], None)


def test_a_step_is_its_operations_and_its_share_of_the_clear_that_ends_its_search(filled_steps):
    content = FillerContent(KVCacheManager(CacheConfig(TINY)))
    clock = take_turns(filled_steps, {"new": content}, Latents(TINY.embed_dim, "cpu"), FakeStopwatch())["new"]
    simulations = TINY.num_simulations
    assert clock.clears == [LAPS["clear"]] * 2  # one a search; those of steps without a search are no cost of one
    assert clock.steps == [2 * 1 + 10 + 100 + 1000 + LAPS["clear"] / simulations] * 2 * simulations
    assert clock.longest == [5] * 2 * simulations


def test_a_search_that_is_not_over_has_no_clear_yet():
    clock = SearchClock(FakeStopwatch().time)
    clock.begin(Step(Scope.NODE, 0, 0, envs=[0]))
    clock("store", lambda: None)
    before = list(clock.steps)
    clock("lookup", lambda: None)
    assert clock.steps[0] > before[0]
    assert clock.clears == []
    clock.begin(Step(Scope.ROOT, 1, -1, envs=[0]))
    clock("store", lambda: None)  # of a root: in no step
    assert len(clock.steps) == 1
    clock("clear", lambda: None)
    assert len(clock.clears) == 1


def test_backends_alternate(filled_steps):
    calls = []

    class Noting(KVCacheManager):
        def assemble(self):
            calls.append("new")
            return super().assemble()

    legacy = make_backend("legacy", CacheConfig(TINY))
    assemble = legacy.assemble
    legacy.assemble = lambda: (calls.append("legacy"), assemble())[1]
    contents = {"legacy": FillerContent(legacy), "new": FillerContent(Noting(CacheConfig(TINY)))}
    take_turns(filled_steps, contents, Latents(TINY.embed_dim, "cpu"), FakeStopwatch())
    assert calls == ["legacy", "new"] * (len(calls) // 2)
