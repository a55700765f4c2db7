"""Timelines: what pools hold while a replay goes on, and where lookups go wrong."""

import json

from traces import COMMITTED, steps_of

from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import Replay
from kvbench.replay.summary import summarise
from kvbench.replay.timeline import MOST_SAMPLES, Timeline
from kvcache.config import CacheConfig
from kvcache.geometry import GEOMETRIES

CARTPOLE = GEOMETRIES["cartpole"]
SLOTS = 30


def replayed(steps, backends=("legacy", "new")):
    return Replay(steps, CacheConfig(CARTPOLE, recur_pool_size=SLOTS), backends).run(0)


def test_it_adds_up_to_what_the_replay_found():
    for report in replayed(steps_of(COMMITTED, searches=3)).values():
        summary = summarise(report)
        timeline, outcomes = summary["timeline"], summary["outcomes"]
        assert json.loads(json.dumps(timeline)) == timeline
        for outcome in Outcome:
            name = outcome.value.replace(" ", "_")
            assert sum(row[name] for row in timeline["by_simulation"]) == outcomes["total"][name]
            assert sum(row[name] for row in timeline["by_depth"]) == outcomes["node"][name]
        assert timeline["by_simulation"][0]["simulation"] == -1
        assert {pool: sizes[-1] for pool, sizes in timeline["bytes_reserved"].items()} == summary["bytes_reserved"]


def test_pools_fill_empty_and_are_never_over_full():
    steps = steps_of(COMMITTED, searches=2)
    reports = replayed(steps)
    entries = {name: report.verification.timeline.to_dict()["entries"]["recur"] for name, report in reports.items()}
    assert len(entries["new"]) == len(steps) == 52
    # A root clears the pool; each simulation adds an entry for each of the 8 environments.
    assert entries["new"][:6] == [0, 8, 16, 24, 30, 30]
    assert max(entries["new"]) == SLOTS
    # Legacy's dict goes on answering to what was overwritten: that is where its stale hits come from.
    assert max(entries["legacy"]) == 200


def test_samples_are_few_and_evenly_spread():
    steps = steps_of(COMMITTED, searches=2)
    timeline = Timeline(3 * MOST_SAMPLES)
    backend = Replay(steps, CacheConfig(CARTPOLE), ["new"])._build("new")
    for _ in range(3 * MOST_SAMPLES):
        timeline.add(backend, steps[0], [])
    assert timeline.to_dict()["steps"] == list(range(3, 3 * MOST_SAMPLES + 1, 3))


def test_an_empty_one():
    assert Timeline(0).to_dict() == {
        "steps": [], "entries": {}, "bytes_reserved": {}, "by_simulation": [], "by_depth": [],
    }  # fmt: skip
