"""A search is divided into its parts: each moment belongs to one, and nothing is changed."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from kvbench.measure.search_split import PARTS, SplitClock, split_search
from kvcache import ObservedCache
from kvcache.geometry import GEOMETRIES
from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig, play

CONFIG = WorldModelConfig(replace(GEOMETRIES["cartpole"], env_num=2, num_simulations=4))


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time

    def work(self, seconds):
        self.time += seconds


def test_each_moment_belongs_to_the_innermost_part():
    clock = Clock()
    split = SplitClock(clock)

    def inference():
        clock.work(3)
        split("cache", clock.work, 7)
        clock.work(1)

    def search():
        clock.work(20)
        split("forward", inference)
        clock.work(200)
        return "found"

    def play_on():
        clock.work(1000)
        found = split("tree", search)
        split("forward", inference)
        return found

    split.start()
    assert split("rest", play_on) == "found"
    assert split.seconds == {"forward": 8, "cache": 14, "tree": 220, "rest": 1000}
    split.start()
    assert split.seconds == dict.fromkeys(PARTS, 0)


def test_a_part_that_fails_has_ended():
    clock = Clock()
    split = SplitClock(clock)

    def fails():
        clock.work(2)
        raise KeyError

    with pytest.raises(KeyError):
        split("tree", fails)
    split("rest", clock.work, 5)
    assert split.seconds == {"forward": 0, "cache": 0, "tree": 2, "rest": 5}


def test_cache_work_is_the_time_of_all_that_an_inference_asks_of_a_cache():
    """A clock that counts its readings: each call takes one second, on the cache or in it."""
    model = WorldModel(replace(CONFIG, recur_pool_size=1))
    asked = []

    def note(operation, call, *args):
        asked.append(operation)
        return call(*args)

    clock = SplitClock(itertools.count().__next__)
    model.cache = ObservedCache(model.cache, note)
    split_search(model, SearchConfig(), clock)
    roots = model.forward_initial_inference(np.ones((2, 4)))
    for _ in range(2):
        model.forward_recurrent_inference(roots.latents + 1, [0, 1])
    assert "supply" in asked
    assert clock.seconds["cache"] == len(asked)


def test_nothing_that_is_found_changes_and_all_parts_are_there():
    one, other = WorldModel(CONFIG), WorldModel(CONFIG)
    clock = SplitClock(itertools.count().__next__)
    divided = list(play(one, 3, 0, search=split_search(one, SearchConfig(4), clock)))
    whole = list(play(other, 3, 0, SearchConfig(4)))
    for each, same in zip(divided, whole, strict=True):
        assert np.array_equal(each.result.visit_counts, same.result.visit_counts)
        assert np.array_equal(each.result.values, same.result.values)
    assert all(clock.seconds[part] > 0 for part in PARTS)
    assert sum(clock.seconds.values()) == clock._since  # every reading is in one part
